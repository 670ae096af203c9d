#include "bench/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvasir::bench {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;

struct Piece {
  double at;
  std::string data;
  std::string type = {};
};

Record Read(Route route, const std::vector<Piece>& pieces, double end = 9) {
  Record record;
  AnswerReader reader(route, record);
  for (const Piece& piece : pieces) {
    if (!reader.Take({piece.type, piece.data}, piece.at)) break;
  }
  reader.End(end);
  return record;
}

std::string Text(const std::string& text, const std::string& finish = "null") {
  return R"({"choices":[{"text":")" + text + R"(","finish_reason":)" + finish + "}]}";
}

std::string Delta(const std::string& delta, const std::string& finish = "null") {
  return R"({"choices":[{"delta":)" + delta + R"(,"finish_reason":)" + finish + "}]}";
}

TEST(AnswerReader, TakesTheTimesOfTextAndTheCountsOfUsage) {
  const Record r = Read(Route::kCompletions,
                        {{1, Text("a")},
                         {1.5, Text("b")},
                         {1.75, Text("c", "\"length\"")},
                         {2, R"({"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,)"
                             R"("prompt_tokens_details":{"cached_tokens":4}}})"},
                         {3, "[DONE]"}});
  EXPECT_TRUE(r.ok()) << r.failure << r.message;
  EXPECT_EQ(r.text, "abc");
  EXPECT_EQ(r.ttft, 1);
  EXPECT_THAT(r.itl, ElementsAre(0.5, 0.25));
  EXPECT_EQ(r.latency, 1.75);
  EXPECT_TRUE(r.has_usage);
  EXPECT_EQ(r.input_tokens, 7u);
  EXPECT_EQ(r.output_tokens, 5u);
  EXPECT_EQ(r.cached_tokens, 4u);
}

TEST(AnswerReader, CountsPiecesWithoutUsage) {
  const Record r = Read(Route::kCompletions,
                        {{1, Text("a")}, {2, Text("")}, {3, Text("", "\"stop\"")}, {4, "[DONE]"}});
  EXPECT_FALSE(r.has_usage);
  EXPECT_EQ(r.output_tokens, 2u);  // the empty one is a token that is no whole character
  EXPECT_EQ(r.latency, 2);
}

TEST(AnswerReader, DoesNotTakeTheRoleForAToken) {
  const Record r = Read(Route::kChat, {{0.1, Delta(R"({"role":"assistant","content":""})")},
                                       {0.2, Delta(R"({"role":"assistant","content":null})")},
                                       {1, Delta(R"({"reasoning_content":"hm"})")},
                                       {2, Delta(R"({"content":"yes"})")},
                                       {3, Delta("{}", "\"stop\"")},
                                       {4, "[DONE]"}});
  EXPECT_TRUE(r.ok());
  EXPECT_EQ(r.ttft, 1);
  EXPECT_EQ(r.text, "hmyes");
  EXPECT_EQ(r.output_tokens, 2u);
  EXPECT_EQ(r.latency, 2);
}

TEST(AnswerReader, LetsAnAnswerWithoutTextBeOne) {
  const Record r = Read(Route::kCompletions, {{1, Text("", "\"stop\"")}, {1, "[DONE]"}}, 1.5);
  EXPECT_TRUE(r.ok());
  EXPECT_EQ(r.ttft, 0);
  EXPECT_EQ(r.latency, 1.5);
  EXPECT_EQ(r.output_tokens, 0u);
}

TEST(AnswerReader, IsContentWithAFinishReasonInPlaceOfDone) {
  EXPECT_TRUE(Read(Route::kCompletions, {{1, Text("a", "\"stop\"")}}).ok());
  EXPECT_TRUE(Read(Route::kCompletions, {{1, Text("a")}, {2, "[DONE]"}}).ok());
}

TEST(AnswerReader, MakesFailuresOfBrokenStreams) {
  Record r = Read(Route::kCompletions, {{1, Text("a")}});
  EXPECT_EQ(r.failure, "cut off");
  EXPECT_THAT(r.message, HasSubstr("after 1 piece"));
  EXPECT_EQ(Read(Route::kCompletions, {}).failure, "cut off");
  EXPECT_EQ(Read(Route::kCompletions, {{1, "{"}}).failure, "malformed");
  EXPECT_EQ(Read(Route::kCompletions, {{1, "[]"}}).failure, "malformed");
  // Wrong types are no text; the answer still needs its end.
  EXPECT_EQ(Read(Route::kChat, {{1, R"({"choices":[7],"usage":3})"}}).failure, "cut off");
}

TEST(AnswerReader, ReadsErrorsOfEveryForm) {
  const std::vector<Piece> forms = {
      {1, R"({"error":{"message":"no room","code":500}})"},
      {1, R"({"object":"error","message":"no room"})"},
      {1, R"({"error":{"message":"no room"}})", "error"},
      {1, "no room", "error"},
      {1, R"({"message":"no room"})", "error"},
  };
  for (const Piece& form : forms) {
    const Record r = Read(Route::kCompletions, {{0.5, Text("a")}, form, {2, "[DONE]"}});
    EXPECT_EQ(r.failure, "error event") << form.data;
    EXPECT_EQ(r.message, "no room") << form.data;
  }
}

TEST(ErrorMessage, FindsTheSentence) {
  EXPECT_EQ(ErrorMessage(R"({"error":{"message":"a\nb"}})"), "a b");
  EXPECT_EQ(ErrorMessage(R"({"error":"c"})"), "c");
  EXPECT_EQ(ErrorMessage(R"({"detail":"d"})"), "d");
  EXPECT_EQ(ErrorMessage("<html>\r\n"), "<html>  ");
  EXPECT_EQ(ErrorMessage(""), "");
  EXPECT_EQ(ErrorMessage(std::string(1000, 'x')).size(), 300u);
}

}  // namespace
}  // namespace kvasir::bench
