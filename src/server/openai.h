// OpenAI's request and response bodies, as the engine understands them.
//
// One table says for every known field what it is good for here: taken, refused unless it has the
// value that changes nothing, or without influence. A known field that cannot be honoured and would
// change the answer is an error that names it; unknown fields are ignored and listed.
//
// Errors   RequestError{kInvalid}. Bodies come from outside: every type and limit is checked here.
// Threads  Functions of their arguments.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "text/chat_template.h"

namespace kvasir {

// An Error that knows which field it is about.
class RequestError : public Error {
 public:
  RequestError(Code code, const std::string& message, std::string param, std::string word = {})
      : Error(code, message), param_(std::move(param)), word_(std::move(word)) {}
  const std::string& param() const { return param_; }  // empty: no single field
  const std::string& word() const { return word_; }    // OpenAI's "code"; empty: Name(code())

 private:
  std::string param_, word_;
};

enum class ApiRoute : uint8_t { kChat, kCompletions };

struct ApiRequest {
  ApiRoute route = ApiRoute::kChat;
  std::string model;
  std::vector<ChatMessage> messages;   // chat
  std::string prompt;                  // completions: a text,
  std::vector<int32_t> prompt_tokens;  // or ids, if not empty
  std::optional<uint32_t> max_tokens;
  SamplingParams sampling;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool stream = false;
  std::vector<std::string> ignored;  // unknown fields
};

// What a request takes for fields it does not give.
struct ApiDefaults {
  SamplingParams sampling;
  std::optional<uint32_t> max_tokens;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

ApiRequest ParseApiRequest(ApiRoute route, const nlohmann::json& body, const ApiDefaults& defaults);

// A list of messages as chat requests have it; contents may be texts or lists of text parts.
std::vector<ChatMessage> ParseMessages(const nlohmann::json& messages);

// What the response says about its request.
struct ApiEcho {
  std::string id;     // without the route's prefix
  std::string model;  // name shown to clients
  uint64_t created_s = 0;
};
nlohmann::ordered_json ApiResponse(ApiRoute route, const ApiEcho& echo,
                                   const Generation& generation);
nlohmann::ordered_json TimingsJson(const Timings& timings);

// {"error":{"message","type","param","code"}}
nlohmann::ordered_json ApiErrorBody(const Error& error);

// Text for JSON: bytes that are no UTF-8 become U+FFFD.
std::string DumpJson(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace kvasir
