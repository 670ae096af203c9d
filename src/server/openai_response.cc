// The responses of openai.h: from generations to OpenAI's objects.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/openai.h"

namespace kvasir {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// JSON has no minus infinity; clients of other servers know this number.
double Finite(float logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

size_t Characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

ordered_json Bytes(std::string_view piece) {
  ordered_json bytes = ordered_json::array();
  for (const char c : piece) bytes.push_back(static_cast<uint8_t>(c));
  return bytes;
}

// A token's text may be a part of a character: JSON holds texts.
std::string Shown(std::string_view piece) {
  const std::string quoted =
      json(std::string(piece)).dump(-1, ' ', false, json::error_handler_t::replace);
  return json::parse(quoted).get<std::string>();
}

// A model may have more tokens than its vocabulary has texts for.
std::string PieceOf(const Tokenizer& tokenizer, int32_t id, bool special) {
  if (id < 0 || static_cast<size_t>(id) >= tokenizer.vocab_size()) return {};
  return tokenizer.Piece(id, special);
}

ordered_json ChatToken(const Tokenizer& tokenizer, int32_t id, float logprob) {
  const std::string piece = PieceOf(tokenizer, id, /*special=*/true);
  return {{"token", Shown(piece)}, {"logprob", Finite(logprob)}, {"bytes", Bytes(piece)}};
}

}  // namespace

void LogprobFormat::AddPrompt(std::span<const int32_t> ids, std::string_view text,
                              std::span<const TokenLogprob> logprobs) {
  size_t total = 0;
  for (const int32_t id : ids) total += Characters(PieceOf(tokenizer_, id, false));
  // The space that a vocabulary puts before a text is not a part of it.
  const size_t length = Characters(text);
  const size_t before = total - std::min(total, length);
  size_t at = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool known = i > 0 && i - 1 < logprobs.size();
    tokens_.push_back(
        {ids[i], known ? std::optional(logprobs[i - 1]) : std::nullopt, at - std::min(at, before)});
    at += Characters(PieceOf(tokenizer_, ids[i], false));
  }
  offset_ = length;
}

void LogprobFormat::Add(std::span<const TokenLogprob> logprobs) {
  for (const TokenLogprob& token : logprobs) {
    tokens_.push_back({token.id, token, offset_});
    offset_ += Characters(PieceOf(tokenizer_, token.id, false));
  }
}

ordered_json LogprobFormat::Take() {
  ordered_json form = route_ == ApiRoute::kChat ? ChatForm() : CompletionsForm();
  tokens_.clear();
  return form;
}

