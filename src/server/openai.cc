#include "server/openai.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "format/quote.h"

namespace kvasir {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256;

[[noreturn]] void Refuse(std::string_view field, const std::string& what) {
  throw RequestError(Code::kInvalid, fmt::format("{}: {}", field, what), std::string(field));
}

// What a value is, for messages.
std::string Describe(const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() <= 40 ? text : fmt::format("{} of {} bytes", value.type_name(), text.size());
}

double Real(std::string_view field, const json& value, double min, double max) {
  if (!value.is_number()) Refuse(field, fmt::format("{} is no number", Describe(value)));
  const double real = value.get<double>();
  if (!(real >= min && real <= max)) {
    Refuse(field, fmt::format("{} lies outside {} to {}", Describe(value), min, max));
  }
  return real;
}

uint64_t Count(std::string_view field, const json& value, uint64_t max) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > max) {
    Refuse(field, fmt::format("{} is no whole number from 0 to {}", Describe(value), max));
  }
  return value.get<uint64_t>();
}

bool Switch(std::string_view field, const json& value) {
  if (!value.is_boolean())
    Refuse(field, fmt::format("{} is neither true nor false", Describe(value)));
  return value.get<bool>();
}

std::string Text(std::string_view field, const json& value) {
  if (!value.is_string()) Refuse(field, fmt::format("{} is no text", Describe(value)));
  return value.get<std::string>();
}

