#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace kvasir {
namespace {

SamplingParams Plain(float temperature) {
  return {.temperature = temperature, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 1};
}

std::map<int32_t, int> Draws(const SamplingParams& params, const std::vector<float>& logits,
                             int n) {
  Sampler sampler(params, {});
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) ++counts[sampler.Sample(logits)];
  return counts;
}

TEST(Sampler, GreedyTakesTheLowestIdOnATie) {
  Sampler sampler(Plain(0), {});
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 3, 2, 3}), 1);
}

TEST(Sampler, DrawsInProportionToTheSoftmax) {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};  // 1 : 2 : 5
  const auto counts = Draws(Plain(1), logits, 40000);
  EXPECT_NEAR(counts.at(0) / 40000.0, 1 / 8.0, 0.01);
  EXPECT_NEAR(counts.at(1) / 40000.0, 2 / 8.0, 0.01);
  EXPECT_NEAR(counts.at(2) / 40000.0, 5 / 8.0, 0.01);
}

TEST(Sampler, TemperatureSharpensBeforeTheCuts) {
  // At temperature 0.5 the weights 1 : 2 : 5 become 1 : 4 : 25; top-p 0.8 then keeps only the last.
  SamplingParams params = Plain(0.5f);
  params.top_p = 0.8f;
  const auto counts = Draws(params, {0, std::log(2.0f), std::log(5.0f)}, 200);
  EXPECT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts.begin()->first, 2);
}

TEST(Sampler, TopKKeepsTheKLikeliest) {
  SamplingParams params = Plain(1);
  params.top_k = 2;
  const auto counts = Draws(params, {1, 1.1f, 0.9f, 1.2f}, 2000);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(1));
  EXPECT_TRUE(counts.contains(3));
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheMass) {
  SamplingParams params = Plain(1);
  params.top_p = 0.7f;  // 5/8 < 0.7 <= 7/8: two stay
  const auto counts = Draws(params, {0, std::log(2.0f), std::log(5.0f)}, 2000);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_FALSE(counts.contains(0));
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  SamplingParams params = Plain(1);
  params.min_p = 0.3f;  // below 0.3 x 5: drops 1, keeps 2
  const auto counts = Draws(params, {0, std::log(2.0f), std::log(5.0f)}, 2000);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_FALSE(counts.contains(0));
}

TEST(Sampler, RepeatPenaltyCountsThePromptAndWorksOnBothSigns) {
  SamplingParams params = Plain(0);
  params.repeat_penalty = 2;
  const std::vector<int32_t> prompt = {0, 2};
  Sampler positive(params, prompt);
  EXPECT_EQ(positive.Sample(std::vector<float>{3, 2, 3}), 1);  // 1.5 2 1.5
  Sampler negative(params, prompt);
  EXPECT_EQ(negative.Sample(std::vector<float>{-1, -1.5f, -1}), 1);  // -2 -1.5 -2
}

TEST(Sampler, PresenceAndFrequencyCountGeneratedTokensOnly) {
  SamplingParams params = Plain(0);
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.4f;
  Sampler sampler(params, std::vector<int32_t>{0});
  const std::vector<float> logits = {1, 0.2f, -1};
  EXPECT_EQ(sampler.Sample(logits), 0);  // the prompt does not count
  EXPECT_EQ(sampler.Sample(logits), 1);  // 1 - 0.5 - 0.4 = 0.1 < 0.2
  EXPECT_EQ(sampler.Sample(logits), 0);  // 0.1 against 0.2 - 0.9
}

TEST(Sampler, SameSeedSameTokens) {
  SamplingParams params;
  params.seed = 42;
  std::vector<float> logits(500);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i * i));
  Sampler a(params, {}), b(params, {});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.Sample(logits), b.Sample(logits));
}

TEST(Sampler, RefusesNaN) {
  Sampler sampler(Plain(0), {});
  EXPECT_THROW(sampler.Sample(std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()}),
               Error);
}

}  // namespace
}  // namespace kvasir
