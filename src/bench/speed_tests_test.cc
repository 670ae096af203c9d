#include "bench/speed_tests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Refusal(std::string_view text) {
  try {
    ParseNumbers(text, "--n-gen");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(ParseNumbers, ReadsListsAndRanges) {
  EXPECT_THAT(ParseNumbers("512", "-p"), ElementsAre(512));
  EXPECT_THAT(ParseNumbers("0,8192", "-p"), ElementsAre(0, 8192));
  EXPECT_THAT(ParseNumbers("3-6", "-p"), ElementsAre(3, 4, 5, 6));
  EXPECT_THAT(ParseNumbers("10-31+10", "-p"), ElementsAre(10, 20, 30));
  EXPECT_THAT(ParseNumbers("10-30+10", "-p"), ElementsAre(10, 20, 30));
  EXPECT_THAT(ParseNumbers("128-1024*2", "-p"), ElementsAre(128, 256, 512, 1024));
  EXPECT_THAT(ParseNumbers("7-7,1,2-8*4", "-p"), ElementsAre(7, 1, 2, 8));
}

TEST(ParseNumbers, RefusesWhatIsNone) {
  for (const char* text : {"", "a", "1,", ",1", "1-", "-1", "5-3", "1-9+", "1-9/2", "1 ", "1.5",
                           "99999999999999999999", "100000001"}) {
    EXPECT_THAT(Refusal(text), HasSubstr("--n-gen")) << text;
  }
  EXPECT_THAT(Refusal("1-9+0"), HasSubstr("lead nowhere"));
  EXPECT_THAT(Refusal("1-9*1"), HasSubstr("lead nowhere"));
  EXPECT_THAT(Refusal("0-9*2"), HasSubstr("lead nowhere"));
  EXPECT_THAT(Refusal("1-100000"), HasSubstr("more than 1000"));
  EXPECT_EQ(ParseNumbers("1-1000", "-p").size(), 1000u);
}

TEST(SpeedTest, HasTheNamesOfLlamaBench) {
  EXPECT_EQ(Name({.n_prompt = 512}), "pp512");
  EXPECT_EQ(Name({.n_gen = 128, .depth = 8192}), "tg128 @ d8192");
  EXPECT_EQ(Name({.n_prompt = 512, .n_gen = 128}), "pp512+tg128");
  EXPECT_EQ(Name({.n_gen = 16, .depth = 64, .parallel = 8}), "tg16 x8 @ d64");
}

TEST(MakeSpeedTests, MakesEveryTestAtEveryDepth) {
  const auto tests = MakeSpeedTests("0,512", "16", {"64,8"}, "0,100", 2);
  EXPECT_THAT(tests, ElementsAre(SpeedTest{512, 0, 0, 2}, SpeedTest{0, 16, 0, 2},
                                 SpeedTest{64, 8, 0, 2}, SpeedTest{512, 0, 100, 2},
                                 SpeedTest{0, 16, 100, 2}, SpeedTest{64, 8, 100, 2}));
  EXPECT_TRUE(MakeSpeedTests("0", "0", {}, "0", 1).empty());
  for (const char* pair : {"64", "64,0", "0,8", "1,2,3", "x"}) {
    EXPECT_THROW(MakeSpeedTests("0", "0", {pair}, "0", 1), Error) << pair;
  }
}

TEST(SpeedTest, CountsTokensOfAllSequences) {
  EXPECT_EQ((SpeedTest{.n_prompt = 512, .n_gen = 128, .depth = 10, .parallel = 3}.tokens()), 1920u);
}

}  // namespace
}  // namespace kvasir::bench
