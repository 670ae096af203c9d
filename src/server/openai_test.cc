#include "server/openai.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "format/json.h"

namespace kvasir {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

ApiRequest Parse(ApiRoute route, const std::string& body, const ApiDefaults& defaults = {}) {
  return ParseApiRequest(route, ParseJson(body, "body"), defaults);
}
ApiRequest Chat(const std::string& more) {
  return Parse(ApiRoute::kChat, R"({"messages":[{"role":"user","content":"hi"}])" + more + "}");
}
ApiRequest Completion(const std::string& more) {
  return Parse(ApiRoute::kCompletions, R"({"prompt":"hi")" + more + "}");
}

// The field that an error names, or "accepted".
template <typename F>
std::string RefusedField(F&& parse) {
  try {
    parse();
  } catch (const RequestError& error) {
    EXPECT_EQ(HttpStatus(error.code()), 400);
    EXPECT_THAT(error.what(), HasSubstr(error.param()));
    return error.param();
  }
  return "accepted";
}

TEST(ApiRequest, TakesTheFieldsOfAChat) {
  const ApiRequest r = Parse(ApiRoute::kChat,
                             R"({"model":"m","messages":[{"role":"system","content":"be brief"},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
          "max_tokens":3,"max_completion_tokens":7,"temperature":0,"top_p":0.5,"top_k":9,"min_p":0.1,
          "seed":18446744073709551615,"presence_penalty":-1,"frequency_penalty":2,
          "repetition_penalty":1.5,"stop":["x","y"],"ignore_eos":true,"n":1,"user":"me","later":1})");
  ASSERT_EQ(r.messages.size(), 2u);
  EXPECT_EQ(r.messages[0].role, "system");
  EXPECT_EQ(r.messages[1].content, "ab");
  EXPECT_EQ(r.max_tokens, 7u);
  EXPECT_EQ(r.sampling.temperature, 0);
  EXPECT_EQ(r.sampling.top_p, 0.5f);
  EXPECT_EQ(r.sampling.top_k, 9u);
  EXPECT_EQ(r.sampling.min_p, 0.1f);
  EXPECT_EQ(r.sampling.seed, UINT64_MAX);
  EXPECT_EQ(r.sampling.presence_penalty, -1);
  EXPECT_EQ(r.sampling.frequency_penalty, 2);
  EXPECT_EQ(r.sampling.repeat_penalty, 1.5f);
  EXPECT_THAT(r.stop, ElementsAre("x", "y"));
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_FALSE(r.stream);
  EXPECT_THAT(r.ignored, ElementsAre("later"));
}

TEST(ApiRequest, TakesPromptsAsTextIdsOrAListOfOne) {
  EXPECT_EQ(Completion("").prompt, "hi");
  EXPECT_EQ(Parse(ApiRoute::kCompletions, R"({"prompt":["hi"]})").prompt, "hi");
  EXPECT_THAT(Parse(ApiRoute::kCompletions, R"({"prompt":[1,2]})").prompt_tokens,
              ElementsAre(1, 2));
  EXPECT_THAT(Parse(ApiRoute::kCompletions, R"({"prompt":[[1,2]]})").prompt_tokens,
              ElementsAre(1, 2));
  for (const char* prompt : {"5", "null", "[]", "[[]]", R"(["a","b"])", "[[1],[2]]", "[1,-2]",
                             "[1.5]", "[4294967296]", R"([1,"a"])", "{}"}) {
    const std::string body = fmt::format(R"({{"prompt":{}}})", prompt);
    EXPECT_EQ(RefusedField([&] { Parse(ApiRoute::kCompletions, body); }), "prompt") << prompt;
  }
}

TEST(ApiRequest, TakesDefaultsForWhatIsMissing) {
  ApiDefaults defaults;
  defaults.sampling.temperature = 0.25f;
  defaults.max_tokens = 11;
  defaults.stop = {"end"};
  const ApiRequest r =
      Parse(ApiRoute::kCompletions, R"({"prompt":"x","temperature":null})", defaults);
  EXPECT_EQ(r.sampling.temperature, 0.25f);
  EXPECT_EQ(r.max_tokens, 11u);
  EXPECT_THAT(r.stop, ElementsAre("end"));
  EXPECT_EQ(SamplingParams().temperature, Completion("").sampling.temperature);
}

TEST(ApiRequest, RefusesWhatWouldChangeTheAnswerAndNamesIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"n", "2"},
      {"logprobs", "true"},
      {"logit_bias", R"({"5":1})"},
      {"tools", R"([{"type":"function"}])"},
      {"response_format", R"({"type":"json_object"})"},
      {"grammar", R"("root ::= x")"},
      {"reasoning_effort", R"("high")"},
      {"kv", R"({"policy":"keydiff"})"},
  };
  for (const auto& [field, value] : cases) {
    EXPECT_EQ(RefusedField([&] { Chat(fmt::format(",\"{}\":{}", field, value)); }), field);
  }
  for (const auto& [field, value] :
       {std::pair{"best_of", "2"}, {"echo", "true"}, {"suffix", "\"x\""}, {"logprobs", "3"}}) {
    EXPECT_EQ(RefusedField([&] { Completion(fmt::format(",\"{}\":{}", field, value)); }), field);
  }
}

