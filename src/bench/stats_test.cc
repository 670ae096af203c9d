#include "bench/stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir::bench {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;

// numpy.percentile([1, 2, 4, 8, 16], q) for q = 0, 10, 25, 50, 90, 99, 100.
TEST(Percentile, InterpolatesAsNumpyDoes) {
  const std::vector<double> values = {1, 2, 4, 8, 16};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(values, 10), 1.4);
  EXPECT_DOUBLE_EQ(Percentile(values, 25), 2);
  EXPECT_DOUBLE_EQ(Percentile(values, 50), 4);
  EXPECT_DOUBLE_EQ(Percentile(values, 90), 12.8);
  EXPECT_DOUBLE_EQ(Percentile(values, 99), 15.68);
  EXPECT_DOUBLE_EQ(Percentile(values, 100), 16);
}

TEST(Percentile, OfOneValueOrNoneIsThatOrZero) {
  EXPECT_EQ(Percentile({3}, 99), 3);
  EXPECT_EQ(Percentile({}, 50), 0);
}

TEST(Summarize, SortsAndTakesTheDeviationOfThePopulation) {
  const Summary s = Summarize({9, 2, 4, 4, 5, 5, 7, 4}, {50, 100});
  EXPECT_EQ(s.n, 8u);
  EXPECT_DOUBLE_EQ(s.mean, 5);
  EXPECT_DOUBLE_EQ(s.median, 4.5);
  EXPECT_DOUBLE_EQ(s.deviation, 2);
  EXPECT_THAT(s.percentiles, ElementsAre(4.5, 9));
  EXPECT_THAT(Summarize({}, {99}).percentiles, ElementsAre(0));
}

