#include "eval/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/testing.h"
#include "eval/perplexity.h"

namespace kvasir {
namespace {

using kvasir::testing::TinyModel;
using ::testing::HasSubstr;

std::vector<int32_t> Text(uint32_t n) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>((i * 7 + i * i / 5) % testing::kVocabulary));
  }
  return tokens;
}

class ReadTextTest : public ::testing::Test {
 protected:
  Engine& MakeEngine(const std::string& policy) {
    EngineOptions options;
    options.kv_memory = 16 << 20;
    options.policy = policy;
    options.encoding = {.k = Codec::kF32, .v = Codec::kF32};
    engines_.push_back(std::make_unique<Engine>(model_, nullptr, BestKernels(), workers_, options));
    return *engines_.back();
  }
  std::vector<TextRun> Read(const std::vector<std::string>& policies, uint32_t n,
                            const TextProtocol& protocol) {
    engines_.clear();
    const TextCase dense{&MakeEngine("none"), "dense"};
    std::vector<TextCase> cases;
    for (const std::string& policy : policies) cases.push_back({&MakeEngine(policy), policy});
    return ReadText(dense, cases, workers_, Text(n), protocol);
  }

  TinyModel model_;
  Workers workers_{2};
  std::vector<std::unique_ptr<Engine>> engines_;
};

uint64_t Scored(const TextRun& run) {
  uint64_t n = 0;
  for (const TokenFigures& token : run.tokens) n += token.scored;
  return n;
}

TEST_F(ReadTextTest, DenseAgainstDenseIsExactlyZeroInEveryMode) {
  for (const TextProtocol& protocol :
       {TextProtocol{.mode = TextMode::kStream, .block = 7},
        TextProtocol{.mode = TextMode::kWindows, .block = 7, .window = 40},
        TextProtocol{.mode = TextMode::kForced, .block = 7, .prompt = 30}}) {
    const auto runs =
        Read({"none", "streaming:budget=200,block=16", "keydiff:budget=200"}, 120, protocol);
    ASSERT_EQ(runs.size(), 4u);
    for (const TextRun& run : runs) {
      const QualityFigures figures = Summarize(run.tokens, true);
      EXPECT_EQ(figures.kl.max, 0);
      EXPECT_EQ(figures.top1, 1);
      EXPECT_EQ(figures.dppl.v, 0);
      EXPECT_EQ(figures.rms_dp, 0);
      EXPECT_FALSE(run.drops_in_range);
      EXPECT_FALSE(run.first_drop);
      EXPECT_EQ(run.memory.ratio_end, 1);
      EXPECT_EQ(run.memory.ratio_mean, 1);
    }
  }
}

TEST_F(ReadTextTest, LossesAreThoseOfTheTextReadAlone) {
  const std::string policy = "streaming:budget=24,sink=2,block=8";
  const auto runs = Read({policy}, 100, {.block = 5});
  for (const size_t i : {0, 1}) {
    Engine& engine = MakeEngine(i == 0 ? "none" : policy);
    const Perplexity alone = MeasurePerplexity(engine, workers_, Text(100));
    ASSERT_EQ(runs[i].tokens.size(), alone.nll.size());
    for (size_t t = 0; t < alone.nll.size(); ++t) {
      EXPECT_EQ(runs[i].tokens[t].position, t + 1);
      EXPECT_NEAR(runs[i].tokens[t].divergence.nll, alone.nll[t], 1e-9) << t;
    }
  }
}

TEST_F(ReadTextTest, ScoresWhatComesAfterTheFirstDrop) {
  // Plans at 8, 16, 24, 32 tokens; the first to drop is at 32, before row 32, which predicts 33.
  const auto runs = Read({"streaming:budget=24,sink=2,block=8"}, 100, {.block = 5});
  const TextRun& run = runs[1];
  EXPECT_EQ(run.first_drop, 32u);
  EXPECT_TRUE(run.drops_in_range);
  EXPECT_EQ(Scored(run), 100u - 33);
  for (const TokenFigures& token : run.tokens) {
    EXPECT_EQ(token.scored, token.position > 32);
    EXPECT_TRUE(token.scored || token.divergence.kl == 0) << token.position;
  }
  EXPECT_GT(Summarize(run.tokens, true).kl.mean, 0);
  EXPECT_EQ(Scored(runs[0]), 99u);
  // 4 lanes, 24 entries each once dropped, at 96 and, as the prompt's end, at 100.
  EXPECT_EQ(run.memory.live_entries, 4 * 24u);
  EXPECT_EQ(run.memory.logical_entries, 4 * 100u);
  EXPECT_EQ(run.memory.peak_entries, 32u);
  // Per lane: 1..31 and 24 at 32; then 25..31 and 24 for every 8; the last 4 end with a plan.
  const double live = 31 * 32 / 2 + 24 + 8 * (7 * 28 + 24) + (25 + 26 + 27 + 24);
  EXPECT_NEAR(run.memory.ratio_mean, 100 * 101 / 2 / live, 1e-12);
}

