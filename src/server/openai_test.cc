#include "server/openai.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/testing.h"
#include "format/json.h"

namespace kvasir {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

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

TEST(ApiRequest, TakesPromptsAsTextsIdsOrListsOfBoth) {
  const auto prompts = [](const std::string& value) {
    return Parse(ApiRoute::kCompletions, R"({"prompt":)" + value + "}").prompts;
  };
  EXPECT_EQ(prompts("\"hi\"").at(0).text, "hi");
  EXPECT_EQ(prompts("\"\"").size(), 1u);
  EXPECT_THAT(prompts("[1,2]").at(0).tokens, ElementsAre(1, 2));
  EXPECT_THAT(prompts("[[1,2]]").at(0).tokens, ElementsAre(1, 2));
  const auto mixed = prompts(R"(["a",[3],"b"])");
  ASSERT_EQ(mixed.size(), 3u);
  EXPECT_EQ(mixed[0].text, "a");
  EXPECT_THAT(mixed[1].tokens, ElementsAre(3));
  EXPECT_EQ(mixed[2].text, "b");
  for (const char* prompt : {"5", "null", "[]", "[[]]", "[1,-2]", "[1.5]", "[4294967296]",
                             R"([1,"a"])", R"(["a",1])", "{}", "[[1],{}]"}) {
    const std::string body = fmt::format(R"({{"prompt":{}}})", prompt);
    EXPECT_EQ(RefusedField([&] { Parse(ApiRoute::kCompletions, body); }), "prompt") << prompt;
  }
}

TEST(ApiRequest, BoundsTheChoices) {
  const auto body = [](int prompts, int n) {
    std::string list = "\"a\"";
    for (int i = 1; i < prompts; ++i) list += ",\"a\"";
    return fmt::format(R"({{"prompt":[{}],"n":{}}})", list, n);
  };
  EXPECT_EQ(Parse(ApiRoute::kCompletions, body(8, 8)).n_choices(), 64u);
  EXPECT_EQ(Parse(ApiRoute::kCompletions, body(64, 1)).n_choices(), 64u);
  EXPECT_EQ(RefusedField([&] { Parse(ApiRoute::kCompletions, body(9, 8)); }), "n");
  EXPECT_EQ(RefusedField([&] { Parse(ApiRoute::kCompletions, body(65, 1)); }), "prompt");
  EXPECT_EQ(Chat(R"(,"n":8)").n_choices(), 8u);
  for (const char* n : {"0", "9", "-1", "1.5", "true"}) {
    EXPECT_EQ(RefusedField([&] { Chat(fmt::format(",\"n\":{}", n)); }), "n") << n;
  }
}

std::string Shown(const TemplateScalar& scalar) {
  if (const auto* flag = std::get_if<bool>(&scalar)) return fmt::format("bool {}", *flag);
  if (const auto* number = std::get_if<int64_t>(&scalar)) return fmt::format("int {}", *number);
  if (const auto* real = std::get_if<double>(&scalar)) return fmt::format("real {}", *real);
  if (const auto* text = std::get_if<std::string>(&scalar)) return "text " + *text;
  return "other";
}

TEST(ApiRequest, TakesWhatAServerHonours) {
  const ApiRequest chat = Chat(
      R"(,"logprobs":true,"top_logprobs":5,"stop_token_ids":[7,8],"logit_bias":{"3":-100,"4":1.5},
         "stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},
         "cache_salt":"s","kv":{"report":true},"reasoning_effort":"low",
         "chat_template_kwargs":{"enable_thinking":false,"depth":3,"scale":0.5,"style":"x"})");
  EXPECT_EQ(chat.logprobs, 5u);
  EXPECT_THAT(chat.stop_tokens, ElementsAre(7, 8));
  EXPECT_THAT(chat.sampling.logit_bias,
              ::testing::UnorderedElementsAre(::testing::Pair(3, -100), ::testing::Pair(4, 1.5f)));
  EXPECT_TRUE(chat.stream);
  EXPECT_TRUE(chat.include_usage);
  EXPECT_THAT(chat.ignored, ElementsAre("stream_options.continuous_usage_stats"));
  EXPECT_EQ(chat.salt, "s");
  EXPECT_TRUE(chat.kv_report);
  std::map<std::string, std::string> variables;
  for (const auto& [name, scalar] : chat.variables) variables[name] = Shown(scalar);
  EXPECT_THAT(variables, ElementsAre(Pair("depth", "int 3"), Pair("enable_thinking", "bool false"),
                                     Pair("reasoning_effort", "text low"),
                                     Pair("scale", "real 0.5"), Pair("style", "text x")));
  EXPECT_EQ(Chat(R"(,"logprobs":true)").logprobs, 0u);
  EXPECT_EQ(Chat(R"(,"logprobs":false,"top_logprobs":0)").logprobs, std::nullopt);
  const ApiRequest completion = Completion(R"(,"logprobs":3,"echo":true,"max_tokens":0)");
  EXPECT_EQ(completion.logprobs, 3u);
  EXPECT_TRUE(completion.echo);
}

TEST(ApiRequest, RefusesIdsOutsideTheVocabulary) {
  ApiDefaults defaults;
  defaults.vocabulary = 10;
  for (const auto& [field, body] : {std::pair{"prompt", R"({"prompt":[9,10]})"},
                                    {"stop_token_ids", R"({"prompt":"x","stop_token_ids":[10]})"},
                                    {"logit_bias", R"({"prompt":"x","logit_bias":{"10":1}})"}}) {
    EXPECT_EQ(RefusedField([&] { Parse(ApiRoute::kCompletions, body, defaults); }), field);
  }
  Parse(ApiRoute::kCompletions, R"({"prompt":[9],"stop_token_ids":[9],"logit_bias":{"9":1}})",
        defaults);
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
      {"tools", R"([{"type":"function"}])"},
      {"response_format", R"({"type":"json_object"})"},
      {"grammar", R"("root ::= x")"},
  };
  for (const auto& [field, value] : cases) {
    EXPECT_EQ(RefusedField([&] { Chat(fmt::format(",\"{}\":{}", field, value)); }), field);
  }
  for (const auto& [field, value] :
       {std::pair{"best_of", "2"}, {"suffix", "\"x\""}, {"min_tokens", "3"}}) {
    EXPECT_EQ(RefusedField([&] { Completion(fmt::format(",\"{}\":{}", field, value)); }), field);
  }
}