std::string Refusal(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(Lists, AreParsedOrRefusedWithTheWord) {
  EXPECT_THAT(ParseMeasures("ttft,e2el"), ElementsAre(Measure::kTtft, Measure::kE2el));
  EXPECT_THAT(ParsePercentiles("50,99.9"), ElementsAre(50, 99.9));
  EXPECT_THAT(ParseGoals("ttft:200 tpot:50"),
              ElementsAre(std::pair(Measure::kTtft, 200.0), std::pair(Measure::kTpot, 50.0)));
  EXPECT_THAT(Refusal([] { ParseMeasures("ttft,tptt"); }), HasSubstr("\"tptt\""));
  for (const char* wrong : {"101", "-1", "x", "5x"}) {
    EXPECT_THAT(Refusal([&] { ParsePercentiles(wrong); }), HasSubstr(wrong));
  }
  for (const char* wrong : {"ttft", "ttft:", "ttft:x", "itl:5", "foo:5", "e2el:-1"}) {
    EXPECT_THAT(Refusal([&] { ParseGoals(wrong); }), HasSubstr(wrong));
  }
}

Record Answer(double start, double ttft, std::vector<double> itl, uint64_t tokens) {
  Record r;
  r.start = start;
  r.ttft = r.latency = ttft;
  for (const double gap : itl) r.latency += gap;
  r.itl = std::move(itl);
  r.input_tokens = 100;
  r.output_tokens = tokens;
  r.has_usage = true;
  return r;
}

Record Failed(const std::string& kind, const std::string& message) {
  Record r;
  r.failure = kind;
  r.message = message;
  return r;
}

// Two answers that overlap, three failures, ten seconds.
LoadRun SmallRun() {
  LoadRun run;
  run.seconds = 10;
  run.records = {Answer(0, 0.5, {0.1, 0.3}, 3), Failed("http 429", "slow down"),
                 Answer(0.25, 1.5, {0.25}, 6), Failed("http 429", "again"),
                 Failed("connect", "refused")};
  run.records[0].cached_tokens = 40;
  run.records[2].has_usage = false;
  return run;
}

TEST(Evaluate, CountsTokensAndRates) {
  const Results r = Evaluate(SmallRun(), {99}, {});
  EXPECT_EQ(r.requests, 5u);
  EXPECT_EQ(r.completed, 2u);
  EXPECT_EQ(r.failed, 3u);
  EXPECT_EQ(r.input_tokens, 200u);
  EXPECT_EQ(r.output_tokens, 9u);
  EXPECT_DOUBLE_EQ(r.request_rate, 0.2);
  EXPECT_DOUBLE_EQ(r.output_rate, 0.9);
  EXPECT_DOUBLE_EQ(r.total_rate, 20.9);
  EXPECT_EQ(r.cached_tokens, 40u);
  EXPECT_EQ(r.without_usage, 1u);
  EXPECT_EQ(r.good_rate, std::nullopt);
}

TEST(Evaluate, MeasuresOnlyWhatWasAnswered) {
  const Results r = Evaluate(SmallRun(), {99}, {});
  EXPECT_EQ(r.latency.at(Measure::kTtft).n, 2u);
  EXPECT_DOUBLE_EQ(r.latency.at(Measure::kTtft).mean, 1000);
  // (0.9 - 0.5) / 2 and (1.75 - 1.5) / 5
  EXPECT_DOUBLE_EQ(r.latency.at(Measure::kTpot).mean, 125);
  EXPECT_EQ(r.latency.at(Measure::kItl).n, 3u);
  EXPECT_DOUBLE_EQ(r.latency.at(Measure::kItl).median, 250);
  EXPECT_DOUBLE_EQ(r.latency.at(Measure::kE2el).mean, 1325);
}

TEST(Evaluate, ListsFailuresByKindWithTheFirstMessage) {
  const Results r = Evaluate(SmallRun(), {99}, {});
  ASSERT_EQ(r.failures.size(), 2u);
  EXPECT_EQ(r.failures.at("http 429").n, 2u);
  EXPECT_EQ(r.failures.at("http 429").message, "slow down");
  EXPECT_EQ(r.failures.at("connect").n, 1u);
}

TEST(Evaluate, FindsThePeaks) {
  const Results r = Evaluate(SmallRun(), {99}, {});
  EXPECT_EQ(r.concurrency_peak, 2u);
  // Pieces at 0.5, 0.6, 0.9 and at 1.75, 2.0.
  EXPECT_DOUBLE_EQ(r.output_rate_peak, 3);
  LoadRun after = SmallRun();
  after.records[2].start = 0.9;  // begins as the first one ends
  EXPECT_EQ(Evaluate(after, {}, {}).concurrency_peak, 1u);
}

TEST(Evaluate, CountsAsGoodWhatKeepsEveryLimit) {
  EXPECT_EQ(Evaluate(SmallRun(), {}, ParseGoals("ttft:1500")).good_rate, 0.2);
  EXPECT_EQ(Evaluate(SmallRun(), {}, ParseGoals("ttft:1499")).good_rate, 0.1);
  EXPECT_EQ(Evaluate(SmallRun(), {}, ParseGoals("ttft:1499 tpot:100")).good_rate, 0);
  EXPECT_EQ(Evaluate(SmallRun(), {}, ParseGoals("tpot:100")).good_rate, 0.1);
  EXPECT_EQ(Evaluate(SmallRun(), {}, ParseGoals("e2el:1000")).good_rate, 0.1);
}

TEST(Evaluate, HasNoTtftForAnAnswerWithoutText) {
  LoadRun run;
  run.seconds = 1;
  run.records = {Answer(0, 0, {}, 0)};
  run.records[0].latency = 0.2;
  const Results r = Evaluate(run, {99}, {});
  EXPECT_EQ(r.completed, 1u);
  EXPECT_EQ(r.latency.at(Measure::kTtft).n, 0u);
  EXPECT_DOUBLE_EQ(r.latency.at(Measure::kE2el).mean, 200);
}

}  // namespace
}  // namespace kvasir::bench
