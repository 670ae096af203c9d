#include "server/stream_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "format/json.h"

namespace kvasir {
namespace {

using nlohmann::json;

ApiRequest Body(ApiRoute route, const std::string& more) {
  const std::string input = route == ApiRoute::kChat
                                ? R"("messages":[{"role":"user","content":"hi"}])"
                                : R"("prompt":"hi")";
  return ParseApiRequest(route, ParseJson("{" + input + more + "}", "body"), {});
}

// The document of a chunk; checks the frame around it.
json Document(const std::string& chunk) {
  EXPECT_TRUE(chunk.starts_with("data: ")) << chunk;
  EXPECT_TRUE(chunk.ends_with("}\n\n")) << chunk;
  EXPECT_EQ(chunk.find('\n'), chunk.size() - 2) << "an event is one line";
  return ParseJson(chunk.substr(6), "chunk");
}

const ApiEcho kEcho = {
    .id = "7", .model = "m\"x", .created_s = 9, .policy = "none", .codec = "f16"};

TEST(StreamFormat, WritesAChatAsTheClientExpectsIt) {
  const ApiRequest request = Body(ApiRoute::kChat, "");
  const StreamFormat format(request, kEcho);
  EXPECT_EQ(format.Role(0),
            "data: {\"id\":\"chatcmpl-7\",\"object\":\"chat.completion.chunk\",\"created\":9,"
            "\"model\":\"m\\\"x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
            "\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
  EXPECT_EQ(format.Text(2, "a\n\"b\"\\", "null"),
            "data: {\"id\":\"chatcmpl-7\",\"object\":\"chat.completion.chunk\",\"created\":9,"
            "\"model\":\"m\\\"x\",\"choices\":[{\"index\":2,\"delta\":{\"content\":\"a\\n\\\"b\\\""
            "\\\\\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
  Generation end;
  end.stop_reason = StopReason::kStop;
  end.seed = 5;
  const json finish = Document(format.Finish(0, "null", end, {&end, 1}));
  EXPECT_EQ(finish["choices"][0]["delta"], json::object());
  EXPECT_EQ(finish["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(finish["seed"], 5);
  EXPECT_TRUE(finish.contains("timings"));
  EXPECT_FALSE(finish.contains("kv"));
  EXPECT_FALSE(finish.contains("usage"));
  EXPECT_FALSE(Document(format.Finish(0, "null", end, {})).contains("timings"));
}

TEST(StreamFormat, WritesCompletionsWithoutARole) {
  const ApiRequest request = Body(ApiRoute::kCompletions, R"(,"kv":{"report":true})");
  const StreamFormat format(request, kEcho);
  EXPECT_EQ(format.Role(0), "");
  const json text = Document(format.Text(1, "x", R"({"tokens":["x"]})"));
  EXPECT_EQ(text["object"], "text_completion");
  EXPECT_EQ(text["id"], "cmpl-7");
  EXPECT_EQ(text["choices"][0]["text"], "x");
  EXPECT_EQ(text["choices"][0]["logprobs"]["tokens"][0], "x");
  Generation end;
  const json finish = Document(format.Finish(1, "null", end, {&end, 1}));
  EXPECT_EQ(finish["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(finish["kv"]["codec"], "f16");
}

TEST(StreamFormat, HasAUsageChunkWithoutChoicesWhenAsked) {
  const ApiRequest request =
      Body(ApiRoute::kChat, R"(,"stream":true,"stream_options":{"include_usage":true})");
  const StreamFormat format(request, kEcho);
  EXPECT_TRUE(Document(format.Text(0, "x", "null"))["usage"].is_null());
  Generation end;
  end.prompt_tokens = 3;
  end.tokens = {1, 2};
  const json usage = Document(format.Usage({&end, 1}));
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["total_tokens"], 5);
}

TEST(StreamFormat, TellsAnErrorInItsOwnWords) {
  const json failure = Document(StreamFormat::Failure(Error(Code::kUnavailable, "stopped")));
  EXPECT_EQ(failure["error"]["message"], "stopped");
  EXPECT_EQ(failure["error"]["type"], "unavailable_error");
}

TEST(AppendJsonString, GivesBackEveryTextAndReplacesWhatIsNone) {
  for (const std::string text : {"", "plain", "\x01\x1f\x7f\t\r\n\b", "\"\\/", "ä€😀"}) {
    std::string out;
    AppendJsonString(text, &out);
    EXPECT_EQ(ParseJson(out, "text"), text) << out;
  }
  std::string out;
  AppendJsonString("a\xff\xc3z\xe2\x82", &out);
  EXPECT_EQ(out, "\"a\xEF\xBF\xBD\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace kvasir