ordered_json LogprobFormat::ChatForm() const {
  ordered_json content = ordered_json::array();
  for (const Token& token : tokens_) {
    ordered_json shown =
        ChatToken(tokenizer_, token.id, token.logprob ? token.logprob->logprob : 0);
    ordered_json top = ordered_json::array();
    if (token.logprob) {
      for (const auto& [id, logprob] : token.logprob->top) {
        if (top.size() < n_top_) top.push_back(ChatToken(tokenizer_, id, logprob));
      }
    }
    shown["top_logprobs"] = std::move(top);
    content.push_back(std::move(shown));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

ordered_json LogprobFormat::CompletionsForm() const {
  ordered_json tokens = ordered_json::array(), logprobs = tokens, tops = tokens, offsets = tokens;
  for (const Token& token : tokens_) {
    const std::string text = Shown(PieceOf(tokenizer_, token.id, true));
    tokens.push_back(text);
    offsets.push_back(token.offset);
    if (!token.logprob) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(Finite(token.logprob->logprob));
    // The token itself is always among them, in addition if it is none of the best. Tokens whose
    // texts look the same share a place; the best of them has it.
    ordered_json top = ordered_json::object();
    size_t n = 0;
    for (const auto& [id, logprob] : token.logprob->top) {
      if (n++ == n_top_) break;
      const std::string name = Shown(PieceOf(tokenizer_, id, true));
      if (!top.contains(name)) top[name] = Finite(logprob);
    }
    if (!top.contains(text)) top[text] = Finite(token.logprob->logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

std::string_view FinishReason(const Generation& generation) {
  return generation.stop_reason == StopReason::kLength ? "length" : "stop";
}

ordered_json UsageJson(const ApiRequest& request, std::span<const Generation> choices) {
  uint64_t prompt = 0, completion = 0, cached = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    completion += choices[i].tokens.size();
    // A prompt counts once, whatever number of choices go on from it.
    if (i % request.n != 0) continue;
    const auto of_prompt = choices.subspan(i, std::min<size_t>(request.n, choices.size() - i));
    prompt += choices[i].prompt_tokens;
    cached += std::min_element(of_prompt.begin(), of_prompt.end(),
                               [](const Generation& a, const Generation& b) {
                                 return a.cached_tokens < b.cached_tokens;
                               })
                  ->cached_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}},
          {"completion_tokens_details",
           {{"reasoning_tokens", 0},
            {"accepted_prediction_tokens", 0},
            {"rejected_prediction_tokens", 0}}}};
}

ordered_json TimingsJson(const Timings& t) {
  const auto per_second = [](uint32_t n, double ms) { return ms > 0 ? n * 1000.0 / ms : 0.0; };
  return {{"prompt_n", t.prompt_n},
          {"prompt_ms", t.prompt_ms},
          {"prompt_per_second", per_second(t.prompt_n, t.prompt_ms)},
          {"predicted_n", t.predicted_n},
          {"predicted_ms", t.predicted_ms},
          {"predicted_per_second", per_second(t.predicted_n, t.predicted_ms)}};
}

ordered_json ApiTimingsJson(std::span<const Generation> choices) {
  Timings all;
  uint64_t cached = 0;
  for (const Generation& choice : choices) {
    const Timings& t = choice.timings;
    cached += choice.cached_tokens;
    all.prompt_n += t.prompt_n;
    all.predicted_n += t.predicted_n;
    all.queue_ms = std::max(all.queue_ms, t.queue_ms);
    all.prompt_ms = std::max(all.prompt_ms, t.prompt_ms);
    all.predicted_ms = std::max(all.predicted_ms, t.predicted_ms);
  }
  ordered_json timings = {{"cache_n", cached}, {"queue_ms", all.queue_ms}};
  timings.update(TimingsJson(all));
  return timings;
}

ordered_json KvReportJson(const ApiEcho& echo, std::span<const Generation> choices) {
  uint64_t kept = 0, dropped = 0, cached = 0, parked = 0;
  for (const Generation& choice : choices) {
    kept += choice.entries;
    dropped += choice.entries_dropped;
    cached += choice.cached_tokens;
    parked += choice.n_parked;
  }
  return {{"policy", echo.policy},
          {"codec", echo.codec},
          {"positions", (kept + dropped) / echo.lanes},
          {"entries_kept", kept},
          {"entries_dropped", dropped},
          {"cached", {{"tokens", cached}, {"tier", cached > 0 ? "memory" : "none"}}},
          {"recalled", 0},
          {"recomputed", 0},
          {"parked", parked},
          {"rungs", ordered_json::array()}};
}

ordered_json ApiResponse(const ApiRequest& request, const ApiEcho& echo,
                         std::span<const Prompt> prompts, std::span<const Generation> choices,
                         const Tokenizer& tokenizer) {
  const bool chat = request.route == ApiRoute::kChat;
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const Generation& generation = choices[i];
    LogprobFormat logprobs(request.route, tokenizer, request.logprobs.value_or(0));
    std::string shown;
    if (request.echo) {
      const size_t p = i / request.n;
      const ApiPrompt& prompt = request.prompts[p];
      shown = prompt.tokens.empty() ? prompt.text : tokenizer.Decode(prompt.tokens, false, true);
      if (request.logprobs) {
        logprobs.AddPrompt(prompts[p].tokens, shown, generation.prompt_logprobs);
      }
    }
    logprobs.Add(generation.logprobs);
    ordered_json choice = {{"index", i}};
    if (chat) {
      choice["message"] = {{"role", "assistant"}, {"content", generation.text}};
    } else {
      choice["text"] = shown + generation.text;
    }
    choice["logprobs"] = request.logprobs ? logprobs.Take() : ordered_json(nullptr);
    choice["finish_reason"] = FinishReason(generation);
    list.push_back(std::move(choice));
  }
  ordered_json response = {{"id", (chat ? "chatcmpl-" : "cmpl-") + echo.id},
                           {"object", chat ? "chat.completion" : "text_completion"},
                           {"created", echo.created_s},
                           {"model", echo.model},
                           {"choices", std::move(list)},
                           {"usage", UsageJson(request, choices)},
                           {"seed", choices.front().seed},
                           {"timings", ApiTimingsJson(choices)}};
  if (request.kv_report) response["kv"] = KvReportJson(echo, choices);
  return response;
}

}  // namespace kvasir
