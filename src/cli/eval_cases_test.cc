#include "cli/eval_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

std::vector<EvalCase> Cases(std::vector<std::string_view> args) {
  for (const CliVerb& verb : AllVerbs()) {
    if (verb.bit == kEval) return EvalCases(ParseArguments(verb, args));
  }
  return {};
}

std::string Refusal(const std::vector<std::string_view>& args) {
  try {
    Cases(args);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(EvalCases, BeginWithDense) {
  const auto cases = Cases({});
  ASSERT_EQ(cases.size(), 1u);
  EXPECT_EQ(cases[0].label, "dense");
  EXPECT_TRUE(cases[0].reference);
  EXPECT_EQ(cases[0].policy, "none");
  EXPECT_EQ(cases[0].codec, "f16");
  EXPECT_EQ(Cases({"--compute", "f32"})[0].codec, "f32");
  EXPECT_EQ(Cases({"--reference", "f32"})[0].encoding.k, Codec::kF32);
}

TEST(EvalCases, ComeFromCaseFlags) {
  const auto cases = Cases({"--case", "kd=--kv-policy keydiff:budget=9 --kv-memory 1MiB", "--case",
                            "mix=--kv-codec q8:for=k  -ctv q4_0"});
  ASSERT_EQ(cases.size(), 3u);
  EXPECT_EQ(cases[1].label, "kd");
  EXPECT_EQ(cases[1].policy, "keydiff:budget=9");
  EXPECT_EQ(cases[1].kv_memory, 1u << 20);
  EXPECT_FALSE(cases[1].Encodes(cases[0]));
  EXPECT_EQ(cases[2].codec, "k=q8,v=q4");
  EXPECT_TRUE(cases[2].Encodes(cases[0]));
  EXPECT_FALSE(cases[2].kv_memory);
}

TEST(EvalCases, PlainFlagsAreOneAndLeaveTheOthersAlone) {
  const auto cases = Cases({"--kv-policy", "keydiff:budget=9", "--kv-codec", "q8", "--case",
                            "x=--kv-policy random:budget=9"});
  ASSERT_EQ(cases.size(), 3u);
  EXPECT_EQ(cases[0].codec, "f16");
  EXPECT_EQ(cases[1].label, "keydiff:budget=9 q8");
  EXPECT_EQ(cases[1].flags, "--kv-policy keydiff:budget=9 --kv-codec q8");
  EXPECT_EQ(cases[2].codec, "f16");
  EXPECT_EQ(cases[2].policy, "random:budget=9");
  EXPECT_EQ(Cases({"--kv-memory", "1MiB"})[1].label, "f16");
}

TEST(EvalCases, AreSwept) {
  const auto cases =
      Cases({"--sweep", "budget=8,16", "--case", "kd=--kv-policy keydiff:budget={budget}"});
  ASSERT_EQ(cases.size(), 3u);
  EXPECT_EQ(cases[2].label, "kd@16");
  EXPECT_EQ(cases[2].policy, "keydiff:budget=16");
}

TEST(EvalCases, RefuseFlagsThatAreNotOfACase) {
  EXPECT_THAT(Refusal({"--case", "a=--threads 3"}),
              HasSubstr("--case a: --threads is no flag of a case"));
  EXPECT_THAT(Refusal({"--case", "a=--help"}), HasSubstr("--help"));
  EXPECT_THAT(Refusal({"--case", "a=--kv-polcy x"}), HasSubstr("did you mean --kv-policy"));
  EXPECT_THAT(Refusal({"--case", "a=--kv-codec q7"}), HasSubstr("unknown codec"));
  EXPECT_THAT(Refusal({"--case", "a=b=--kv-codec q8"}), HasSubstr("--case a:"));
}

}  // namespace
}  // namespace kvasir
