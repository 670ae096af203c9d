#include "kv/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

TEST(Plan, PrintsOneOperationALine) {
  const Plan plan = {.drops = {{.layer = 0, .head = 1, .indices = {3, 4, 9}},
                               {.layer = 2, .head = kAllHeads, .indices = {0}}},
                     .protects = {{.begin = 0, .end = 32}}};
  EXPECT_EQ(plan.ToText(),
            "drop layer=0 head=1: 3 4 9\n"
            "drop layer=2 head=all: 0\n"
            "protect: 0 32\n");
}

TEST(Plan, ParsesBackWhatItPrinted) {
  const Plan plan = {.drops = {{.layer = 7, .head = 0, .indices = {1, 4294967295}},
                               {.layer = 0, .head = 2147483647, .indices = {}}},
                     .protects = {{.begin = 5, .end = 6}, {.begin = 0, .end = 4294967295}}};
  EXPECT_EQ(Plan::FromText(plan.ToText()), plan);
  EXPECT_TRUE(Plan::FromText("").empty());
  EXPECT_TRUE(Plan::FromText("\n  \n").empty());
  EXPECT_EQ(Plan::FromText("protect: 1 2"), Plan::FromText("protect: 1 2\n"));
}

TEST(Plan, RefusesLinesThatAreNoOperationAndNamesThem) {
  for (const char* text :
       {"keep layer=0 head=1: 3", "drop layer= head=1: 3", "drop layer=0 head=one: 3",
        "drop layer=0 head=1 3", "drop layer=0 head=1: 3,4", "drop layer=0 head=1: 4 3",
        "drop layer=0 head=1: 3 3", "drop layer=0 head=1: -3", "drop layer=4294967296 head=1: 3",
        "drop layer=0 head=2147483648: 3", "protect: 3", "protect: 3 3", "protect: 3 4 5"}) {
    try {
      Plan::FromText("protect: 0 1\n" + std::string(text) + "\n");
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalid);
      EXPECT_THAT(error.what(), testing::HasSubstr("line 2"));
      EXPECT_THAT(error.what(), testing::HasSubstr(text));
    }
  }
}

TEST(Plan, IsEmptyAfterClear) {
  Plan plan = Plan::FromText("drop layer=0 head=all: 1\nprotect: 0 1\n");
  EXPECT_FALSE(plan.empty());
  plan.Clear();
  EXPECT_TRUE(plan.empty());
}

}  // namespace
}  // namespace kvasir
