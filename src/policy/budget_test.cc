#include "policy/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace kvasir {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<uint64_t> SpreadOver(std::vector<double> weights, std::vector<uint64_t> capacities,
                                 uint64_t total) {
  return Spread(weights, capacities, total);
}

TEST(Spread, HandsOutTheRestByLargestRemainder) {
  // Shares 17.5 12.5 7.5 2.5 of 40: two left after the floors, ties to the lower lanes.
  EXPECT_THAT(SpreadOver({17.5, 12.5, 7.5, 2.5}, {100, 100, 100, 100}, 40),
              ElementsAre(18, 13, 7, 2));
  // Shares 3.5 2.5.
  EXPECT_THAT(SpreadOver({3.5, 2.5}, {100, 100}, 6), ElementsAre(4, 2));
  // Shares 1.25 1.25 2.5: the largest remainder first.
  EXPECT_THAT(SpreadOver({1, 1, 2}, {9, 9, 9}, 5), ElementsAre(1, 1, 3));
}

TEST(Spread, GivesTheRemainderOfEqualLanesToTheLowerOnes) {
  EXPECT_THAT(SpreadOver({1, 1, 1, 1}, {9, 9, 9, 9}, 10), ElementsAre(3, 3, 2, 2));
}

TEST(Spread, ReturnsWhatALaneCannotTakeToTheRound) {
  EXPECT_THAT(SpreadOver({1, 1, 1}, {1, 9, 9}, 9), ElementsAre(1, 4, 4));
  // The surplus of lane 0 overflows lane 1, whose surplus goes to lane 2.
  EXPECT_THAT(SpreadOver({1, 1, 1}, {1, 4, 9}, 12), ElementsAre(1, 4, 7));
}

TEST(Spread, GivesEverythingWhenThereIsEnough) {
  EXPECT_THAT(SpreadOver({1, 5}, {3, 4}, 7), ElementsAre(3, 4));
  EXPECT_THAT(SpreadOver({1, 5}, {3, 4}, 100), ElementsAre(3, 4));
  EXPECT_THAT(SpreadOver({}, {}, 3), IsEmpty());
}

TEST(Spread, GivesNothingOfNothing) { EXPECT_THAT(SpreadOver({1, 5}, {3, 4}, 0), Each(0u)); }

TEST(Spread, TreatsAllZeroWeightsAsEqual) {
  EXPECT_THAT(SpreadOver({0, 0, 0}, {9, 9, 9}, 4), ElementsAre(2, 1, 1));
  EXPECT_THAT(SpreadOver({0, 1}, {9, 9}, 4), ElementsAre(0, 4));
  // A weightless lane takes what the others cannot hold.
  EXPECT_THAT(SpreadOver({0, 1, 0}, {9, 2, 9}, 5), ElementsAre(2, 2, 1));
}

TEST(Spread, AddsUpExactlyForRandomBudgets) {
  std::mt19937_64 rng(1);
  for (int round = 0; round < 20000; ++round) {
    const size_t layers = 1 + rng() % 8, heads = 1 + rng() % 8;
    std::vector<double> weights(layers * heads);
    std::vector<uint64_t> capacities(layers * heads);
    const uint64_t most = 1 + rng() % 5000;
    const int kind = static_cast<int>(rng() % 4);
    for (size_t i = 0; i < weights.size(); ++i) {
      const double uniform = static_cast<double>(rng() % 1000003) / 1000003;
      weights[i] = kind == 0   ? 1
                   : kind == 1 ? uniform
                   : kind == 2 ? uniform * uniform * 1e6
                               : static_cast<double>(rng() % 2);
      capacities[i] = rng() % (most + 1);
    }
    const uint64_t held = std::accumulate(capacities.begin(), capacities.end(), uint64_t{0});
    const uint64_t total = rng() % (held + 10);
    const std::vector<uint64_t> shares = Spread(weights, capacities, total);
    ASSERT_EQ(std::accumulate(shares.begin(), shares.end(), uint64_t{0}), std::min(total, held))
        << "round " << round;
    for (size_t i = 0; i < shares.size(); ++i) ASSERT_LE(shares[i], capacities[i]);
  }
}

TEST(PackedEntryBytes, CountsKeyValueAndPosition) {
  EXPECT_EQ(PackedEntryBytes({.n_layers = 1,
                              .n_kv_heads = 1,
                              .head_dim = 64,
                              .k_form = Codec::kF16,
                              .v_form = Codec::kF16}),
            64u * 2 * 2 + 4);
}

}  // namespace
}  // namespace kvasir
