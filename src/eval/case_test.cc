#include "eval/case.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

template <typename F>
std::string Refusal(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(WithBlock, AddsABlockWhereTheMethodHasOneAndTheCaseNamesNone) {
  EXPECT_EQ(WithBlock("keydiff:budget=9", 32), "keydiff:budget=9,block=32");
  EXPECT_EQ(WithBlock("keydiff", 32), "keydiff:block=32");
  EXPECT_EQ(WithBlock("keydiff:block=64,budget=9", 32), "keydiff:block=64,budget=9");
  EXPECT_EQ(WithBlock("none", 32), "none");
  EXPECT_EQ(WithBlock("nobody:x=1", 32), "nobody:x=1");  // refused by whoever makes the policy
}

TEST(OptionsFor, LetABudgetFollowOnlyFromMemoryThatTheCaseNames) {
  EngineOptions common;
  common.kv_memory = 1000;
  common.chunk = 77;
  EvalCase c{.label = "a", .policy = "keydiff", .encoding = {.k = Codec::kQ8}};
  EngineOptions options = OptionsFor(c, common, 0);
  EXPECT_FALSE(options.kv_memory_explicit);
  EXPECT_EQ(options.kv_memory, 1000u);
  EXPECT_EQ(options.policy, "keydiff");
  EXPECT_EQ(options.encoding.k, Codec::kQ8);
  EXPECT_EQ(options.encoding.v, Codec::kF16);
  EXPECT_EQ(options.chunk, 77u);
  c.kv_memory = 5000;
  options = OptionsFor(c, common, 16);
  EXPECT_TRUE(options.kv_memory_explicit);
  EXPECT_EQ(options.kv_memory, 5000u);
  EXPECT_EQ(options.policy, "keydiff:block=16");
}

TEST(PolicyValue, ReadsCanonicalSpecs) {
  const std::string spec = "keydiff:budget=1024,block=32,pin=system";
  EXPECT_EQ(PolicyName(spec), "keydiff");
  EXPECT_EQ(PolicyName("none"), "none");
  EXPECT_EQ(PolicyValue(spec, "block"), "32");
  EXPECT_EQ(PolicyValue(spec, "keep"), "");
  EXPECT_EQ(PolicyValue("none", "block"), "");
}

TEST(NominalRatio, IsWhatTheSpecPromises) {
  EXPECT_EQ(NominalRatio("keydiff:budget=1024,block=32", 8192), 8);
  EXPECT_EQ(NominalRatio("keydiff:budget=1024,block=32", 100), 1);
  EXPECT_EQ(NominalRatio("keydiff:keep=0.25", 100), 4);
  EXPECT_EQ(NominalRatio("rpc:every=4096,ratio=4", 100), 4);
  EXPECT_EQ(NominalRatio("none", 100), std::nullopt);
}

TEST(Cases, AreExpandedByTheSweepWhereTheyTakeIt) {
  const Sweep sweep = ParseSweep("budget=512,1024");
  EXPECT_THAT(
      ExpandCases({"kd=--kv-policy keydiff:budget={budget}", "q8=--kv-codec q8",
                   "s{budget}=--kv-policy streaming:budget={budget},sink={budget}"},
                  sweep),
      ElementsAre(Pair("kd@512", "--kv-policy keydiff:budget=512"),
                  Pair("kd@1024", "--kv-policy keydiff:budget=1024"), Pair("q8", "--kv-codec q8"),
                  Pair("s512", "--kv-policy streaming:budget=512,sink=512"),
                  Pair("s1024", "--kv-policy streaming:budget=1024,sink=1024")));
}

TEST(Cases, ThatSayNothingAreRefused) {
  EXPECT_THAT(Refusal([] { ExpandCases({"--kv-codec q8"}, {}); }), HasSubstr("LABEL='FLAGS'"));
  EXPECT_THAT(Refusal([] { ExpandCases({"=x"}, {}); }), HasSubstr("LABEL='FLAGS'"));
  EXPECT_THAT(Refusal([] { ExpandCases({"dense=x"}, {}); }), HasSubstr("reference"));
  EXPECT_THAT(Refusal([] { ExpandCases({"a=x", "a=y"}, {}); }), HasSubstr("given twice"));
  EXPECT_THAT(Refusal([] { ExpandCases({"a=x"}, ParseSweep("budget=1")); }),
              HasSubstr("no case has {budget}"));
  for (const char* text : {"budget", "=1", "budget=", "budget=1,,2"}) {
    EXPECT_THAT(Refusal([&] { ParseSweep(text); }), HasSubstr("NAME=VALUE")) << text;
  }
}

}  // namespace
}  // namespace kvasir
