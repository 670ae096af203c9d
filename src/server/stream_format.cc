#include "server/stream_format.h"

#include <nlohmann/json.hpp>

#include "text/utf8.h"

namespace kvasir {

void AppendJsonString(std::string_view text, std::string* out) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  out->push_back('"');
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text[0]);
    size_t length = 1;
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(text[0]);
    } else if (c == '\n') {
      out->append("\\n");
    } else if (c < 0x20 || c == 0x7F) {
      out->append(fmt::format("\\u{:04x}", static_cast<unsigned>(c)));
    } else if (c < 0x80) {
      out->push_back(text[0]);
    } else {
      length = Utf8CharLength(text);
      out->append(length == 0 ? kReplacement : text.substr(0, length));
      if (length == 0) length = 1;
    }
    text.remove_prefix(length);
  }
  out->push_back('"');
}

StreamFormat::StreamFormat(const ApiRequest& request, const ApiEcho& echo)
    : request_(request), echo_(echo) {
  const bool chat = request.route == ApiRoute::kChat;
  head_ = "data: {\"id\":";
  AppendJsonString((chat ? "chatcmpl-" : "cmpl-") + echo.id, &head_);
  head_ += chat ? ",\"object\":\"chat.completion.chunk\"" : ",\"object\":\"text_completion\"";
  head_ += fmt::format(",\"created\":{},\"model\":", echo.created_s);
  AppendJsonString(echo.model, &head_);
  head_ += ",\"choices\":[";
}

std::string StreamFormat::Chunk(size_t choice, std::string_view content, std::string_view logprobs,
                                std::string_view finish_reason, std::string_view more) const {
  // Where a usage chunk comes at the end, all others say that they are none.
  return fmt::format("{}{{\"index\":{},{},\"logprobs\":{},\"finish_reason\":{}}}]{}{}}}\n\n", head_,
                     choice, content, logprobs, finish_reason,
                     request_.include_usage ? ",\"usage\":null" : "", more);
}

std::string StreamFormat::Role(size_t choice) const {
  if (request_.route != ApiRoute::kChat) return {};
  return Chunk(choice, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}", "null", "null", "");
}

std::string StreamFormat::Text(size_t choice, std::string_view text,
                               std::string_view logprobs) const {
  const bool chat = request_.route == ApiRoute::kChat;
  std::string content = chat ? "\"delta\":{\"content\":" : "\"text\":";
  AppendJsonString(text, &content);
  if (chat) content.push_back('}');
  return Chunk(choice, content, logprobs, "null", "");
}

std::string StreamFormat::Finish(size_t choice, std::string_view logprobs,
                                 const Generation& generation,
                                 std::span<const Generation> last) const {
  const std::string_view content =
      request_.route == ApiRoute::kChat ? "\"delta\":{}" : "\"text\":\"\"";
  std::string more;
  if (!last.empty()) {
    more = fmt::format(",\"seed\":{},\"timings\":{}", last.front().seed,
                       DumpJson(ApiTimingsJson(last)));
    if (request_.kv_report) more += ",\"kv\":" + DumpJson(KvReportJson(echo_, last));
  }
  return Chunk(choice, content, logprobs, fmt::format("\"{}\"", FinishReason(generation)), more);
}

std::string StreamFormat::Usage(std::span<const Generation> choices) const {
  return fmt::format("{}],\"usage\":{}}}\n\n", head_, DumpJson(UsageJson(request_, choices)));
}

std::string StreamFormat::Failure(const Error& error) {
  return fmt::format("data: {}\n\n", DumpJson(ApiErrorBody(error)));
}

}  // namespace kvasir