TEST(ApiRequest, TakesTheSameFieldsWhereTheyChangeNothing) {
  Chat(R"(,"n":1,"logprobs":false,"top_logprobs":0,"logit_bias":{},"tools":[],"tool_choice":"auto",
        "response_format":{"type":"text"},"stop":null,"stream":false)");
  Completion(R"(,"best_of":1,"echo":false,"suffix":null,"logprobs":null)");
}

TEST(ApiRequest, KeepsToTheLimits) {
  for (const auto& [field, value] : {std::pair{"temperature", "2.1"},
                                     {"temperature", "\"1\""},
                                     {"temperature", "-0.1"},
                                     {"top_p", "1.01"},
                                     {"min_p", "-1"},
                                     {"top_k", "-2"},
                                     {"top_k", "1.5"},
                                     {"seed", "-1"},
                                     {"max_tokens", "-1"},
                                     {"max_tokens", "4294967296"},
                                     {"max_tokens", "1e3"},
                                     {"presence_penalty", "3"},
                                     {"repetition_penalty", "0"},
                                     {"stop", "5"},
                                     {"stop", "\"\""},
                                     {"stream", "1"}}) {
    EXPECT_EQ(RefusedField([&] { Completion(fmt::format(",\"{}\":{}", field, value)); }), field)
        << value;
  }
  std::string stops = "\"x\"";
  for (int i = 1; i < 16; ++i) stops += ",\"x\"";
  EXPECT_EQ(Completion(",\"stop\":[" + stops + "]").stop.size(), 16u);
  stops += ",\"x\"";
  EXPECT_EQ(RefusedField([&] { Completion(",\"stop\":[" + stops + "]"); }), "stop");
  EXPECT_EQ(RefusedField([&] { Completion(",\"stop\":\"" + std::string(257, 'x') + "\""); }),
            "stop");
  EXPECT_EQ(Completion(",\"max_tokens\":0").max_tokens, 0u);
}

TEST(ApiRequest, RefusesMessagesThatWouldLoseSomething) {
  const auto chat = [](const std::string& messages) {
    return RefusedField([&] { Parse(ApiRoute::kChat, R"({"messages":)" + messages + "}"); });
  };
  EXPECT_EQ(chat("[]"), "messages");
  EXPECT_EQ(chat("\"hi\""), "messages");
  EXPECT_EQ(chat(R"([{"role":"user"}])"), "messages[0]");
  EXPECT_EQ(chat(R"([{"role":5,"content":"x"}])"), "messages[0].role");
  EXPECT_EQ(chat(R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])"),
            "messages[0].content");
  EXPECT_EQ(chat(R"([{"role":"assistant","content":"x","tool_calls":[{"id":"1"}]}])"),
            "messages[0].tool_calls");
  EXPECT_EQ(RefusedField([] { Parse(ApiRoute::kChat, "{}"); }), "messages");
  EXPECT_EQ(RefusedField([] { Parse(ApiRoute::kChat, "[]"); }), "body");
}

TEST(ApiResponse, HasOpenAisShape) {
  Generation g;
  g.text = "hello";
  g.tokens = {1, 2, 3};
  g.prompt_tokens = 5;
  g.stop_reason = StopReason::kEos;
  const json chat = ApiResponse(ApiRoute::kChat, {"id1", "m", 99}, g);
  EXPECT_EQ(chat["object"], "chat.completion");
  EXPECT_EQ(chat["id"], "chatcmpl-id1");
  EXPECT_EQ(chat["created"], 99);
  EXPECT_EQ(chat["choices"].size(), 1u);
  EXPECT_EQ(chat["choices"][0]["message"]["content"], "hello");
  EXPECT_EQ(chat["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(chat["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(chat["usage"]["completion_tokens"], 3);
  EXPECT_EQ(chat["usage"]["total_tokens"], 8);
  EXPECT_EQ(chat["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  g.stop_reason = StopReason::kLength;
  const json text = ApiResponse(ApiRoute::kCompletions, {"id1", "m", 99}, g);
  EXPECT_EQ(text["object"], "text_completion");
  EXPECT_EQ(text["choices"][0]["text"], "hello");
  EXPECT_EQ(text["choices"][0]["finish_reason"], "length");
}

TEST(ApiErrors, CarryTypeFieldAndCode) {
  const json field = ApiErrorBody(RequestError(Code::kInvalid, "n: 2", "n"));
  EXPECT_EQ(field["error"]["type"], "invalid_request_error");
  EXPECT_EQ(field["error"]["param"], "n");
  const json budget = ApiErrorBody(Error(Code::kBudget, "needs 5, allowed 3"));
  EXPECT_EQ(budget["error"]["code"], "kv_budget_exceeded");
  EXPECT_TRUE(budget["error"]["param"].is_null());
  const json length =
      ApiErrorBody(RequestError(Code::kInvalid, "too long", "prompt", "context_length_exceeded"));
  EXPECT_EQ(length["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(json(ApiErrorBody(Error(Code::kNotFound, "x")))["error"]["type"], "not_found_error");
  EXPECT_EQ(json(ApiErrorBody(Error(Code::kIo, "x")))["error"]["type"], "internal_error");
}

TEST(DumpJson, ReplacesBytesThatAreNoText) {
  EXPECT_EQ(DumpJson({{"text", "a\xff"}}), "{\"text\":\"a\xEF\xBF\xBD\"}");
}

}  // namespace
}  // namespace kvasir
