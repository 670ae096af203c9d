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
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "server/prompt.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

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

inline constexpr uint32_t kMaxChoices = 64;  // prompts x n

struct ApiPrompt {
  std::string text;
  std::vector<int32_t> tokens;  // or ids, if not empty
};

struct ApiRequest {
  ApiRoute route = ApiRoute::kChat;
  std::string model;
  std::vector<ChatMessage> messages;  // chat
  TemplateVariables variables;        // likewise
  std::vector<ApiPrompt> prompts;     // completions
  uint32_t n = 1;                     // choices for each prompt
  std::optional<uint32_t> max_tokens;
  SamplingParams sampling;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_tokens;
  bool ignore_eos = false;
  std::optional<uint32_t> logprobs;  // wanted, with so many others
  bool echo = false;                 // completions: the prompt's text comes first
  bool stream = false;
  bool include_usage = false;  // of a stream
  bool kv_report = false;
  std::string salt;
  std::vector<std::string> ignored;  // unknown fields

  size_t n_prompts() const { return route == ApiRoute::kChat ? 1 : prompts.size(); }
  size_t n_choices() const { return n_prompts() * n; }
};

// What a request takes for fields it does not give, and what its token ids must lie below.
struct ApiDefaults {
  SamplingParams sampling;
  std::optional<uint32_t> max_tokens;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  uint32_t vocabulary = INT32_MAX;
};

ApiRequest ParseApiRequest(ApiRoute route, const nlohmann::json& body, const ApiDefaults& defaults);

// A list of messages as chat requests have it; contents may be texts or lists of text parts.
std::vector<ChatMessage> ParseMessages(const nlohmann::json& messages);

// What the response says about its request and the server.
struct ApiEcho {
  std::string id;     // without the route's prefix
  std::string model;  // name shown to clients
  uint64_t created_s = 0;
  std::string policy, codec;  // for the kv object, whole specs
  uint64_t lanes = 1;         // of a sequence
};
// `prompts`: one for each of the request's, needed where it asks for an echo. `choices`: prompt
// after prompt, n for each.
nlohmann::ordered_json ApiResponse(const ApiRequest& request, const ApiEcho& echo,
                                   std::span<const Prompt> prompts,
                                   std::span<const Generation> choices, const Tokenizer& tokenizer);

// Pieces of a response, which a stream sends apart.
std::string_view FinishReason(const Generation& generation);  // "stop", "length"
nlohmann::ordered_json UsageJson(const ApiRequest& request, std::span<const Generation> choices);
nlohmann::ordered_json TimingsJson(const Timings& timings);
nlohmann::ordered_json ApiTimingsJson(std::span<const Generation> choices);  // of all together
nlohmann::ordered_json KvReportJson(const ApiEcho& echo, std::span<const Generation> choices);

// Log probabilities in the form of a route, a choice's tokens in order. Offsets into its text count
// characters, as clients index it; control tokens have no width.
class LogprobFormat {
 public:
  // `n_top`: others to show.
  LogprobFormat(ApiRoute route, const Tokenizer& tokenizer, uint32_t n_top)
      : route_(route), tokenizer_(tokenizer), n_top_(n_top) {}

  // A prompt that is shown before the answer: `text` is what its ids stand for; the first token has
  // no probability.
  void AddPrompt(std::span<const int32_t> ids, std::string_view text,
                 std::span<const TokenLogprob> logprobs);
  void Add(std::span<const TokenLogprob> logprobs);
  bool empty() const { return tokens_.empty(); }
  // The object for what was added since the last call.
  nlohmann::ordered_json Take();

 private:
  struct Token {
    int32_t id;
    std::optional<TokenLogprob> logprob;
    size_t offset;
  };
  nlohmann::ordered_json ChatForm() const;
  nlohmann::ordered_json CompletionsForm() const;

  ApiRoute route_;
  const Tokenizer& tokenizer_;
  uint32_t n_top_;
  size_t offset_ = 0;
  std::vector<Token> tokens_;
};

// {"error":{"message","type","param","code"}}
nlohmann::ordered_json ApiErrorBody(const Error& error);

// Text for JSON: bytes that are no UTF-8 become U+FFFD.
std::string DumpJson(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace kvasir
