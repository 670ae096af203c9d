#include "policy/streaming/streaming.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;

TEST(Streaming, ScoresRiseWithThePosition) {
  HandLane lane(2);
  lane.Add(3, {1, 0}).AddDead().Add(17, {1, 0}).Add(64, {9, 9});
  EXPECT_THAT(Scores(StreamingScorer(), BestKernels(), lane.View()), ElementsAre(0, 1, 2));
}

TEST(Streaming, KeepsSinksAndTheWindowOfEveryLane) {
  const LaneShape shape = F32Shape(2, 3, 4);
  const auto policy = MakePolicy("streaming:sink=3,recent=20,block=16", {.shape = shape});
  TestSequence sequence(shape, MaxDemand(shape, policy->MaxGrowth(300, 300, 0)), RandomKeys(4, 1));
  const auto state = policy->Begin({.shape = shape});
  sequence.Run(*state, 200, 300, nullptr, [&](const TestSequence::Step& step) {
    std::vector<uint32_t> expected;
    for (uint32_t p = 0; p < step.after.position; ++p) {
      // 3 + 20 - 1 stay after a commit, so that the next query sees 3 + 20 with itself.
      if (p < 3 || p + 19 >= step.after.position) expected.push_back(p);
    }
    for (const auto& [lane, positions] : sequence.AllPositions()) {
      ASSERT_EQ(positions, expected) << "at " << step.after.position;
    }
    for (const DropOp& drop : step.plan.drops) EXPECT_EQ(drop.head, kAllHeads);
  });
}

}  // namespace
}  // namespace kvasir
