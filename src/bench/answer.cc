#include "bench/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace kvasir::bench {

namespace {

using nlohmann::json;

const json& At(const json& object, const char* key) {
  static const json nothing;
  if (!object.is_object()) return nothing;
  const auto found = object.find(key);
  return found == object.end() ? nothing : *found;
}

uint64_t CountOr(const json& value, uint64_t otherwise) {
  return value.is_number_unsigned() ? value.get<uint64_t>() : otherwise;
}

std::string OneLine(std::string_view text) {
  constexpr size_t kMost = 300;
  std::string line(text.substr(0, kMost));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return line;
}

std::string MessageOf(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  for (const char* key : {"error", "message", "detail"}) {
    const json& inner = At(value, key);
    if (!inner.is_null()) return MessageOf(inner);
  }
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string ErrorMessage(std::string_view body) {
  const json parsed = json::parse(body, nullptr, /*allow_exceptions=*/false);
  return OneLine(parsed.is_discarded() ? std::string(body) : MessageOf(parsed));
}

bool AnswerReader::Take(const SseEvent& event, double seconds) {
  if (done_) return false;
  if (event.data == "[DONE]") {
    done_ = true;
    return false;
  }
  const json chunk = json::parse(event.data, nullptr, /*allow_exceptions=*/false);
  if (event.type == "error") {
    return TakeError(chunk.is_discarded() ? json(OneLine(event.data)) : chunk);
  }
  if (!chunk.is_object()) {
    record_.failure = "malformed";
    record_.message = "an event that is no JSON object: " + OneLine(event.data);
    return false;
  }
  if (!At(chunk, "error").is_null() || At(chunk, "object") == "error") return TakeError(chunk);
  TakeUsage(At(chunk, "usage"));
  const json& choices = At(chunk, "choices");
  if (choices.is_array() && !choices.empty()) TakeChoice(choices[0], seconds);
  return true;
}

bool AnswerReader::TakeError(const json& error) {
  record_.failure = "error event";
  record_.message = OneLine(MessageOf(error));
  return false;
}

void AnswerReader::TakeUsage(const json& usage) {
  if (!usage.is_object()) return;
  record_.has_usage = true;
  record_.input_tokens = CountOr(At(usage, "prompt_tokens"), record_.input_tokens);
  record_.output_tokens = CountOr(At(usage, "completion_tokens"), record_.output_tokens);
  const json& cached = At(At(usage, "prompt_tokens_details"), "cached_tokens");
  if (cached.is_number_unsigned()) record_.cached_tokens = cached.get<uint64_t>();
}

void AnswerReader::TakeChoice(const json& choice, double seconds) {
  const bool finished = !At(choice, "finish_reason").is_null();
  finished_ |= finished;
  size_t bytes = 0;
  const auto take = [&](const json& piece) {
    if (!piece.is_string()) return;
    bytes += piece.get_ref<const std::string&>().size();
    record_.text += piece.get_ref<const std::string&>();
  };
  bool token = false;
  if (route_ == Route::kChat) {
    const json& delta = At(choice, "delta");
    take(At(delta, "reasoning_content"));
    take(At(delta, "reasoning"));
    take(At(delta, "content"));
    token = bytes > 0 || At(delta, "tool_calls").is_array();
  } else {
    take(At(choice, "text"));
    // A token that is no whole character yet comes as an empty text.
    token = bytes > 0 || (!finished && At(choice, "text").is_string());
  }
  if (!token) return;
  if (pieces_++ == 0) {
    record_.ttft = seconds;
  } else {
    record_.itl.push_back(seconds - record_.latency);
  }
  record_.latency = seconds;
}

void AnswerReader::End(double seconds) {
  if (!record_.ok()) return;
  if (!complete()) {
    record_.failure = "cut off";
    record_.message = pieces_ > 0 ? fmt::format("the stream ended after {} pieces of text", pieces_)
                                  : std::string("the stream ended before any text");
    return;
  }
  if (pieces_ == 0) record_.latency = seconds;
  if (!record_.has_usage) record_.output_tokens = pieces_;
}

}  // namespace kvasir::bench