// A content is a text or a list of text parts; anything else in it would be lost.
std::string ContentText(const std::string& field, const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) {
    Refuse(field, fmt::format("{} is neither a text nor a list of text parts", Describe(value)));
  }
  std::string text;
  for (const json& part : value) {
    if (!part.is_object() || !part.contains("type") || !part.contains("text") ||
        part["type"] != "text" || !part["text"].is_string()) {
      Refuse(field, "only parts of the form {\"type\":\"text\",\"text\":...} can be read");
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

std::vector<int32_t> TokenIds(std::string_view field, const json& value) {
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const json& id : value) ids.push_back(static_cast<int32_t>(Count(field, id, INT32_MAX)));
  return ids;
}

void ReadPrompt(const json& value, ApiRequest* request) {
  const json* one = &value;
  if (value.is_array()) {
    if (value.empty()) Refuse("prompt", "an empty list: give a text or token ids");
    if (value[0].is_string() || value[0].is_array()) {
      if (value.size() != 1) {
        Refuse("prompt", fmt::format("a list of {}: one prompt a request", value.size()));
      }
      one = &value[0];
    }
  }
  if (one->is_string()) {
    request->prompt = one->get<std::string>();
  } else if (one->is_array() && !one->empty()) {
    request->prompt_tokens = TokenIds("prompt", *one);
  } else {
    Refuse("prompt", fmt::format("{} is neither a text nor a list of token ids", Describe(*one)));
  }
}

void ReadStop(const json& value, ApiRequest* request) {
  request->stop.clear();
  const auto add = [&](const json& stop) {
    std::string text = Text("stop", stop);
    if (text.empty() || text.size() > kMaxStopBytes) {
      Refuse("stop",
             fmt::format("a text of {} bytes: 1 to {} are allowed", text.size(), kMaxStopBytes));
    }
    request->stop.push_back(std::move(text));
  };
  if (!value.is_array()) return add(value);
  if (value.size() > kMaxStops) {
    Refuse("stop", fmt::format("{} texts: at most {} are allowed", value.size(), kMaxStops));
  }
  for (const json& stop : value) add(stop);
}

constexpr uint8_t kChat = 1, kCompletions = 2, kBoth = 3;

// One known field. `read` takes the value; where it is null the field is refused unless its value
// is one of `neutral` (JSON texts, separated by spaces), or is without influence if that is "*".
struct Field {
  std::string_view name;
  uint8_t routes;
  void (*read)(const json& value, ApiRequest* request);
  std::string_view neutral = {};
};

void ReadMaxTokens(std::string_view field, const json& value, ApiRequest* request) {
  request->max_tokens = static_cast<uint32_t>(Count(field, value, UINT32_MAX));
}
void ReadRepeatPenalty(std::string_view field, const json& value, ApiRequest* request) {
  request->sampling.repeat_penalty = static_cast<float>(Real(field, value, 0.1, 2));
}

// `null` means "not given" for every field.
constexpr Field kFields[] = {
    {"messages", kChat, [](const json& v, ApiRequest* r) { r->messages = ParseMessages(v); }},
    {"prompt", kCompletions, [](const json& v, ApiRequest* r) { ReadPrompt(v, r); }},
    {"model", kBoth, [](const json& v, ApiRequest* r) { r->model = Text("model", v); }},
    {"max_tokens", kBoth, [](const json& v, ApiRequest* r) { ReadMaxTokens("max_tokens", v, r); }},
    // Read after max_tokens, so it is the one that counts.
    {"max_completion_tokens", kChat,
     [](const json& v, ApiRequest* r) { ReadMaxTokens("max_completion_tokens", v, r); }},
    {"temperature", kBoth,
     [](const json& v, ApiRequest* r) {
       r->sampling.temperature = static_cast<float>(Real("temperature", v, 0, 2));
     }},
    {"top_p", kBoth,
     [](const json& v, ApiRequest* r) {
       r->sampling.top_p = static_cast<float>(Real("top_p", v, 0, 1));
     }},
    {"top_k", kBoth,
     [](const json& v, ApiRequest* r) {
       // vLLM writes -1 for "all".
       r->sampling.top_k = v == -1 ? 0 : static_cast<uint32_t>(Count("top_k", v, INT32_MAX));
     }},
    {"min_p", kBoth,
     [](const json& v, ApiRequest* r) {
       r->sampling.min_p = static_cast<float>(Real("min_p", v, 0, 1));
     }},
    {"seed", kBoth,
     [](const json& v, ApiRequest* r) { r->sampling.seed = Count("seed", v, UINT64_MAX); }},
    {"presence_penalty", kBoth,
     [](const json& v, ApiRequest* r) {
       r->sampling.presence_penalty = static_cast<float>(Real("presence_penalty", v, -2, 2));
     }},
    {"frequency_penalty", kBoth,
     [](const json& v, ApiRequest* r) {
       r->sampling.frequency_penalty = static_cast<float>(Real("frequency_penalty", v, -2, 2));
     }},
    {"repetition_penalty", kBoth,
     [](const json& v, ApiRequest* r) { ReadRepeatPenalty("repetition_penalty", v, r); }},
    {"repeat_penalty", kBoth,
     [](const json& v, ApiRequest* r) { ReadRepeatPenalty("repeat_penalty", v, r); }},
    {"stop", kBoth, [](const json& v, ApiRequest* r) { ReadStop(v, r); }},
    {"ignore_eos", kBoth,
     [](const json& v, ApiRequest* r) { r->ignore_eos = Switch("ignore_eos", v); }},
    {"stream", kBoth, [](const json& v, ApiRequest* r) { r->stream = Switch("stream", v); }},
    {"n", kBoth, nullptr, "1"},
    {"best_of", kBoth, nullptr, "1"},
    {"echo", kCompletions, nullptr, "false"},
    {"suffix", kCompletions, nullptr, "\"\""},
    {"logprobs", kBoth, nullptr, "false"},
    {"top_logprobs", kChat, nullptr, "0"},
    {"prompt_logprobs", kBoth, nullptr, ""},
    {"logit_bias", kBoth, nullptr, "{} []"},
    {"stop_token_ids", kBoth, nullptr, "[]"},
    {"min_tokens", kBoth, nullptr, "0"},
    {"tools", kChat, nullptr, "[]"},
    {"tool_choice", kChat, nullptr, "\"none\" \"auto\""},
    {"functions", kChat, nullptr, "[]"},
    {"function_call", kChat, nullptr, "\"none\" \"auto\""},
    {"response_format", kBoth, nullptr, "{\"type\":\"text\"}"},
    {"json_schema", kBoth, nullptr, "{}"},
    {"grammar", kBoth, nullptr, "\"\""},
    {"guided_json", kBoth, nullptr, ""},
    {"guided_regex", kBoth, nullptr, ""},
    {"guided_choice", kBoth, nullptr, ""},
    {"guided_grammar", kBoth, nullptr, ""},
    {"structured_outputs", kBoth, nullptr, ""},
    {"modalities", kChat, nullptr, "[\"text\"]"},
    {"audio", kChat, nullptr, ""},
    {"prediction", kChat, nullptr, ""},
    {"reasoning_effort", kChat, nullptr, ""},
    {"chat_template", kChat, nullptr, ""},
    {"chat_template_kwargs", kChat, nullptr, "{}"},
    {"add_generation_prompt", kChat, nullptr, "true"},
    {"continue_final_message", kChat, nullptr, "false"},
    {"lora", kBoth, nullptr, "[]"},
    {"alora", kBoth, nullptr, "{}"},
    {"kv", kBoth, nullptr, "{}"},
    {"typical_p", kBoth, nullptr, "1 1.0"},
    {"mirostat", kBoth, nullptr, "0"},
    {"use_beam_search", kBoth, nullptr, "false"},
    // Nothing of an answer depends on these.
    {"user", kBoth, nullptr, "*"},
    {"cache_salt", kBoth, nullptr, "*"},
    {"store", kBoth, nullptr, "*"},
    {"metadata", kBoth, nullptr, "*"},
    {"service_tier", kBoth, nullptr, "*"},
    {"stream_options", kBoth, nullptr, "*"},
    {"parallel_tool_calls", kChat, nullptr, "*"},
};

bool IsNeutral(const Field& field, const json& value) {
  if (field.neutral == "*") return true;
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string_view rest = field.neutral;
  while (!rest.empty()) {
    const size_t space = rest.find(' ');
    if (rest.substr(0, space) == text) return true;
    rest = space == std::string_view::npos ? std::string_view() : rest.substr(space + 1);
  }
  return false;
}

// A field of a message that would be lost would change the answer.
void CheckMessageField(const std::string& where, const std::string& key, const json& value) {
  if (key == "role" || key == "content" || key == "name" || value.is_null()) return;
  if (value.empty()) return;  // "tool_calls": []
  Refuse(where + "." + key, "cannot be honoured here; leave it out");
}

std::string_view ErrorType(Code code) {
  switch (code) {
    case Code::kNotFound:
      return "not_found_error";
    case Code::kUnsupported:
      return "unsupported_error";
    case Code::kIo:
      return "internal_error";
    default:
      return "invalid_request_error";
  }
}

}  // namespace

