#include "server/openai.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "format/quote.h"

namespace kvasir {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxStops = 16, kMaxStopBytes = 256, kMaxStopTokens = 1024;
constexpr size_t kMaxBiases = 1024, kMaxSaltBytes = 256, kMaxVariables = 64;
constexpr uint64_t kMaxN = 8, kMaxTopLogprobs = 20;

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
  const auto add = [&](const json& one) {
    if (one.is_string()) {
      request->prompts.push_back({one.get<std::string>(), {}});
    } else if (one.is_array() && !one.empty()) {
      request->prompts.push_back({{}, TokenIds("prompt", one)});
    } else {
      Refuse("prompt", fmt::format("{} is neither a text nor a list of token ids", Describe(one)));
    }
  };
  const bool many = value.is_array() && !value.empty() && !value[0].is_number();
  if (!many) return add(value);
  if (value.size() > kMaxChoices) {
    Refuse("prompt",
           fmt::format("a list of {}: at most {} are allowed", value.size(), kMaxChoices));
  }
  for (const json& one : value) add(one);
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

void ReadStopTokens(const json& value, ApiRequest* request) {
  if (!value.is_array() || value.size() > kMaxStopTokens) {
    Refuse("stop_token_ids", fmt::format("not a list of at most {} token ids", kMaxStopTokens));
  }
  request->stop_tokens = TokenIds("stop_token_ids", value);
}

void ReadLogitBias(const json& value, ApiRequest* request) {
  if (value.is_array() && value.empty()) return;
  if (!value.is_object() || value.size() > kMaxBiases) {
    Refuse("logit_bias", fmt::format("not an object of at most {} token ids", kMaxBiases));
  }
  for (const auto& [key, bias] : value.items()) {
    int32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      Refuse("logit_bias", fmt::format("{} is no token id", Quoted(key)));
    }
    request->sampling.logit_bias.emplace_back(
        id, static_cast<float>(Real("logit_bias", bias, -100, 100)));
  }
}

void ReadLogprobs(const json& value, ApiRequest* request) {
  if (request->route == ApiRoute::kChat) {
    if (Switch("logprobs", value)) request->logprobs = 0;
  } else if (value != false) {
    request->logprobs = static_cast<uint32_t>(Count("logprobs", value, kMaxTopLogprobs));
  }
}

// Read after logprobs, which it refines.
void ReadTopLogprobs(const json& value, ApiRequest* request) {
  const uint64_t n = Count("top_logprobs", value, kMaxTopLogprobs);
  if (n > 0 && !request->logprobs) Refuse("top_logprobs", "needs \"logprobs\": true");
  if (n > 0) request->logprobs = static_cast<uint32_t>(n);
}

void ReadVariables(const json& value, ApiRequest* request) {
  if (!value.is_object() || value.size() > kMaxVariables) {
    Refuse("chat_template_kwargs",
           fmt::format("not an object of at most {} scalars", kMaxVariables));
  }
  for (const auto& [name, scalar] : value.items()) {
    TemplateScalar read;
    if (scalar.is_boolean()) {
      read = scalar.get<bool>();
    } else if (scalar.is_number_integer() &&
               (!scalar.is_number_unsigned() || scalar.get<uint64_t>() <= uint64_t{INT64_MAX})) {
      read = scalar.get<int64_t>();
    } else if (scalar.is_number()) {
      read = scalar.get<double>();
    } else {
      read = Text("chat_template_kwargs", scalar);
    }
    request->variables.emplace_back(name, std::move(read));
  }
}

// Fields inside an object: those with a reader are taken, the rest is treated as `unknown` says.
enum class Unknown : uint8_t { kIgnore, kRefuse };
struct InnerField {
  std::string_view name;
  void (*read)(std::string_view field, const json& value, ApiRequest* request);
};
void ReadObject(std::string_view field, const json& value, std::span<const InnerField> known,
                Unknown unknown, ApiRequest* request) {
  if (!value.is_object()) Refuse(field, fmt::format("{} is no object", Describe(value)));
  for (const auto& [key, inner] : value.items()) {
    const std::string name = fmt::format("{}.{}", field, key);
    const auto found = std::find_if(known.begin(), known.end(),
                                    [&](const InnerField& f) { return f.name == key; });
    if (inner.is_null()) continue;
    if (found != known.end()) {
      found->read(name, inner, request);
    } else if (unknown == Unknown::kRefuse) {
      Refuse(name, fmt::format("{} cannot be honoured here; leave it out", Describe(inner)));
    } else {
      request->ignored.push_back(name);
    }
  }
}

