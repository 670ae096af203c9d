#include "eval/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"

namespace kvasir {
namespace {

// Logits of these probabilities, shifted by something that must cancel.
std::vector<float> LogitsOf(const std::vector<double>& probabilities, double shift) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}
const std::vector<float> kP = LogitsOf({.7, .2, .1}, 20), kQ = LogitsOf({.6, .1, .3}, -3);

std::string Refusal(const std::vector<float>& dense, const std::vector<float>& other) {
  try {
    Compare(dense, other, 0, 17);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalid);
    return error.what();
  }
  return "accepted";
}

TEST(Compare, GivesTheWorkedExample) {
  const Divergence first = Compare(kP, kQ, 0, 0), second = Compare(kP, kQ, 1, 0);
  EXPECT_NEAR(first.kl, .1367, 5e-5);
  EXPECT_NEAR(Compare(kQ, kP, 0, 0).kl, .1678, 5e-5);
  EXPECT_EQ(first.kl, second.kl);
  EXPECT_NEAR(first.dp, -.1, 1e-5);
  EXPECT_NEAR(second.dp, -.1, 1e-5);
  EXPECT_TRUE(first.same_top1);
  const double ppl_dense = std::exp((first.nll_dense + second.nll_dense) / 2);
  const double ppl = std::exp((first.nll + second.nll) / 2);
  EXPECT_NEAR(ppl_dense, 2.6726, 1e-4);
  EXPECT_NEAR(ppl, 4.0825, 1e-4);
  EXPECT_NEAR(ppl - ppl_dense, 1.4099, 1e-4);
  const double difference = (first.nll - first.nll_dense + second.nll - second.nll_dense) / 2;
  EXPECT_NEAR(difference, .4236, 1e-4);
  EXPECT_NEAR(std::exp(difference), 1.5275, 1e-4);
}

TEST(Compare, OfEqualRowsIsExactlyZero) {
  std::vector<float> row(50000);
  for (size_t i = 0; i < row.size(); ++i) row[i] = 10 * std::sin(static_cast<float>(i));
  const Divergence same = Compare(row, row, 4711, 0);
  EXPECT_EQ(same.kl, 0);
  EXPECT_EQ(same.dp, 0);
  EXPECT_EQ(same.nll, same.nll_dense);
  EXPECT_TRUE(same.same_top1);
}

// The definition by plain loops.
TEST(Compare, AgreesWithPlainLoops) {
  for (const size_t n : {2u, 511u, 512u, 513u, 49152u}) {
    std::vector<float> dense(n), other(n);
    for (size_t i = 0; i < n; ++i) {
      const auto x = static_cast<float>(i);
      dense[i] = 9 * std::sin(x) - (i % 7 == 3 ? 700 : 0);
      other[i] = dense[i] + 0.3f * std::sin(2.1f * x) + 5;
    }
    const size_t target = n / 2;
    double sum_p = 0, sum_q = 0, kl = 0;
    for (size_t i = 0; i < n; ++i)
      sum_p += std::exp(double{dense[i]}), sum_q += std::exp(double{other[i]});
    const auto log_p = [&](size_t i) { return dense[i] - std::log(sum_p); };
    const auto log_q = [&](size_t i) { return other[i] - std::log(sum_q); };
    for (size_t i = 0; i < n; ++i) kl += std::exp(log_p(i)) * (log_p(i) - log_q(i));
    const Divergence d = Compare(dense, other, static_cast<int32_t>(target), 0);
    EXPECT_NEAR(d.kl, kl, 1e-12) << n;
    EXPECT_NEAR(d.nll_dense, -log_p(target), 1e-12) << n;
    EXPECT_NEAR(d.nll, -log_q(target), 1e-12) << n;
    EXPECT_NEAR(d.dp, std::exp(log_q(target)) - std::exp(log_p(target)), 1e-12) << n;
  }
}

TEST(Compare, SeesSmallDivergences) {
  // KL of p = .5 + d against .5 is 2 d^2 + O(d^4).
  const double d = 1e-3;
  const std::vector<float> p = {static_cast<float>(std::log((.5 + d) / (.5 - d))), 0}, q = {0, 0};
  EXPECT_NEAR(Compare(p, q, 0, 0).kl, 2 * d * d, 1e-9);
}

TEST(Compare, BreaksTiesTowardsTheLowerId) {
  EXPECT_TRUE(Compare(std::vector<float>{1, 3, 3}, std::vector<float>{0, 4, 1}, 0, 0).same_top1);
  EXPECT_FALSE(Compare(std::vector<float>{1, 3, 3}, std::vector<float>{0, 1, 4}, 0, 0).same_top1);
}

TEST(Compare, TakesImpossibleTokensWhereBothAgreeOrTheDenseOneDoes) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<float> without = {0, 0, never}, with = {0, 0, 0};
  EXPECT_EQ(Compare(without, without, 0, 0).kl, 0);
  EXPECT_NEAR(Compare(without, with, 0, 0).kl, std::log(1.5), 1e-12);
  EXPECT_THAT(Refusal(with, without), testing::HasSubstr("position 17"));
}

TEST(Compare, RefusesWhatIsNoNumberOnEitherSide) {
  const std::vector<float> good = {0, 1}, bad = {0, std::nanf("")},
                           huge = {0, std::numeric_limits<float>::infinity()};
  for (const std::string& said : {Refusal(bad, good), Refusal(good, bad), Refusal(good, huge)}) {
    EXPECT_THAT(said, testing::HasSubstr("position 17: token 1"));
  }
}

TEST(Compare, SurvivesLogitsThatAreFarApart) {
  const Divergence far =
      Compare(std::vector<float>{1e30f, -1e30f}, std::vector<float>{1e30f, 0}, 0, 0);
  EXPECT_EQ(far.kl, 0);
  EXPECT_EQ(far.nll, 0);
}

}  // namespace
}  // namespace kvasir
