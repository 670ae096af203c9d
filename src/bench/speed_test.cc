#include "bench/speed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/error.h"
#include "engine/testing.h"

namespace kvasir::bench {
namespace {

using kvasir::testing::kVocabulary;
using kvasir::testing::LetterTokenizer;
using kvasir::testing::TinyModel;
using ::testing::Gt;
using ::testing::HasSubstr;

class MeasureSpeedTest : public ::testing::Test {
 protected:
  Engine& Start(uint64_t kv_memory, const std::string& policy = "") {
    EngineOptions options;
    options.kv_memory = kv_memory;
    options.encoding = {.k = Codec::kF32, .v = Codec::kF32};
    options.chunk = 32;
    options.policy = policy;
    engine_ = std::make_unique<Engine>(model_, &tokenizer_, BestKernels(), workers_, options);
    return *engine_;
  }

  TinyModel model_;
  LetterTokenizer tokenizer_;
  Workers workers_{1};
  std::unique_ptr<Engine> engine_;
};

// 2 layers x 2 heads, K and V of 4 floats.
constexpr uint64_t kEntry = 2 * 2 * 2 * 4 * sizeof(float);

TEST_F(MeasureSpeedTest, RunsEveryTestAsOftenAsAsked) {
  const std::vector<SpeedTest> tests = {
      {.n_prompt = 20}, {.n_gen = 6}, {.n_prompt = 8, .n_gen = 3}};
  const auto results = MeasureSpeed(Start(1 << 20), kVocabulary, tests, {.repetitions = 3});
  ASSERT_EQ(results.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(results[i].test, tests[i]);
    EXPECT_EQ(results[i].seconds.size(), 3u);
    EXPECT_THAT(results[i].seconds, ::testing::Each(Gt(0)));
  }
  // Warm-ups (20, 4, 8 + 3) and three repetitions; the first new token comes with the prompt.
  EXPECT_EQ(model_.rows, (20 + 4 + 11) + 3 * (20 + 6 + 11));
}

TEST_F(MeasureSpeedTest, FillsEachDepthOnceAndForksIt) {
  const auto results =
      MeasureSpeed(Start(1 << 20), kVocabulary,
                   {{.n_gen = 4, .depth = 64}, {.n_prompt = 10, .depth = 64}}, {.repetitions = 5});
  EXPECT_EQ(model_.rows, 64u + 6 * (4 + 10));
  for (const SpeedResult& result : results) {
    EXPECT_EQ(result.kv_tokens, 64 + result.test.tokens());
    // One full page of each lane, and one that was begun.
    EXPECT_EQ(result.kv_end_bytes, 128 * kEntry);
    EXPECT_EQ(result.kv_peak_bytes, 128 * kEntry);
  }
  // From 65 to 68 entries.
  EXPECT_EQ(results[0].kv_read_bytes, (64 + 68 + 1) * 4 / 2 * (kEntry / 4));
}

TEST_F(MeasureSpeedTest, SequencesTogetherHaveCachesOfTheirOwn) {
  const auto results = MeasureSpeed(Start(1 << 20), kVocabulary,
                                    {{.n_gen = 4, .depth = 64, .parallel = 3}}, {.repetitions = 1});
  EXPECT_EQ(results[0].kv_end_bytes, 3 * 128 * kEntry);
  EXPECT_EQ(results[0].kv_tokens, 3u * 68);
  EXPECT_EQ(model_.rows, 3u * (64 + 4 + 4));
}

TEST_F(MeasureSpeedTest, CountsWhatAPolicyKeeps) {
  const auto results = MeasureSpeed(Start(1 << 20, "streaming:sink=2,recent=62,block=16"),
                                    kVocabulary, {{.n_gen = 4, .depth = 300}}, {.repetitions = 1});
  EXPECT_LT(results[0].kv_read_bytes, 100 * kEntry);
  EXPECT_LT(results[0].kv_end_bytes, 300 * kEntry);
  ASSERT_EQ(results[0].policy_seconds.size(), 1u);
  EXPECT_GT(results[0].policy_seconds[0], 0);
  EXPECT_LT(results[0].policy_seconds[0], results[0].seconds[0]);
  EXPECT_EQ(results[0].kv_tokens, 304u);
}

TEST_F(MeasureSpeedTest, WhatHidesGrowsAndReadsLess) {
  const auto dense =
      MeasureSpeed(Start(1 << 20), kVocabulary, {{.n_gen = 40, .depth = 300}}, {.repetitions = 1});
  const auto quest = MeasureSpeed(Start(1 << 20, "quest:budget=32,skip=0"), kVocabulary,
                                  {{.n_gen = 40, .depth = 300}}, {.repetitions = 1});
  EXPECT_EQ(dense[0].policy_seconds[0], 0);
  EXPECT_GT(quest[0].policy_seconds[0], 0);
  EXPECT_GT(quest[0].kv_end_bytes, dense[0].kv_end_bytes) << "bounds come on top";
  EXPECT_LT(quest[0].kv_read_bytes, dense[0].kv_read_bytes / 2);
}

TEST_F(MeasureSpeedTest, SaysWhenTheBudgetIsTooSmall) {
  try {
    MeasureSpeed(Start(256 * kEntry), kVocabulary,
                 {{.n_gen = 4, .depth = 128}, {.n_gen = 4, .depth = 192}}, {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBudget);
  }
}

TEST(Spread, IsOfASample) {
  EXPECT_DOUBLE_EQ(SpreadOf({2, 4, 9}).mean, 5);
  EXPECT_DOUBLE_EQ(SpreadOf({2, 4, 9}).deviation, std::sqrt(13.0));
  EXPECT_EQ(SpreadOf({3}).deviation, 0);
  EXPECT_EQ(Median({5, 1, 3}), 3);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2.5);
}

TEST(SpeedRates, FollowFromBytesAndMultiplyAdds) {
  const ModelSize size = {.layer_macs = 100, .output_macs = 50, .weight_bytes = 1000};
  SpeedResult decode = {.test = {.n_gen = 10}, .seconds = {1, 2, 4}, .kv_read_bytes = 200};
  EXPECT_EQ(ReadPerSecond(decode, size), 6000);
  EXPECT_EQ(OpsPerSecond(decode, size), 0);
  SpeedResult prompt = {.test = {.n_prompt = 20, .parallel = 2}, .seconds = {4}};
  EXPECT_EQ(OpsPerSecond(prompt, size), 2 * 2 * (20 * 100 + 50) / 4.0);
  EXPECT_EQ(ReadPerSecond(prompt, size), 0);
}

}  // namespace
}  // namespace kvasir::bench