TEST(ApiRequest, NamesTheFieldInsideAnObject) {
  EXPECT_EQ(RefusedField([] { Chat(R"(,"kv":{"policy":"keydiff"})"); }), "kv.policy");
  EXPECT_EQ(RefusedField([] { Chat(R"(,"kv":{"report":1})"); }), "kv.report");
  EXPECT_EQ(RefusedField([] { Chat(R"(,"kv":1)"); }), "kv");
  EXPECT_EQ(RefusedField([] { Chat(R"(,"stream_options":{"include_usage":"yes"})"); }),
            "stream_options.include_usage");
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
                                     {"logprobs", "true"},
                                     {"logprobs", "21"},
                                     {"echo", "1"},
                                     {"logit_bias", "{\"x\":1}"},
                                     {"logit_bias", "{\"-1\":1}"},
                                     {"logit_bias", "{\"1\":101}"},
                                     {"logit_bias", "[1]"},
                                     {"stop_token_ids", "5"},
                                     {"stop_token_ids", "[-1]"},
                                     {"cache_salt", "5"},
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
  EXPECT_EQ(RefusedField([&] { Completion(",\"cache_salt\":\"" + std::string(257, 'x') + "\""); }),
            "cache_salt");
  EXPECT_EQ(RefusedField([&] { Completion(R"(,"echo":true,"stream":true)"); }), "echo");
  EXPECT_EQ(RefusedField([&] { Chat(R"(,"top_logprobs":2)"); }), "top_logprobs");
  EXPECT_EQ(RefusedField([&] { Chat(R"(,"logprobs":true,"top_logprobs":21)"); }), "top_logprobs");
  EXPECT_EQ(RefusedField([&] { Chat(R"(,"chat_template_kwargs":{"a":[1]})"); }),
            "chat_template_kwargs");
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

Generation Letters(std::vector<int32_t> ids) {
  Generation g;
  const testing::LetterTokenizer tokenizer;
  for (const int32_t id : ids) g.logprobs.push_back({id, -0.5f, {{id, -0.5f}, {id + 1, -1.5f}}});
  for (const int32_t id : ids) g.text += tokenizer.Piece(id, false);
  g.tokens = std::move(ids);
  g.prompt_tokens = 5;
  g.stop_reason = StopReason::kEos;
  return g;
}

TEST(ApiResponse, HasOpenAisShape) {
  const testing::LetterTokenizer tokenizer;
  std::vector<Generation> g(1);
  g[0] = Letters({1, 2, 3});
  g[0].cached_tokens = 4;
  const json chat = ApiResponse(Chat(""), {"id1", "m", 99, {}, {}}, {}, g, tokenizer);
  EXPECT_EQ(chat["object"], "chat.completion");
  EXPECT_EQ(chat["id"], "chatcmpl-id1");
  EXPECT_EQ(chat["created"], 99);
  EXPECT_EQ(chat["choices"].size(), 1u);
  EXPECT_EQ(chat["choices"][0]["message"]["content"], "bcd");
  EXPECT_EQ(chat["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(chat["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(chat["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(chat["usage"]["completion_tokens"], 3);
  EXPECT_EQ(chat["usage"]["total_tokens"], 8);
  EXPECT_EQ(chat["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
  EXPECT_EQ(chat["timings"]["cache_n"], 4);
  EXPECT_FALSE(chat.contains("kv"));
  g[0].stop_reason = StopReason::kLength;
  const json text = ApiResponse(Completion(R"(,"kv":{"report":true})"),
                                {"id1", "m", 99, "none", "f16", 2}, {}, g, tokenizer);
  EXPECT_EQ(text["object"], "text_completion");
  EXPECT_EQ(text["choices"][0]["text"], "bcd");
  EXPECT_EQ(text["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(text["kv"]["policy"], "none");
  EXPECT_EQ(text["kv"]["cached"]["tokens"], 4);
  EXPECT_EQ(text["kv"]["cached"]["tier"], "memory");
}

TEST(ApiResponse, CountsAPromptOnceForItsChoices) {
  const testing::LetterTokenizer tokenizer;
  std::vector<Generation> g(4);
  for (int i = 0; i < 4; ++i) {
    g[i] = Letters({i, i});
    g[i].cached_tokens = i % 2 == 0 ? 0 : 4;  // the second choice of a prompt shares its lanes
  }
  const ApiRequest request = Parse(ApiRoute::kCompletions, R"({"prompt":["a","b"],"n":2})");
  const json response = ApiResponse(request, {"id", "m", 1, {}, {}}, {}, g, tokenizer);
  EXPECT_EQ(response["usage"]["prompt_tokens"], 10);
  EXPECT_EQ(response["usage"]["completion_tokens"], 8);
  EXPECT_EQ(response["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(response["choices"][i]["index"], i);
}

TEST(ApiResponse, ShowsLogprobsInTheFormOfEachRoute) {
  const testing::LetterTokenizer tokenizer;
  std::vector<Generation> g(1);
  g[0] = Letters({1, 2});
  const json chat = ApiResponse(Chat(R"(,"logprobs":true,"top_logprobs":1)"),
                                {"id", "m", 1, {}, {}}, {}, g, tokenizer);
  const json& content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[1]["token"], "c");
  EXPECT_EQ(content[1]["logprob"], -0.5);
  EXPECT_EQ(content[1]["bytes"], json({'c'}));
  EXPECT_EQ(content[1]["top_logprobs"].size(), 1u);
  const json text =
      ApiResponse(Completion(R"(,"logprobs":2)"), {"id", "m", 1, {}, {}}, {}, g, tokenizer);
  const json& logprobs = text["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"b", "c"}));
  EXPECT_EQ(logprobs["token_logprobs"], json({-0.5, -0.5}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1}));
  EXPECT_EQ(logprobs["top_logprobs"][0], json({{"b", -0.5}, {"c", -1.5}}));
}

TEST(ApiResponse, EchoesThePromptWithItsLogprobs) {
  const testing::LetterTokenizer tokenizer;
  std::vector<Generation> g(1);
  g[0] = Letters({1});
  g[0].prompt_logprobs = {{3, -0.25f, {{3, -0.25f}}}};
  std::vector<Prompt> prompts(1);
  prompts[0].tokens = {2, 3};
  const ApiRequest request =
      Parse(ApiRoute::kCompletions, R"({"prompt":[2,3],"echo":true,"logprobs":1,"max_tokens":1})");
  const json response = ApiResponse(request, {"id", "m", 1, {}, {}}, prompts, g, tokenizer);
  EXPECT_EQ(response["choices"][0]["text"], "cdb");
  const json& logprobs = response["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"c", "d", "b"}));
  EXPECT_EQ(logprobs["token_logprobs"], json({nullptr, -0.25, -0.5}));
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 2}));
}

TEST(ApiResponse, HasANumberForWhatIsImpossible) {
  const testing::LetterTokenizer tokenizer;
  std::vector<Generation> g(1);
  g[0] = Letters({1});
  g[0].logprobs[0].logprob = -INFINITY;
  const json text =
      ApiResponse(Completion(R"(,"logprobs":0)"), {"id", "m", 1, {}, {}}, {}, g, tokenizer);
  EXPECT_EQ(text["choices"][0]["logprobs"]["token_logprobs"][0], -9999.0);
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
  EXPECT_EQ(json(ApiErrorBody(Error(Code::kBusy, "x")))["error"]["type"], "rate_limit_error");
  EXPECT_EQ(json(ApiErrorBody(Error(Code::kUnavailable, "x")))["error"]["type"],
            "unavailable_error");
}

TEST(DumpJson, ReplacesBytesThatAreNoText) {
  EXPECT_EQ(DumpJson({{"text", "a\xff"}}), "{\"text\":\"a\xEF\xBF\xBD\"}");
}

}  // namespace
}  // namespace kvasir