void ReadStreamOptions(const json& value, ApiRequest* request) {
  constexpr InnerField kKnown[] = {
      {"include_usage", [](std::string_view field, const json& v, ApiRequest* r) {
         r->include_usage = Switch(field, v);
       }}};
  ReadObject("stream_options", value, kKnown, Unknown::kIgnore, request);
}

void ReadKv(const json& value, ApiRequest* request) {
  constexpr InnerField kKnown[] = {
      {"report", [](std::string_view field, const json& v, ApiRequest* r) {
         r->kv_report = Switch(field, v);
       }}};
  ReadObject("kv", value, kKnown, Unknown::kRefuse, request);
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
    {"n", kBoth,
     [](const json& v, ApiRequest* r) {
       r->n = static_cast<uint32_t>(Count("n", v, kMaxN));
       if (r->n == 0) Refuse("n", "0: at least one choice is made");
     }},
    {"best_of", kBoth, nullptr, "1"},
    {"echo", kCompletions, [](const json& v, ApiRequest* r) { r->echo = Switch("echo", v); }},
    {"suffix", kCompletions, nullptr, "\"\""},
    {"logprobs", kBoth, ReadLogprobs},
    {"top_logprobs", kChat, ReadTopLogprobs},
    {"prompt_logprobs", kBoth, nullptr, ""},
    {"logit_bias", kBoth, ReadLogitBias},
    {"stop_token_ids", kBoth, ReadStopTokens},
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
    {"reasoning_effort", kChat,
     [](const json& v, ApiRequest* r) {
       r->variables.emplace_back("reasoning_effort", Text("reasoning_effort", v));
     }},
    {"chat_template", kChat, nullptr, ""},
    {"chat_template_kwargs", kChat, ReadVariables},
    {"add_generation_prompt", kChat, nullptr, "true"},
    {"continue_final_message", kChat, nullptr, "false"},
    {"lora", kBoth, nullptr, "[]"},
    {"alora", kBoth, nullptr, "{}"},
    {"kv", kBoth, ReadKv},
    {"cache_salt", kBoth,
     [](const json& v, ApiRequest* r) {
       r->salt = Text("cache_salt", v);
       if (r->salt.size() > kMaxSaltBytes) {
         Refuse("cache_salt",
                fmt::format("{} bytes: at most {} are allowed", r->salt.size(), kMaxSaltBytes));
       }
     }},
    {"stream_options", kBoth, ReadStreamOptions},
    {"typical_p", kBoth, nullptr, "1 1.0"},
    {"mirostat", kBoth, nullptr, "0"},
    {"use_beam_search", kBoth, nullptr, "false"},
    // Nothing of an answer depends on these.
    {"user", kBoth, nullptr, "*"},
    {"store", kBoth, nullptr, "*"},
    {"metadata", kBoth, nullptr, "*"},
    {"service_tier", kBoth, nullptr, "*"},
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
    case Code::kBusy:
      return "rate_limit_error";
    case Code::kUnavailable:
      return "unavailable_error";
    default:
      return "invalid_request_error";
  }
}

void CheckIds(std::string_view field, std::span<const int32_t> ids, uint32_t vocabulary) {
  for (const int32_t id : ids) {
    if (static_cast<uint32_t>(id) >= vocabulary) {
      Refuse(field, fmt::format("token id {} is outside the vocabulary of {}", id, vocabulary));
    }
  }
}

// What no field shows alone.
void CheckWhole(const ApiRequest& request, uint32_t vocabulary) {
  if (request.n_choices() > kMaxChoices) {
    Refuse("n", fmt::format("{} prompts with {} choices each: at most {} choices in all",
                            request.n_prompts(), request.n, kMaxChoices));
  }
  if (request.echo && request.stream) Refuse("echo", "a stream has none; leave one of them out");
  for (const ApiPrompt& prompt : request.prompts) CheckIds("prompt", prompt.tokens, vocabulary);
  CheckIds("stop_token_ids", request.stop_tokens, vocabulary);
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    CheckIds("logit_bias", {&id, 1}, vocabulary);
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
  CheckWhole(request, defaults.vocabulary);
  return request;
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
