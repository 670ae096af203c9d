#include "policy/schedule.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

constexpr uint64_t kLanes = 6;

GridSchedule Make(uint64_t budget, uint32_t block, uint32_t slack) {
  GridParams params;
  params.budget = budget;
  params.block = block;
  params.slack = slack;
  return GridSchedule(params);
}

TEST(Schedule, CutsPromptsAtAbsoluteMultiplesAndAtTheirEnd) {
  const GridSchedule schedule = Make(100, 16, 0);
  EXPECT_EQ(schedule.MaxRows({0, 50}, {0, kLanes}), 16u);
  EXPECT_EQ(schedule.MaxRows({16, 50}, {16 * kLanes, kLanes}), 16u);
  EXPECT_EQ(schedule.MaxRows({48, 50}, {48 * kLanes, kLanes}), 2u);
  EXPECT_EQ(schedule.MaxRows({0, 5}, {0, kLanes}), 5u);
  // A prompt that continues off the grid ends its first block at the next multiple.
  EXPECT_EQ(schedule.MaxRows({21, 90}, {21 * kLanes, kLanes}), 11u);
}

TEST(Schedule, LetsGenerationRunUntilALaneExceedsTheBudget) {
  const GridSchedule schedule = Make(100, 16, 10);
  EXPECT_EQ(schedule.MaxRows({200, 150}, {100 * kLanes, kLanes}), 1u);
  EXPECT_EQ(schedule.MaxRows({200, 150}, {90 * kLanes, kLanes}), 11u);
  EXPECT_EQ(schedule.MaxRows({40, 40}, {40 * kLanes, kLanes}), 61u);
  // Above the budget, as after a prompt that was given up inside a block: still one row.
  EXPECT_EQ(schedule.MaxRows({200, 150}, {110 * kLanes, kLanes}), 1u);
}

TEST(Schedule, PlansInThePromptOnTheGridOnly) {
  const GridSchedule schedule = Make(20, 16, 5);
  EXPECT_EQ(schedule.Target({30, 50}, {30 * kLanes, kLanes}), std::nullopt);
  EXPECT_EQ(schedule.Target({32, 50}, {32 * kLanes, kLanes}), 20 * kLanes);
  EXPECT_EQ(schedule.Target({50, 50}, {22 * kLanes, kLanes}), 20 * kLanes);
  EXPECT_EQ(schedule.Target({16, 50}, {16 * kLanes, kLanes}), std::nullopt);
  EXPECT_EQ(schedule.Target({32, 50}, {20 * kLanes, kLanes}), std::nullopt);
}

TEST(Schedule, DropsToTheSlackInGeneration) {
  const GridSchedule schedule = Make(20, 16, 5);
  EXPECT_EQ(schedule.Target({51, 50}, {21 * kLanes, kLanes}), 15 * kLanes);
  EXPECT_EQ(schedule.Target({51, 50}, {20 * kLanes, kLanes}), std::nullopt);
  // The grid is the prompt's: a multiple of the block means nothing here.
  EXPECT_EQ(schedule.Target({64, 50}, {16 * kLanes, kLanes}), std::nullopt);
}

TEST(Schedule, CountsEntriesOfAllLanesTogether) {
  const GridSchedule schedule = Make(20, 16, 0);
  // Two lanes hold everything, four hold less: the mean decides.
  EXPECT_EQ(schedule.Target({51, 50}, {20 * kLanes + 1, kLanes}), 20 * kLanes);
  EXPECT_EQ(schedule.MaxRows({51, 50}, {20 * kLanes - 7, kLanes}), 2u);
}

TEST(Schedule, AKeptFractionGrowsWithTheTokensSeen) {
  GridParams params;
  params.keep = 0.25;
  params.block = 16;
  params.sink = 2;
  const GridSchedule schedule(params);
  EXPECT_EQ(params.Budget(16, 3), 6u);  // protected and one more
  EXPECT_EQ(params.Budget(100, 3), 25u);
  EXPECT_EQ(params.Budget(103, 3), 25u);
  EXPECT_EQ(schedule.Target({32, 99}, {22 * kLanes, kLanes, 3}), 8 * kLanes);
  // Slack follows the budget of the moment: 512 / 16.
  EXPECT_EQ(schedule.Target({2048, 99}, {513 * kLanes, kLanes, 3}), (512 - 32) * kLanes);
}

TEST(Schedule, AFractionThatIsAWholeNumberIsNotRoundedDown) {
  GridParams params;
  params.keep = 0.29;
  EXPECT_EQ(params.Budget(100, 0), 29u);
  params.keep = 0.7;
  EXPECT_EQ(params.Budget(10, 0), 7u);
}

}  // namespace
}  // namespace kvasir
