#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace kvasir {
namespace {

TEST(RowScorer, GivesTheNegativeLogarithmOfTheSoftmax) {
  // p = (.7 .2 .1), shifted by a constant that must cancel.
  std::vector<float> logits;
  for (const double p : {.7, .2, .1}) logits.push_back(static_cast<float>(std::log(p) + 50));
  RowScorer score(nullptr);
  EXPECT_NEAR(score(logits, 0, 0).nll, -std::log(.7), 1e-5);
  EXPECT_NEAR(score(logits, 1, 0).nll, -std::log(.2), 1e-5);
  // Two tokens with probabilities .7 and .2: PPL 2.6726.
  const double mean = (score(logits, 0, 0).nll + score(logits, 1, 0).nll) / 2;
  EXPECT_NEAR(std::exp(mean), 2.6726, 1e-4);
}

TEST(RowScorer, BreaksTiesTowardsTheLowerId) {
  RowScorer score(nullptr);
  EXPECT_EQ(score(std::vector<float>{1, 3, 3, 2}, 0, 0).top1, 1);
}

TEST(RowScorer, SurvivesLogitsThatAreFarApart) {
  RowScorer score(nullptr);
  const std::vector<float> logits = {1e30f, -1e30f, -std::numeric_limits<float>::infinity()};
  EXPECT_EQ(score(logits, 0, 0).nll, 0);
  EXPECT_TRUE(std::isfinite(score(logits, 1, 0).nll));
}

TEST(RowScorer, RefusesNanAndNamesThePosition) {
  RowScorer score(nullptr);
  try {
    score(std::vector<float>{0, std::nanf("")}, 0, 17);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalid);
    EXPECT_NE(std::string(error.what()).find("position 17"), std::string::npos);
  }
}

TEST(RowScorer, HasTheSameBitsForAnyNumberOfWorkers) {
  std::vector<float> logits(50000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i)) * 10;
  RowScorer alone(nullptr);
  for (const size_t n : {1, 2, 3}) {
    Workers workers(n);
    RowScorer score(&workers);
    EXPECT_EQ(score(logits, 123, 0).nll, alone(logits, 123, 0).nll) << n;
  }
}

}  // namespace
}  // namespace kvasir
