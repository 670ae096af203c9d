#include "policy/random/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::Ge;
using ::testing::Lt;

std::vector<float> ScoresAt(uint64_t seed, std::vector<uint32_t> positions, uint32_t layer = 0,
                            uint32_t head = 0) {
  HandLane lane(1);
  for (const uint32_t position : positions) lane.Add(position, {1});
  return Scores(RandomScorer(seed), BestKernels(), lane.View(), layer, head);
}

TEST(Random, AScoreDependsOnSeedLaneAndPositionAlone) {
  const std::vector<float> scores = ScoresAt(5, {2, 7, 90}, 1, 2);
  EXPECT_EQ(ScoresAt(5, {7}, 1, 2)[0], scores[1]);  // whoever is in the lane beside it
  EXPECT_NE(ScoresAt(6, {7}, 1, 2)[0], scores[1]);
  EXPECT_NE(ScoresAt(5, {8}, 1, 2)[0], scores[1]);
  EXPECT_NE(ScoresAt(5, {7}, 2, 2)[0], scores[1]);
  EXPECT_NE(ScoresAt(5, {7}, 1, 3)[0], scores[1]);
  EXPECT_NE(ScoresAt(5, {7}, 2, 1)[0], scores[1]);  // layer and head are not exchangeable
}

TEST(Random, ScoresAreUniform) {
  std::vector<uint32_t> positions(20000);
  for (uint32_t i = 0; i < positions.size(); ++i) positions[i] = i;
  const std::vector<float> scores = ScoresAt(0, positions);
  EXPECT_THAT(scores, Each(AllOf(Ge(0.0f), Lt(1.0f))));
  std::vector<int> tenths(10, 0);
  for (const float score : scores) ++tenths[static_cast<size_t>(score * 10)];
  for (const int n : tenths) {
    EXPECT_GT(n, 1800);  // 2000 expected, standard deviation 42
    EXPECT_LT(n, 2200);
  }
}

TEST(Random, KeepsAnEvenSampleOfTheWholePast) {
  // A draw per block instead of one for all would leave little of the first blocks.
  const LaneShape shape = F32Shape(8, 8, 1);
  const auto policy = MakePolicy("random:budget=64,block=32", {.shape = shape});
  TestSequence sequence(shape, MaxDemand(shape, policy->MaxGrowth(512, 512, 0)), RandomKeys(1, 1));
  const auto state = policy->Begin({.shape = shape});
  sequence.Run(*state, 512, 512);
  std::vector<int> quarters(4, 0);
  std::set<std::vector<uint32_t>> samples;
  for (const auto& [lane, positions] : sequence.AllPositions()) {
    samples.insert(positions);
    for (const uint32_t position : positions) ++quarters[position / 128];
  }
  for (const int n : quarters) EXPECT_NEAR(n, 64 * 64 / 4, 120);  // standard deviation about 26
  EXPECT_EQ(samples.size(), 64u) << "lanes share a sample";
}

}  // namespace
}  // namespace kvasir
