// Encodings under an engine: what is cached, shared, parked or run beside others never shows in an
// answer, and the ledger follows what pages have become.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/engine.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using testing::Bench;
using testing::Greedy;

using Tokens = std::vector<int32_t>;

// Half of the four channels of every row, behind a window of 32.
Encoding Sparse(SealRule seals = {.recent = 32}) {
  EncodingRule rule = {.codec = Codec::kSparseBF16, .open = Codec::kBF16, .keep = 2};
  rule.recent = seals.recent;
  return {.rules = {rule}, .seals = seals};
}

EngineOptions Options(const std::string& policy = "none", uint32_t interval = 0) {
  EngineOptions options;
  options.kv_memory = 4 << 20;
  options.policy = policy;
  options.encoding = Sparse();
  options.chunk = 48;
  options.step_tokens = 64;
  options.prefix_interval = interval;
  return options;
}

Tokens RandomTokens(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  Tokens tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(1 + rng() % 39);
  return tokens;
}

Tokens Joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

constexpr uint32_t kContext = 2048;

Tokens Cold(EngineOptions options, const Tokens& prompt, uint32_t max_tokens = 20) {
  options.prefix_interval = 0;
  return Bench(options, kContext).Ask(prompt, max_tokens).tokens;
}

TEST(SealedEngine, AnswersDoNotDependOnChunksOrNeighbours) {
  for (const char* policy :
       {"none", "keydiff:budget=120,block=32", "streaming:budget=150,block=64,sink=4",
        "snapkv:budget=60,window=8", "h2o:budget=100,block=16", "rpc:every=40,window=8",
        "expected:budget=60,every=16", "adakv:budget=120", "rkv:budget=60,buffer=16",
        "tova:budget=100,block=16", "knorm:budget=90,block=64"}) {
    for (const bool at_prompt_end : {false, true}) {
      EngineOptions options = Options(policy);
      options.encoding = Sparse({.recent = 32, .at_prompt_end = at_prompt_end});
      SCOPED_TRACE(fmt::format("{}, at the prompt's end: {}", policy, at_prompt_end));
      const Tokens a = RandomTokens(333, 1), b = RandomTokens(150, 2);
      const Tokens alone_a = Cold(options, a, 150), alone_b = Cold(options, b, 150);
      options.chunk = 64;
      EXPECT_EQ(Cold(options, a, 150), alone_a);
      options.chunk = 7;
      Bench bench(options, kContext);
      const auto first = bench.Start(Greedy(a, 150));
      for (int i = 0; i < 20; ++i) bench.engine().Step();
      const auto second = bench.Start(Greedy(b, 150));
      bench.engine().RunUntilIdle();
      EXPECT_EQ((*first)->tokens, alone_a);
      EXPECT_EQ((*second)->tokens, alone_b);
      bench.ExpectEmptyWithoutPrefixes();
    }
  }
}

TEST(SealedEngine, EncodingChangesAnswers) {
  EngineOptions options = Options();
  const Tokens prompt = RandomTokens(300, 1);
  const Tokens sparse = Cold(options, prompt);
  options.encoding = Sparse({.recent = 32, .at_prompt_end = true});
  const Tokens at_end = Cold(options, prompt);
  options.encoding = {.k = Codec::kBF16, .v = Codec::kBF16};
  const Tokens dense = Cold(options, prompt);
  EXPECT_NE(sparse, dense);
  // The token after a dense prompt is that of dense lanes.
  EXPECT_EQ(at_end[0], dense[0]);
  EXPECT_NE(at_end, dense);
}

