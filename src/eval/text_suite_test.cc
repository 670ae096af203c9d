#include "eval/text_suite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

TextSuite Parse(std::string_view text) { return ParseTextSuite(SplitSpec(text, "--suite")); }

std::string Refusal(std::string_view text) {
  try {
    Parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(TextSuite, ReadsItsKeysAndWritesThemBack) {
  EXPECT_EQ(Parse("ppl:file=a.txt").Spec(), "ppl:file=a.txt,mode=stream,tokens=0,block=32");
  const TextSuite windows = Parse("ppl:file=a.txt,mode=windows,tokens=4096,block=64");
  EXPECT_EQ(windows.protocol.mode, TextMode::kWindows);
  EXPECT_EQ(windows.protocol.window, 512u);
  const TextSuite forced = Parse("ppl:mode=forced,p=128,file=a.txt,block=16,tokens=200");
  EXPECT_EQ(forced.protocol.prompt, 128u);
  for (const TextSuite& suite : {windows, forced}) {
    EXPECT_EQ(Parse(suite.Spec()).Spec(), suite.Spec());
  }
}

TEST(TextSuite, RefusesWhatItsModeHasNoUseFor) {
  EXPECT_THAT(Refusal("ppl"), HasSubstr("file=TEXT is missing"));
  EXPECT_THAT(Refusal("ppl:file=a,window=9"), HasSubstr("mode=windows"));
  EXPECT_THAT(Refusal("ppl:file=a,p=9"), HasSubstr("mode=forced"));
  EXPECT_THAT(Refusal("ppl:file=a,mode=forced"), HasSubstr("needs p=N"));
  EXPECT_THAT(Refusal("ppl:file=a,mode=forced,p=64,tokens=64"), HasSubstr("at least"));
  EXPECT_THAT(Refusal("ppl:file=a,mode=windows,tokens=511"), HasSubstr("512"));
  EXPECT_THAT(Refusal("ppl:file=a,blocks=4"), HasSubstr("did you mean block"));
  EXPECT_THAT(Refusal("ppl:file=a,block=1000"), HasSubstr("block"));
}

TextRun RunOf(uint32_t tokens, uint32_t scored_from, bool drops) {
  TextRun run;
  for (uint32_t i = 1; i < tokens; ++i) {
    run.tokens.push_back({.position = i, .group = i / 256, .scored = i >= scored_from});
  }
  run.drops_in_range = drops;
  if (drops) run.first_drop = scored_from - 1;
  run.memory.ratio_mean = 2;
  return run;
}

TEST(TextResult, SaysWhetherTheCaseDidAnything) {
  const TextSuite suite = Parse("ppl:file=a");
  const EvalCase dense{.label = "dense", .reference = true};
  const EvalCase drops{.label = "kd", .policy = "keydiff:budget=25,block=8"};
  const EvalCase encodes{.label = "q8", .encoding = {.k = Codec::kQ8, .v = Codec::kQ8}};
  EXPECT_FALSE(TextResult(suite, dense, dense, RunOf(100, 1, false), 100).inactive);
  EXPECT_TRUE(TextResult(suite, drops, dense, RunOf(100, 1, false), 100).inactive);
  EXPECT_FALSE(TextResult(suite, encodes, dense, RunOf(100, 1, false), 100).inactive);
  const EvalResult result = TextResult(suite, drops, dense, RunOf(100, 33, true), 100);
  EXPECT_FALSE(result.inactive);
  EXPECT_EQ(result.n, 67u);
  EXPECT_EQ(result.quality_all->scored, 99u);
  EXPECT_EQ(result.policy_block, 8u);
  EXPECT_EQ(result.first_drop, 32u);
  EXPECT_EQ(result.nominal_ratio, 4);
  EXPECT_TRUE(result.MissesNominal());
}

TEST(TextResult, ShowsAllTokensWhereTheDropCameAfterTheLast) {
  const EvalCase dense{.label = "dense", .reference = true};
  const EvalCase late{.label = "kd", .policy = "keydiff:budget=90"};
  TextRun run = RunOf(100, 101, false);
  run.first_drop = 100;
  const EvalResult result = TextResult(Parse("ppl:file=a"), late, dense, run, 100);
  EXPECT_TRUE(result.inactive);
  EXPECT_EQ(result.n, 99u);
}

}  // namespace
}  // namespace kvasir
