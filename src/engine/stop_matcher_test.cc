#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(StopMatcher, FindsAStopThatBeganInEarlierText) {
  const StopMatcher matcher({"END"});
  const auto match = matcher.Find(
      "some EN"
      "D here",
      7);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->offset, 5u);
  EXPECT_EQ(*match->stop, "END");
}

TEST(StopMatcher, TakesTheEarliestOfSeveral) {
  const StopMatcher matcher({"later", "now"});
  EXPECT_EQ(matcher.Find("it is now or later", 0)->offset, 6u);
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  const StopMatcher matcher({"\n\nUser:", "##"});
  EXPECT_EQ(matcher.SafeLength("text\n\nUs"), 4u);
  EXPECT_EQ(matcher.SafeLength("text\n"), 4u);
  EXPECT_EQ(matcher.SafeLength("text #"), 5u);
  EXPECT_EQ(matcher.SafeLength("text"), 4u);
  EXPECT_EQ(matcher.SafeLength(""), 0u);
}

TEST(StopMatcher, IgnoresEmptyStops) {
  const StopMatcher matcher({""});
  EXPECT_FALSE(matcher.Find("anything", 0));
  EXPECT_EQ(matcher.SafeLength("anything"), 8u);
}

}  // namespace
}  // namespace kvasir
