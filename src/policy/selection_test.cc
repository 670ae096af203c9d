#include "policy/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<uint32_t> Drops(std::vector<float> scores, size_t keep,
                            std::vector<uint32_t> protected_indices = {}) {
  std::vector<uint8_t> is_protected(scores.size(), 0);
  for (const uint32_t i : protected_indices) is_protected[i] = 1;
  std::vector<uint32_t> candidates, drops;
  ReplaceNaN(scores);
  SelectDrops(scores, is_protected, keep, &candidates, &drops);
  return drops;
}

TEST(SelectDrops, DropsTheLowestScoresInAscendingOrder) {
  EXPECT_THAT(Drops({0.5f, 0.1f, 0.9f, 0.2f}, 2), ElementsAre(1, 3));
}

TEST(SelectDrops, KeepsLowerPositionsOnATie) {
  EXPECT_THAT(Drops({1, 1, 1, 1, 1}, 2), ElementsAre(2, 3, 4));
  EXPECT_THAT(Drops({0.0f, -0.0f, 0.0f}, 2), ElementsAre(2));
}

TEST(SelectDrops, DropsNothingWithinTheBudget) {
  EXPECT_THAT(Drops({1, 2, 3}, 3), IsEmpty());
  EXPECT_THAT(Drops({1, 2, 3}, 4), IsEmpty());
  EXPECT_THAT(Drops({}, 0), IsEmpty());
}

TEST(SelectDrops, KeepsProtectedEntriesWhateverTheScores) {
  EXPECT_THAT(Drops({3e38f, -3e38f, 3e38f, 3e38f}, 2, {1}), ElementsAre(2, 3));
  EXPECT_THAT(Drops({kInfinity, -kInfinity, kInfinity}, 1, {1}), ElementsAre(0, 2));
  EXPECT_THAT(Drops({1, kNaN, 1}, 1, {1}), ElementsAre(0, 2));
}

TEST(SelectDrops, KeepsAllProtectedEntriesWhenTheyExceedTheBudget) {
  EXPECT_THAT(Drops({1, 2, 3, 4}, 1, {0, 1, 2}), ElementsAre(3));
  EXPECT_THAT(Drops({1, 2}, 0, {0, 1}), IsEmpty());
}

TEST(SelectDrops, CountsNaNAsMinusInfinity) {
  EXPECT_THAT(Drops({kNaN, -5, 2}, 2), ElementsAre(0));
  // Equal to a true minus infinity: the lower position stays.
  EXPECT_THAT(Drops({-kInfinity, kNaN, 2}, 2), ElementsAre(1));
  EXPECT_THAT(Drops({kNaN, kNaN, kNaN}, 1), ElementsAre(1, 2));
}

TEST(SelectDrops, AgreesWithSortingForRandomScores) {
  std::mt19937 rng(3);
  for (int round = 0; round < 2000; ++round) {
    const size_t n = 1 + rng() % 300;
    std::vector<float> scores(n);
    for (float& score : scores) score = static_cast<float>(rng() % 50);  // many ties
    std::vector<uint32_t> protected_indices, order;
    for (uint32_t i = 0; i < n; ++i) (rng() % 5 == 0 ? protected_indices : order).push_back(i);
    const size_t keep = rng() % (n + 2);
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
    const size_t free = keep > protected_indices.size() ? keep - protected_indices.size() : 0;
    order.erase(order.begin(),
                order.begin() + static_cast<ptrdiff_t>(std::min(free, order.size())));
    std::sort(order.begin(), order.end());
    ASSERT_EQ(Drops(scores, keep, protected_indices), order) << "round " << round;
  }
}

// Scores as large as floats get, as coarse as bf16, infinite or no number at all.
TEST(SelectDrops, NeverDropsWhatIsProtected) {
  std::mt19937 rng(6);
  std::vector<uint32_t> candidates, drops;
  for (int round = 0; round < 100000; ++round) {
    const size_t n = 1 + rng() % 24, keep = rng() % (n + 2);
    std::vector<float> scores(n);
    std::vector<uint8_t> is_protected(n);
    size_t n_protected = 0;
    for (size_t i = 0; i < n; ++i) {
      // The upper half of a random float's bits is a bf16: all of them come, NaN included.
      scores[i] = std::bit_cast<float>(static_cast<uint32_t>(rng()) & 0xffff0000);
      if (rng() % 5 == 0) scores[i] = rng() % 2 == 0 ? 3e38f : -3e38f;
      is_protected[i] = rng() % 3 == 0;
      n_protected += is_protected[i];
    }
    ReplaceNaN(scores);
    SelectDrops(scores, is_protected, keep, &candidates, &drops);
    ASSERT_EQ(drops.size(), n - std::min(n, std::max(keep, n_protected)));
    ASSERT_TRUE(std::is_sorted(drops.begin(), drops.end()));
    std::set<uint32_t> gone(drops.begin(), drops.end());
    ASSERT_EQ(gone.size(), drops.size());
    for (const uint32_t drop : drops) {
      ASSERT_EQ(is_protected[drop], 0) << "round " << round;
      for (size_t i = 0; i < n; ++i) {  // nobody who stays was worse
        if (is_protected[i] == 0 && !gone.contains(static_cast<uint32_t>(i))) {
          ASSERT_GE(scores[i], scores[drop]);
        }
      }
    }
  }
}

TEST(ReplaceNaN, CountsWhatItReplaces) {
  std::vector<float> scores = {1, kNaN, -kNaN, kInfinity};
  EXPECT_EQ(ReplaceNaN(scores), 2u);
  EXPECT_THAT(scores, ElementsAre(1, -kInfinity, -kInfinity, kInfinity));
}

TEST(MergeSpans, JoinsSpansThatTouchOrOverlap) {
  EXPECT_THAT(MergeSpans({{8, 9}, {0, 4}, {4, 6}, {2, 3}, {7, 7}}),
              ElementsAre(Pair(0, 6), Pair(8, 9)));
  EXPECT_THAT(MergeSpans({}), IsEmpty());
}

TEST(MarkCovered, MarksPositionsInsideSpans) {
  std::vector<uint8_t> covered = {9};
  MarkCovered(std::vector<uint32_t>{0, 3, 4, 9, 10, 70}, std::vector<PositionSpan>{{2, 4}, {9, 70}},
              &covered);
  EXPECT_THAT(covered, ElementsAre(0, 1, 0, 1, 1, 0));
  MarkCovered({}, std::vector<PositionSpan>{{2, 4}}, &covered);
  EXPECT_THAT(covered, IsEmpty());
}

TEST(GatherPositions, ListsLiveEntriesOfPackedAndAlignedPages) {
  HandLane lane(2);
  lane.Add(3, {1, 0}).AddDead().Add(17, {1, 0});
  lane.Page().AddDead().Add(64, {0, 1});
  std::vector<uint32_t> positions;
  GatherPositions(lane.View(), &positions);
  EXPECT_THAT(positions, ElementsAre(3, 17, 64));

  PageView aligned;
  aligned.base = 128;
  aligned.filled = 4;
  aligned.live = 0b1011;
  GatherPositions({&aligned, 1, 3, 2}, &positions);
  EXPECT_THAT(positions, ElementsAre(128, 129, 131));
}

}  // namespace
}  // namespace kvasir
