#include "eval/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

EvalResult Row(const std::string& label, double dppl, uint64_t bytes) {
  EvalResult r;
  r.case_label = label;
  r.suite = "ppl";
  r.task = r.mode = "stream";
  r.quality = QualityFigures{.scored = 9,
                             .ppl = 8 + dppl,
                             .ppl_dense = 8,
                             .dppl = {dppl, Interval{dppl - 1, dppl + 1}},
                             .kl = {.mean = .25, .interval = Interval{.125, .5}},
                             .top1 = .75};
  r.memory.kv_peak_bytes = bytes;
  return r;
}

EvalReport Report() {
  EvalReport report;
  report.cases = {{.label = "dense", .reference = true}, {.label = "kd@0.5"}};
  report.results = {Row("dense", 0, 1000), Row("kd@0.5", 2, 400)};
  return report;
}

std::vector<std::string> Failed(std::string_view text) {
  const EvalReport report = Report();
  return FailedChecks(ParseChecks(text, "checks.txt", report.cases), report);
}

std::string Refusal(std::string_view text) {
  try {
    Failed(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(Checks, FailOnlyWhereTheWholeIntervalIsOnTheWrongSide) {
  EXPECT_THAT(Failed("ppl kd@0.5.kl <= 0.125\nppl kd@0.5.kl >= 0.5\nppl kd@0.5.ppl <= 9\n"
                     "ppl kd@0.5.dppl < 1.5\nppl kd@0.5.dppl > 2.5"),
              IsEmpty());
  EXPECT_THAT(Failed("# a comment\n\nppl kd@0.5.kl <= 0.12  # and another"),
              ElementsAre("checks.txt, line 3: ppl kd@0.5.kl <= 0.12: stream stream has 0.25 "
                          "[0.125, 0.5], the bound is 0.12"));
  EXPECT_THAT(Failed("ppl kd@0.5.kl < 0.125"), testing::SizeIs(1));
  EXPECT_THAT(Failed("ppl kd@0.5.kl > 0.5"), testing::SizeIs(1));
  EXPECT_THAT(Failed("ppl kd@0.5.ppl <= 8.9"), testing::SizeIs(1));
  EXPECT_THAT(Failed("ppl kd@0.5.top1 >= 0.76\nstream kd@0.5.top1 >= 0.75"), testing::SizeIs(1));
}

TEST(Checks, CompareWithAnotherCase) {
  EXPECT_THAT(Failed("ppl kd@0.5.kv_peak_bytes <= 0.4 * dense.kv_peak_bytes"), IsEmpty());
  EXPECT_THAT(Failed("ppl kd@0.5.kv_peak_bytes <= 0.39 * dense.kv_peak_bytes"),
              ElementsAre(HasSubstr("has 400, the bound is 390")));
}

TEST(Checks, ThatCannotBeMadeAreRefused) {
  EXPECT_THAT(Refusal("ppl kd@0.5.kl <=0.1"), HasSubstr("line 1"));
  EXPECT_THAT(Refusal("ppl kd@0.5.kl == 0.1"), HasSubstr("expected SUITE"));
  EXPECT_THAT(Refusal("ppl kd@0.5.kl <= x"), HasSubstr("a number"));
  EXPECT_THAT(Refusal("ppl kd@0.5.speed <= 1"), HasSubstr("with one of ppl, dppl"));
  EXPECT_THAT(Refusal("ppl kd.kl <= 1"), HasSubstr("no case \"kd\""));
  EXPECT_THAT(Refusal("ppl kd@0.5.kl <= 1 + dense.kl"), HasSubstr("expected SUITE"));
  EXPECT_THAT(Refusal("vt kd@0.5.kl <= 1"), HasSubstr("no result"));
  EXPECT_THAT(Refusal("ppl kd@0.5.score <= 1"), HasSubstr("has no score"));
}

}  // namespace
}  // namespace kvasir