std::vector<ChatMessage> ParseMessages(const json& messages) {
  if (!messages.is_array() || messages.empty() || messages.size() > kMaxMessages) {
    Refuse("messages", fmt::format("not a list of 1 to {} messages", kMaxMessages));
  }
  std::vector<ChatMessage> read;
  read.reserve(messages.size());
  for (const json& message : messages) {
    const std::string where = fmt::format("messages[{}]", read.size());
    if (!message.is_object() || !message.contains("role") || !message.contains("content")) {
      Refuse(where, "not an object with \"role\" and \"content\"");
    }
    for (const auto& [key, value] : message.items()) CheckMessageField(where, key, value);
    read.push_back({Text(where + ".role", message["role"]),
                    ContentText(where + ".content", message["content"])});
  }
  return read;
}

ApiRequest ParseApiRequest(ApiRoute route, const json& body, const ApiDefaults& defaults) {
  if (!body.is_object()) Refuse("body", "not a JSON object");
  ApiRequest request;
  request.route = route;
  request.sampling = defaults.sampling;
  request.max_tokens = defaults.max_tokens;
  request.stop = defaults.stop;
  request.ignore_eos = defaults.ignore_eos;
  const uint8_t bit = route == ApiRoute::kChat ? kChat : kCompletions;
  size_t n_known = 0;
  for (const Field& field : kFields) {
    if ((field.routes & bit) == 0) continue;
    const auto found = body.find(field.name);
    if (found == body.end()) continue;
    ++n_known;
    if (found->is_null()) continue;
    if (field.read) {
      field.read(*found, &request);
    } else if (!IsNeutral(field, *found)) {
      Refuse(field.name, fmt::format("{} cannot be honoured here; leave it out", Describe(*found)));
    }
  }
  if (n_known < body.size()) {
    for (const auto& [key, value] : body.items()) {
      bool known = false;
      for (const Field& field : kFields) known |= (field.routes & bit) != 0 && field.name == key;
      if (!known) request.ignored.push_back(key);
    }
  }
  const bool has_input = body.contains(route == ApiRoute::kChat ? "messages" : "prompt") &&
                         !body[route == ApiRoute::kChat ? "messages" : "prompt"].is_null();
  if (!has_input) Refuse(route == ApiRoute::kChat ? "messages" : "prompt", "missing");
  return request;
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

ordered_json ApiResponse(ApiRoute route, const ApiEcho& echo, const Generation& generation) {
  const bool chat = route == ApiRoute::kChat;
  ordered_json choice = {{"index", 0}};
  if (chat) {
    choice["message"] = {{"role", "assistant"}, {"content", generation.text}};
  } else {
    choice["text"] = generation.text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = generation.stop_reason == StopReason::kLength ? "length" : "stop";
  const uint64_t completion = generation.tokens.size();
  return {{"id", (chat ? "chatcmpl-" : "cmpl-") + echo.id},
          {"object", chat ? "chat.completion" : "text_completion"},
          {"created", echo.created_s},
          {"model", echo.model},
          {"choices", ordered_json::array({choice})},
          {"usage",
           {{"prompt_tokens", generation.prompt_tokens},
            {"completion_tokens", completion},
            {"total_tokens", generation.prompt_tokens + completion},
            {"prompt_tokens_details", {{"cached_tokens", 0}}}}},
          {"seed", generation.seed},
          {"timings", TimingsJson(generation.timings)}};
}

ordered_json ApiErrorBody(const Error& error) {
  ordered_json body = {{"message", error.what()},
                       {"type", ErrorType(error.code())},
                       {"param", nullptr},
                       {"code", Name(error.code())}};
  if (const auto* request = dynamic_cast<const RequestError*>(&error)) {
    if (!request->param().empty()) body["param"] = request->param();
    if (!request->word().empty()) body["code"] = request->word();
  }
  return {{"error", std::move(body)}};
}

std::string DumpJson(const ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace kvasir
