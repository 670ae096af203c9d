#include "eval/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace kvasir {
namespace {

TokenFigures Token(uint32_t position, double p, double q, bool scored = true) {
  return {.position = position,
          .group = position / 4,
          .scored = scored,
          .divergence = {.nll_dense = -std::log(p),
                         .nll = -std::log(q),
                         .kl = p - q,
                         .dp = q - p,
                         .same_top1 = q > .5}};
}

TEST(Summarize, GivesTheWorkedExample) {
  const std::vector<TokenFigures> tokens = {Token(1, .7, .6), Token(2, .2, .1),
                                            Token(3, .5, .01, /*scored=*/false)};
  const QualityFigures figures = Summarize(tokens, true);
  EXPECT_EQ(figures.scored, 2u);
  EXPECT_NEAR(figures.ppl_dense, 2.6726, 1e-4);
  EXPECT_NEAR(figures.ppl, 4.0825, 1e-4);
  EXPECT_NEAR(figures.dppl.v, 1.4099, 1e-4);
  EXPECT_NEAR(figures.ratio, 1.5275, 1e-4);
  EXPECT_NEAR(figures.kl.mean, .1, 1e-12);
  EXPECT_NEAR(figures.rms_dp, .1, 1e-12);
  EXPECT_EQ(figures.top1, .5);
  EXPECT_FALSE(figures.dppl.interval);  // one group tells nothing of its like
  EXPECT_EQ(Summarize(tokens, false).scored, 3u);
}

TEST(Summarize, ResamplesDifferencesAndNotTheTwoPerplexities) {
  // Losses vary wildly from group to group, their difference hardly.
  std::vector<TokenFigures> tokens;
  for (uint32_t i = 0; i < 80; ++i) {
    const double p = i / 4 % 2 ? .9 : .001;
    tokens.push_back(Token(i, p, p * (i / 4 % 3 ? .9 : .91)));
  }
  const QualityFigures figures = Summarize(tokens, true);
  ASSERT_TRUE(figures.dppl.interval);
  EXPECT_LT(figures.dppl.interval->lo, figures.dppl.v);
  EXPECT_GT(figures.dppl.interval->hi, figures.dppl.v);
  const double width = figures.dppl.interval->hi - figures.dppl.interval->lo;
  EXPECT_LT(width, .01 * figures.ppl_dense);
  EXPECT_GT(width, .001 * figures.ppl_dense);
  EXPECT_FALSE(figures.dppl.DoubtfulSign());
}

TEST(Summarize, OfEqualDistributionsIsExactlyZero) {
  std::vector<TokenFigures> tokens;
  for (uint32_t i = 0; i < 80; ++i) tokens.push_back(Token(i, .6, .6));
  const QualityFigures figures = Summarize(tokens, true);
  EXPECT_EQ(figures.dppl, (Estimate{0, Interval{0, 0}}));
  EXPECT_EQ(figures.kl.max, 0);
  EXPECT_EQ(figures.kl.interval, (Interval{0, 0}));
  EXPECT_EQ(figures.top1, 1);
  EXPECT_EQ(figures.ratio, 1);
}

TEST(Summarize, TakesQuantilesOfTheDivergence) {
  std::vector<TokenFigures> tokens;
  for (uint32_t i = 0; i <= 100; ++i) tokens.push_back(Token(i, .5 + .001 * i, .5));
  const KlFigures kl = Summarize(tokens, true).kl;
  EXPECT_NEAR(kl.p50, .05, 1e-9);
  EXPECT_NEAR(kl.p90, .09, 1e-9);
  EXPECT_NEAR(kl.p99, .099, 1e-9);
  EXPECT_NEAR(kl.max, .1, 1e-9);
}

TEST(Buckets, DoubleInWidth) {
  std::vector<TokenFigures> tokens;
  for (uint32_t i = 1; i < 10; ++i) tokens.push_back(Token(i, .8, i < 8 ? .4 : .8, false));
  const std::vector<QualityBucket> buckets = Buckets(tokens);
  ASSERT_EQ(buckets.size(), 4u);
  EXPECT_EQ(buckets[0].begin, 1u);
  EXPECT_EQ(buckets[3].begin, 8u);
  EXPECT_EQ(buckets[3].end, 16u);
  EXPECT_EQ(buckets[3].scored, 2u);
  EXPECT_NEAR(buckets[3].ppl, 1.25, 1e-9);
  EXPECT_NEAR(buckets[2].ppl, 2.5, 1e-9);
  EXPECT_NEAR(buckets[2].ppl_dense, 1.25, 1e-9);
  EXPECT_EQ(buckets[2].top1, 0);
}

}  // namespace
}  // namespace kvasir