TEST(SealedEngine, ExactModeGivesTheSameAnswersInAnyCompany) {
  EngineOptions options = Options();
  options.encoding = Sparse({.recent = 32, .at_prompt_end = true, .by_row = true});
  const Tokens a = RandomTokens(170, 1), b = RandomTokens(90, 2);
  const Tokens alone = Cold(options, a, 100);
  options.chunk = 11;
  Bench bench(options, kContext);
  const auto first = bench.Start(Greedy(a, 100));
  const auto second = bench.Start(Greedy(b, 100));
  bench.engine().RunUntilIdle();
  EXPECT_EQ((*first)->tokens, alone);
  // Tokens that are given in one pass are pruned one by one.
  Request given = Greedy(a, 40);
  given.forced = Tokens(alone.begin(), alone.begin() + 60);
  EXPECT_EQ(bench.Ask(std::move(given)).tokens, Tokens(alone.begin() + 60, alone.end()));
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(SealedEngine, PrefixesServeAtTheirPointsAndWhereNothingIsSealedBehind) {
  EngineOptions options = Options("none", 128);
  Bench bench(options, kContext);
  const Tokens document = RandomTokens(400, 5);
  const Generation first = bench.Ask(document, 20);
  EXPECT_EQ(first.cached_tokens, 0u);
  EXPECT_EQ(first.tokens, Cold(options, document));
  struct Case {
    uint32_t shared, cached;
  };
  // Published at 128, 256, 384 and at the prompt's end; each serves from 32 behind what it sealed.
  for (const Case& c : {Case{100, 96 + 4},
                        {70, 0},
                        {128, 128},
                        {200, 128},
                        {255, 255},
                        {256, 256},
                        {300, 256},
                        {384, 384},
                        {399, 399}}) {
    const Tokens prompt =
        Joined(Tokens(document.begin(), document.begin() + c.shared), RandomTokens(9, c.shared));
    const Generation again = bench.Ask(prompt, 90);
    EXPECT_EQ(again.tokens, Cold(options, prompt, 90)) << c.shared;
    // The other prompts leave prefixes too, but none that is longer.
    EXPECT_EQ(again.cached_tokens, c.cached) << c.shared;
  }
  bench.ExpectEmptyWithoutPrefixes();
}

// What queries made of channels is part of a state: it serves at its end alone.
TEST(SealedEngine, StatesThatCountQueriesServeWhereTheyEnd) {
  for (const bool at_prompt_end : {false, true}) {
    EngineOptions options = Options("none", 128);
    options.encoding = Sparse({.recent = 32, .at_prompt_end = at_prompt_end});
    options.encoding.rules[0].by_query = true;
    Bench bench(options, kContext);
    const Tokens document = RandomTokens(400, 5);
    EXPECT_EQ(bench.Ask(document, 90).tokens, Cold(options, document, 90));
    for (const uint32_t shared : {384u, 300u, 256u, 100u}) {
      const Tokens prompt =
          Joined(Tokens(document.begin(), document.begin() + shared), RandomTokens(9, shared));
      const Generation again = bench.Ask(prompt, 90);
      EXPECT_EQ(again.tokens, Cold(options, prompt, 90)) << shared;
      EXPECT_EQ(again.cached_tokens, at_prompt_end ? 0 : shared / 128 * 128) << shared;
    }
    options.chunk = 7;
    EXPECT_EQ(Cold(options, document, 90), bench.Ask(document, 90).tokens);
    bench.ExpectEmptyWithoutPrefixes();
  }
}

TEST(SealedEngine, RequestsThatBeginAlikeReadTheirBeginningOnce) {
  EngineOptions options = Options("none", 128);
  Bench bench(options, kContext);
  const Tokens document = RandomTokens(300, 6);
  std::vector<std::shared_ptr<std::optional<Generation>>> results;
  std::vector<Tokens> prompts;
  for (uint32_t i = 0; i < 4; ++i) {
    prompts.push_back(i < 2 ? document : Joined(document, RandomTokens(50, i)));
    results.push_back(bench.Start(Greedy(prompts.back(), 30)));
    bench.engine().Step();
  }
  bench.engine().RunUntilIdle();
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ((*results[i])->tokens, Cold(options, prompts[i], 30)) << i;
    if (i > 0) {
      EXPECT_GE((*results[i])->cached_tokens, 256u) << i;
    }
  }
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(SealedEngine, PrefixesServeUnderPoliciesToo) {
  for (const char* policy : {"keydiff:budget=120,block=32", "streaming:budget=150,block=64,sink=4",
                             "snapkv:budget=60,window=8", "h2o:budget=100,block=16",
                             "keydiff:budget=1000,block=64", "knorm:budget=150,block=16"}) {
    SCOPED_TRACE(policy);
    EngineOptions options = Options(policy, 64);
    Bench bench(options, kContext);
    const Tokens document = RandomTokens(300, 8);
    uint64_t cached = 0;
    for (const size_t n : {300, 120, 299, 250, 300}) {
      const Tokens prompt = Joined(Tokens(document.begin(), document.begin() + n),
                                   RandomTokens(20, static_cast<uint32_t>(n)));
      const Generation again = bench.Ask(prompt, 80);
      EXPECT_EQ(again.tokens, Cold(options, prompt, 80)) << n;
      cached += again.cached_tokens;
    }
    EXPECT_GT(cached, 0u);
    bench.ExpectEmptyWithoutPrefixes();
  }
}

TEST(SealedEngine, WhatWaitsForThePromptsEndIsNotShared) {
  EngineOptions options = Options("none", 64);
  options.encoding = Sparse({.recent = 32, .at_prompt_end = true});
  Bench bench(options, kContext);
  const Tokens document = RandomTokens(300, 8);
  const Generation first = bench.Ask(document, 20);
  const Generation again = bench.Ask(document, 20);
  EXPECT_EQ(again.cached_tokens, 0u);
  EXPECT_EQ(again.tokens, first.tokens);
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(SealedEngine, ADensePromptsRoomGoesBackAtItsEnd) {
  EngineOptions options = Options();
  const auto reserved = [&](bool at_prompt_end, uint64_t* in_prompt) {
    options.encoding = Sparse({.recent = 32, .at_prompt_end = at_prompt_end});
    Bench bench(options, kContext);
    const auto result = bench.Start(Greedy(RandomTokens(600, 3), 40));
    bench.engine().Step();
    *in_prompt = bench.engine().ledger().bytes_reserved;
    uint64_t after = 0;
    while (bench.engine().Step()) {
      if (bench.engine().n_running() > 0) after = bench.engine().ledger().bytes_reserved;
    }
    EXPECT_TRUE(result->has_value());
    return after;
  };
  uint64_t stream_in_prompt = 0, in_prompt = 0;
  const uint64_t stream = reserved(false, &stream_in_prompt);
  EXPECT_EQ(reserved(true, &in_prompt), stream);
  EXPECT_EQ(stream_in_prompt, stream);
  // Ten dense pages of 64 entries in place of two.
  EXPECT_EQ(in_prompt - stream, 4u * 2 * 8 * 64 * 4 * 2);
}

TEST(SealedEngine, ParkedSequencesWriteTheSameText) {
  EngineOptions options = Options("none", 64);
  const Tokens a = RandomTokens(200, 1), b = RandomTokens(210, 2);
  const Tokens alone_a = Cold(options, a, 1500), alone_b = Cold(options, b, 1500);
  // Room for one of them at its full length, and a little more.
  options.kv_memory = 320 << 10;
  Bench bench(options, kContext);
  const auto first = bench.Start(Greedy(a, 1500));
  const auto second = bench.Start(Greedy(b, 1500));
  bench.engine().RunUntilIdle();
  bench.engine().CheckIntegrity();
  EXPECT_EQ((*first)->tokens, alone_a);
  EXPECT_EQ((*second)->tokens, alone_b);
  EXPECT_GT((*second)->n_parked, 0u);
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(SealedEngine, QuestionsForkAStateWithoutChangingIt) {
  for (const bool at_prompt_end : {false, true}) {
    for (const char* policy : {"none", "keydiff:budget=100,block=32"}) {
      EngineOptions options = Options(policy);
      options.encoding = Sparse({.recent = 32, .at_prompt_end = at_prompt_end});
      Bench bench(options, kContext);
      Request read = Greedy(RandomTokens(350, 4), 0);
      read.keep_state = true;
      const Generation context = bench.Ask(std::move(read));
      std::vector<Tokens> answers;
      for (int round = 0; round < 2; ++round) {
        for (uint32_t i = 0; i < 3; ++i) {
          Request question = Greedy(RandomTokens(20 + 40 * i, i), 150 * i + 10);
          question.fork_of = context.state.get();
          answers.push_back(bench.Ask(std::move(question)).tokens);
        }
      }
      EXPECT_TRUE(std::equal(answers.begin(), answers.begin() + 3, answers.begin() + 3));
    }
  }
}

}  // namespace
}  // namespace kvasir