TEST_F(ReadTextTest, ReadsBytesFromTheLedger) {
  const auto runs =
      Read({"streaming:budget=24,sink=2,block=8", "tova:budget=24,block=8"}, 400, {.block = 8});
  const MemoryFigures &dense = runs[0].memory, &run = runs[1].memory, &tova = runs[2].memory;
  EXPECT_EQ(dense.kv_end_bytes, 4 * 7 * 64 * 2 * 4 * sizeof(float));  // whole pages of 64
  EXPECT_EQ(dense.kv_live_bytes, 4 * 400 * 2 * 4 * sizeof(float));
  EXPECT_EQ(dense.bytes_ratio, 1);
  EXPECT_EQ(run.bytes_ratio,
            static_cast<double>(dense.kv_end_bytes) / static_cast<double>(run.kv_end_bytes));
  EXPECT_GT(run.bytes_ratio, 2);
  // Live entries with their positions, and at most three pages a lane above them.
  EXPECT_EQ(run.kv_live_bytes, 4 * 24 * (2 * 4 * sizeof(float) + 4));
  EXPECT_LE(run.kv_end_bytes, run.kv_live_bytes + 4 * 3 * 64 * (2 * 4 * sizeof(float) + 4));
  EXPECT_GT(tova.by_owner.at("policy"), 0u);  // a query row
  for (const MemoryFigures* m : {&dense, &run, &tova}) {
    uint64_t sum = 0;
    for (const auto& [owner, bytes] : m->by_owner) sum += bytes;
    EXPECT_EQ(sum, m->kv_end_bytes);
    EXPECT_GE(m->kv_peak_bytes, m->kv_end_bytes);
    EXPECT_LE(m->kv_mean_bytes, static_cast<double>(m->kv_peak_bytes));
    EXPECT_EQ(m->bytes_per_token, static_cast<double>(m->kv_end_bytes) / 400);
  }
}

TEST_F(ReadTextTest, ADropThatNoScoredRowSeesIsInactive) {
  // The plan at the prompt's end drops, but nothing is read after it.
  const auto at_end = Read({"streaming:budget=96,sink=2,block=64"}, 100, {.block = 32});
  EXPECT_EQ(at_end[1].first_drop, 100u);
  EXPECT_FALSE(at_end[1].drops_in_range);
  // One row after it, whose target is the last token.
  const auto before = Read({"streaming:budget=40,sink=2,block=64"}, 66, {.block = 32});
  EXPECT_EQ(before[1].first_drop, 64u);
  EXPECT_TRUE(before[1].drops_in_range);
  EXPECT_EQ(Scored(before[1]), 1u);
}

TEST_F(ReadTextTest, WindowsStartAnewAndScoreTheirSecondHalf) {
  const TextProtocol protocol = {.mode = TextMode::kWindows, .block = 16, .window = 40, .bos = 3};
  const auto runs = Read({"streaming:budget=16,sink=2,block=8", "none"}, 130, protocol);
  for (const TextRun& run : runs) {
    EXPECT_EQ(run.tokens.size(), 3 * 39u);  // the last 10 tokens fill no window
    EXPECT_EQ(Scored(run), 3 * 19u);        // targets 21 .. 39
    EXPECT_EQ(run.tokens[39].position, 41u);
    EXPECT_EQ(run.tokens[39].group, 1u);
    EXPECT_EQ(run.memory.logical_entries, 4 * 40u);
  }
  EXPECT_EQ(runs[1].first_drop, 24u);
  EXPECT_TRUE(runs[1].drops_in_range);
  // The window alone, with its first token replaced.
  std::vector<int32_t> window = Text(80);
  window.erase(window.begin(), window.begin() + 40);
  window[0] = 3;
  const Perplexity alone = MeasurePerplexity(MakeEngine("none"), workers_, window);
  EXPECT_NEAR(runs[2].tokens[39 + 20].divergence.nll, alone.nll[20], 1e-9);
  // Budget of a whole window: nothing can happen.
  const auto idle = Read({"streaming:budget=40,sink=2,block=8"}, 130, protocol);
  EXPECT_FALSE(idle[1].drops_in_range);
}

TEST_F(ReadTextTest, ForcedTokensAreReadByTheRulesOfGeneration) {
  const auto runs = Read({"streaming:budget=24,sink=2,block=64,slack=3"}, 100,
                         {.mode = TextMode::kForced, .block = 32, .prompt = 20});
  const TextRun& run = runs[1];
  // In generation a lane never holds more than one entry above its budget.
  EXPECT_EQ(run.memory.peak_entries, 25u);
  EXPECT_EQ(run.first_drop, 25u);
  for (const TokenFigures& token : run.tokens) EXPECT_EQ(token.scored, token.position > 25);
  for (const TokenFigures& token : runs[0].tokens) EXPECT_EQ(token.scored, token.position >= 20);
}

TEST_F(ReadTextTest, NamesTheCaseAndTheLengthInErrors) {
  try {
    Read({}, 20, {.mode = TextMode::kWindows, .window = 40});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("20 tokens, mode=windows needs at least 40"));
  }
  model_.poison = 7;
  for (const std::vector<std::string>& cases : {std::vector<std::string>{}, {"none"}}) {
    try {
      Read(cases, 20, {.block = 4});
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kInvalid);
      EXPECT_THAT(error.what(), HasSubstr("dense logits after position 1: token 0 has"));
    }
  }
}

}  // namespace
}  // namespace kvasir
