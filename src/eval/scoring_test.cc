#include "eval/scoring.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kvasir {
namespace {

struct Case {
  Metric metric;
  std::vector<std::string> refs;
  std::string output;
  double score;
};

const std::string kUuid = "0fa2c1de-93b4-4c7e-8d21-6b5e0f1a2c3d";

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {
      {Metric::kAll, {"1234567"}, " 1234567.", 1},
      {Metric::kAll, {"1234567"}, "It is 1234567, I think.", 1},
      {Metric::kAll, {"1234567"}, "123456", 0},
      {Metric::kAll, {"1234567"}, "1,234,567", 0},
      {Metric::kAll, {"1234567"}, "12345678", 1},
      {Metric::kAll, {"1234567"}, "", 0},
      {Metric::kAll, {"lamp", "rope", "sand", "tide"}, "rope, tide, lamp and mud", .75},
      {Metric::kAll, {"lamp", "rope"}, "rope rope rope", .5},
      {Metric::kAll, {"Lamp", "ROPE"}, "lAmP rope", 1},
      {Metric::kAll, {"no"}, "to the north", 1},
      {Metric::kAll, {"north"}, "no rth", 0},
      {Metric::kAll, {"ABCDE"}, "VAR abcde", 1},
      {Metric::kAll, {kUuid}, "the uuid is " + kUuid, 1},
      {Metric::kAll, {kUuid}, "0FA2C1DE-93B4-4C7E-8D21-6B5E0F1A2C3D", 1},
      {Metric::kAll, {kUuid}, kUuid.substr(0, 18) + "\n" + kUuid.substr(18), 0},
      {Metric::kAll, {"lamp"}, "I do not know.\n\nQuestion: what is a lamp?", 1},
      {Metric::kAll, {}, "anything", 0},
      {Metric::kAll, {""}, "anything", 0},
      {Metric::kAll, {"caf\xc3\xa9"}, "CAF\xc3\xa9", 1},

      {Metric::kAny, {"Paris", "the city of Paris"}, "paris", 1},
      {Metric::kAny, {"Paris", "Lyon"}, "Both Lyon and Paris", 1},
      {Metric::kAny, {"Paris", "Lyon"}, "Nice", 0},
      {Metric::kAny, {"", "Lyon"}, "Nice", 0},
      {Metric::kAny, {"Paris"}, "", 0},

      {Metric::kExact, {kUuid}, "\"" + kUuid + "\"}", 1},
      {Metric::kExact, {kUuid}, "0FA2C1DE-93B4-4C7E-8D21-6B5E0F1A2C3D", 0},
      {Metric::kExact, {kUuid}, kUuid.substr(0, 35), 0},
      {Metric::kExact, {"aB", "cD"}, "ab cD", .5},
      {Metric::kExact, {"aB"}, "", 0},

      {Metric::kFirstInteger, {"71432"}, "The pass key is 71432. Remember 99999.", 1},
      {Metric::kFirstInteger, {"71432"}, "1. 71432", 0},
      {Metric::kFirstInteger, {"71432"}, "714321", 0},
      {Metric::kFirstInteger, {"71432"}, "7143", 0},
      {Metric::kFirstInteger, {"71432"}, "71,432", 0},
      {Metric::kFirstInteger, {"71432"}, "key71432key", 1},
      {Metric::kFirstInteger, {"71432"}, "none", 0},
      {Metric::kFirstInteger, {"0012"}, "12", 0},
      {Metric::kFirstInteger, {""}, "none", 0},
      {Metric::kFirstInteger, {"71432"}, "", 0},

      {Metric::kAnswer, {"42"}, "step 1: 7\nanswer: 42\n", 1},
      {Metric::kAnswer, {"42"}, "**Answer:** 42", 1},
      {Metric::kAnswer, {"42"}, "### Final answer: **42**", 1},
      {Metric::kAnswer, {"42"}, "So the final answer is 42.", 1},
      {Metric::kAnswer, {"42"}, "The answer is: 042", 1},
      {Metric::kAnswer, {"42"}, "answer = 42", 1},
      {Metric::kAnswer, {"42"}, "42", 0},
      {Metric::kAnswer, {"42"}, "step 42: 42\n", 0},
      {Metric::kAnswer, {"42"}, "answer:\n42", 0},
      {Metric::kAnswer, {"42"}, "answer: 42 43", 0},
      {Metric::kAnswer, {"42"}, "answer: 41\nanswer: 42", 0},
      {Metric::kAnswer, {"42"}, "answer: 42\nanswer: 41", 1},
      {Metric::kAnswer, {"42"}, "answer: -42", 0},
      {Metric::kAnswer, {"-42"}, "answer: -42", 1},
      {Metric::kAnswer, {"42"}, "answers: 42", 0},
      {Metric::kAnswer, {"42"}, "My answers vary.\nThe answer follows.\nanswer: 42", 1},
      {Metric::kAnswer, {"42"}, "I will write the answer: 41\nAnswer: 42", 1},
      {Metric::kAnswer, {"1234567"}, "answer: 1,234,567", 1},
      {Metric::kAnswer, {"12 34"}, "answer: 12,34", 1},
      {Metric::kAnswer, {"12 34 5"}, "answer: A=12, B=34, C=05", 1},
      {Metric::kAnswer, {"12 34 5"}, "answer: A=12, B=34", 0},
      {Metric::kAnswer, {"12 34 5"}, "answer: 34 12 5", 0},
      {Metric::kAnswer, {"0"}, "answer: 000", 1},
      {Metric::kAnswer, {"12345678901234567890123"}, "answer: 12345678901234567890123", 1},
      {Metric::kAnswer, {"Kitchen"}, "Answer: kitchen.", 1},
      {Metric::kAnswer, {"Kitchen"}, "Answer: the kitchen", 0},
      {Metric::kAnswer, {"42"}, "", 0},
  };
  return cases;
}

TEST(Score, EqualsTheHandCases) {
  for (const Case& c : Cases()) {
    EXPECT_EQ(Score(c.metric, c.refs, c.output), c.score)
        << Name(c.metric) << " \"" << c.output << "\", first reference \""
        << (c.refs.empty() ? "" : c.refs[0]) << "\"";
  }
}

TEST(Score, MetricsAreFoundByName) {
  for (const Metric metric :
       {Metric::kAll, Metric::kAny, Metric::kExact, Metric::kFirstInteger, Metric::kAnswer}) {
    EXPECT_EQ(FindMetric(Name(metric)), metric);
  }
  EXPECT_EQ(FindMetric("every"), std::nullopt);
}

TEST(FindAnswer, GivesThePlaceOfTheValue) {
  const std::string output = "a\n**Answer:** 4 2\nmore";
  const auto place = FindAnswer(output);
  ASSERT_TRUE(place);
  EXPECT_EQ(output.substr(place->begin, place->end - place->begin), "4 2");
  EXPECT_EQ(output[place->end], '\n');
  EXPECT_FALSE(FindAnswer("answer:\n"));
}

}  // namespace
}  // namespace kvasir
