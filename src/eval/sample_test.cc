#include "eval/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>

#include "base/error.h"
#include "base/temp_folder.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Sample Example() {
  Sample sample;
  sample.suite = "ruler";
  sample.task = "niah";
  sample.seed = UINT64_MAX;
  sample.length = 4096;
  sample.index = 7;
  sample.context = "A \"quoted\" line.\nCaf\xc3\xa9.\n\n";
  sample.questions = {{"Which?", "It is", {"1", "2"}}};
  sample.max_new = 128;
  sample.needles = {{"It is 1.", 12, 33.3}};
  sample.distractors = 3;
  return sample;
}

TEST(Sample, IsOneLineOfJsonWithItsDigest) {
  const std::string line = SampleJson(Example());
  EXPECT_EQ(line.find('\n'), line.npos);
  const std::string body =
      R"({"suite":"ruler","task":"niah","version":1,"seed":18446744073709551615,"length":4096,)"
      R"("index":7,"context":"A \"quoted\" line.\nCaf)"
      "\xc3\xa9"
      R"(.\n\n","question":"Which?","answer_prefix":"It is","refs":["1","2"],"metric":"all",)"
      R"("max_new":128,"needles":[{"text":"It is 1.","token_begin":12,"depth":33.3}],)"
      R"("distractors":3,"sha256":")";
  EXPECT_EQ(line.substr(0, body.size()), body);
  // sha256sum of the text before the key, closed.
  EXPECT_EQ(SampleDigest(Example()),
            "bb776ddad53c7865c552e608f863466d07580ffc77c4c6fdf55ed75663eb469e");
  EXPECT_EQ(line.substr(body.size()), SampleDigest(Example()) + "\"}");
}

TEST(Sample, IsReadAsItWasWritten) {
  Sample several = Example();
  several.questions.push_back({"And?", "", {"x"}});
  several.metric = Metric::kFirstInteger;
  several.gold = "1. a\nanswer: 2\n";
  const std::vector<Sample> samples = {Example(), several};
  const test::TempFolder folder;
  const std::string path = folder.path() + "/samples.jsonl";
  WriteSamples(samples, path);
  EXPECT_EQ(ReadSamples(path), samples);
  const std::vector<Sample> swapped = {several, Example()};
  EXPECT_NE(SamplesDigest(samples), SamplesDigest(swapped));
}

TEST(Sample, ReadsRulersFiles) {
  const std::string text =
      R"({"index": 3, "input": "Hidden.\nThe one is 5.\nWhich is it? \n", "outputs": ["5"], )"
      R"("length": 100, "others": {"x": [1]}, "answer_prefix": " It is"})"
      "\r\n\n";
  const std::vector<Sample> samples = ParseSamples(text, "dir/niah_single_1/validation.jsonl");
  ASSERT_EQ(samples.size(), 1u);
  const Sample& sample = samples[0];
  EXPECT_EQ(sample.suite, "file");
  EXPECT_EQ(sample.task, "niah_single_1");
  EXPECT_EQ(sample.index, 3u);
  EXPECT_EQ(sample.context, "Hidden.\nThe one is 5.\n");
  ASSERT_EQ(sample.questions.size(), 1u);
  EXPECT_EQ(sample.questions[0].text, "Which is it? \n");
  EXPECT_EQ(sample.questions[0].answer_prefix, " It is");
  EXPECT_THAT(sample.questions[0].refs, ElementsAre("5"));
  EXPECT_EQ(sample.max_new, 128u);
  EXPECT_EQ(sample.metric, Metric::kAll);
  EXPECT_EQ(ParseSamples(text, "qa_1.jsonl")[0].metric, Metric::kAny);
  EXPECT_EQ(ParseSamples(text, "qa_1.jsonl")[0].max_new, 32u);
  EXPECT_EQ(ParseSamples(text, "vt.jsonl")[0].max_new, 30u);
}

std::string Refusal(const std::string& text) {
  try {
    ParseSamples(text, "a.jsonl");
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error for " << text.substr(0, 200);
  return {};
}

std::string With(std::string_view from, std::string_view to) {
  std::string line = R"({"task":"t","context":"c","question":"q","refs":["r"],"metric":"all",)"
                     R"("max_new":5,"needles":[{"text":"n","token_begin":1,"depth":50}]})";
  const size_t at = line.find(from);
  EXPECT_NE(at, line.npos) << from;
  return line.replace(at, from.size(), to);
}

TEST(Sample, RefusesBrokenFilesNamingTheLine) {
  const std::string good = With("t", "t") + "\n";
  EXPECT_EQ(ParseSamples(good, "a.jsonl").size(), 1u);
  const auto refused = [&](const std::string& line) { return Refusal(good + "\n" + line); };
  EXPECT_THAT(refused("{"), HasSubstr("a.jsonl:3: "));
  EXPECT_THAT(refused("[]"), AllOf(HasSubstr("a.jsonl:3"), HasSubstr("object")));
  EXPECT_THAT(refused("{}"), HasSubstr("task"));
  EXPECT_THAT(refused(std::string(100, '[')), HasSubstr("deeper"));
  EXPECT_THAT(refused(With("\"c\"", "\"\xff\"")), HasSubstr("a.jsonl:3"));
  EXPECT_THAT(refused(With("\"c\"", "3")), HasSubstr("\"context\": expected a string"));
  EXPECT_THAT(refused(With("[\"r\"]", "[]")), HasSubstr("reference"));
  EXPECT_THAT(refused(With("[\"r\"]", "[1]")), HasSubstr("strings"));
  EXPECT_THAT(refused(With("\"all\"", "\"most\"")), HasSubstr("metric"));
  EXPECT_THAT(refused(With(":5", ":-5")), HasSubstr("max_new"));
  EXPECT_THAT(refused(With(":5", ":5.5")), HasSubstr("max_new"));
  EXPECT_THAT(refused(With(":5", ":18446744073709551615")), HasSubstr("max_new"));
  EXPECT_THAT(refused(With(":50", ":101")), HasSubstr("depth"));
  EXPECT_THAT(refused(With("{\"task\"", "{\"sha256\":\"00\",\"task\"")), HasSubstr("sha256"));
  EXPECT_THAT(refused(R"({"input":" \n","outputs":["1"]})"), HasSubstr("input"));
  EXPECT_THAT(refused(R"({"input":"x"})"), HasSubstr("outputs"));
  std::string many = "[";
  for (int i = 0; i < 200'000; ++i) many += "0,";
  EXPECT_THAT(refused(With("[\"r\"]", many + "0]")), HasSubstr("values"));
  EXPECT_THAT(Refusal("\n \n"), HasSubstr("no samples"));
}

}  // namespace
}  // namespace kvasir
