// What is cached, shared or parked never shows in an answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/engine.h"
#include "engine/prefix_index.h"
#include "engine/testing.h"

namespace kvasir {
namespace {

using testing::Bench;
using testing::Greedy;
using testing::LetterTokenizer;
using testing::TinyModel;

using Tokens = std::vector<int32_t>;

EngineOptions Options(const char* policy = "", uint32_t interval = 64) {
  EngineOptions options;
  options.kv_memory = 1 << 20;
  options.policy = policy;
  options.encoding = {.k = Codec::kF32, .v = Codec::kF32};
  options.chunk = 48;
  options.step_tokens = 64;
  options.prefix_interval = interval;
  return options;
}

Tokens Count(size_t n, int32_t step) {
  Tokens tokens;
  for (size_t i = 0; i < n; ++i) {
    tokens.push_back(1 + static_cast<int32_t>(i * static_cast<size_t>(step) % 39));
  }
  return tokens;
}

Tokens Joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A state that begins behind a cut must have seen all that its policy judges by.
TEST(Prefixes, WhatAPolicyRecordsDoesNotDependOnThem) {
  for (const char* policy :
       {"h2o:budget=40,block=16", "tova:budget=40,block=16", "snapkv:budget=30,window=8",
        "snapkv:budget=30,window=8,block=16", "snapkv:budget=60,window=20,block=8",
        "expected:budget=30,every=8,window=8", "rkv:budget=24,buffer=8", "rpc:every=12,window=4"}) {
    SCOPED_TRACE(policy);
    Bench bench(Options(policy));
    const Tokens document = Count(150, 7);
    const Tokens beginning(document.begin(), document.begin() + 20);
    for (const Tokens& prompt : {beginning, document, document, Joined(document, {5, 6, 7})}) {
      EXPECT_EQ(bench.Ask(prompt, 40).tokens, Bench(Options(policy, 0)).Ask(prompt, 40).tokens)
          << prompt.size();
    }
    bench.ExpectEmptyWithoutPrefixes();
  }
}

TEST(Prefixes, DenseLanesServeAtAnyToken) {
  Bench bench(Options());
  const Tokens document = Count(150, 7);
  const Generation first = bench.Ask(Joined(document, {5, 6, 7}));
  EXPECT_EQ(first.cached_tokens, 0u);
  for (const size_t shared : {150, 149, 128, 100, 64, 63, 1}) {
    const int32_t other = 1 + (shared < document.size() ? document[shared] % 39 : 1);
    const Tokens prompt =
        Joined(Tokens(document.begin(), document.begin() + shared), {other, 3, 2});
    const Generation again = bench.Ask(prompt);
    EXPECT_EQ(again.cached_tokens, shared);
    EXPECT_EQ(again.timings.prompt_n, 3u);
    EXPECT_EQ(again.tokens, Bench(Options("", 0)).Ask(prompt).tokens) << shared;
  }
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(Prefixes, TheLastTokenIsAlwaysRead) {
  Bench bench(Options());
  const Generation first = bench.Ask(Count(100, 7));
  const Generation again = bench.Ask(Count(100, 7));
  EXPECT_EQ(again.cached_tokens, 99u);
  EXPECT_EQ(again.tokens, first.tokens);
}

TEST(Prefixes, AnAnswerIsPartOfTheNextPromptsPrefix) {
  Bench bench(Options());
  const Tokens prompt = Count(70, 5);
  const Generation first = bench.Ask(prompt, 20);
  const Tokens next = Joined(Joined(prompt, first.tokens), {8, 9});
  const Generation second = bench.Ask(next);
  EXPECT_EQ(second.cached_tokens, 89u) << "the last token of the answer was sampled and never read";
  EXPECT_EQ(second.tokens, Bench(Options("", 0)).Ask(next).tokens);
  EXPECT_EQ(bench.engine().stats().n_snapshots, 1u) << "the longer one stands for the shorter";
}

TEST(Prefixes, OtherSaltsShareNothing) {
  Bench bench(Options());
  Request salted = Greedy(Count(100, 7), 4);
  salted.salt = "a";
  bench.Ask(std::move(salted));
  EXPECT_EQ(bench.Ask(Count(100, 7), 4).cached_tokens, 0u);
  Request same = Greedy(Count(100, 7), 4);
  same.salt = "a";
  EXPECT_EQ(bench.Ask(std::move(same)).cached_tokens, 99u);
}

TEST(Prefixes, ARetentionPolicyServesAtItsBlocks) {
  const char* policy = "keydiff:budget=96,block=16";
  Bench bench(Options(policy, 64));
  const Tokens document = Count(200, 7);  // 12 blocks and 8 tokens
  EXPECT_EQ(bench.Ask(document).cached_tokens, 0u);
  // Before anything was dropped at any block; then where states were published: at multiples of 64,
  // and at the last block.
  const std::map<size_t, uint32_t> expected = {{40, 32},   {90, 80},   {96, 96},   {120, 96},
                                               {130, 128}, {191, 128}, {192, 192}, {199, 192}};
  for (const auto& [shared, cached] : expected) {
    const Tokens prompt = Joined(Tokens(document.begin(), document.begin() + shared), {39, 3, 2});
    const Generation again = bench.Ask(prompt);
    EXPECT_EQ(again.cached_tokens, cached) << shared;
    EXPECT_EQ(again.tokens, Bench(Options(policy, 0)).Ask(prompt).tokens) << shared;
  }
  bench.ExpectEmptyWithoutPrefixes();
}

// A policy that judges by what the last queries of a prompt attend to has to see those.
TEST(Prefixes, ACutLeavesAPolicyTheRowsItHasToSee) {
  const char* policy = "snapkv:budget=40,window=20";
  Bench bench(Options(policy));
  const Tokens document = Count(200, 7);
  EXPECT_EQ(bench.Ask(document).cached_tokens, 0u);
  const std::map<size_t, uint32_t> expected = {
      {199, 180}, {185, 180}, {181, 180}, {150, 150}, {40, 40}};
  for (const auto& [shared, cached] : expected) {
    const size_t more = 200 - shared;
    const Tokens prompt =
        Joined(Tokens(document.begin(), document.begin() + shared), Tokens(more, 39));
    const Generation again = bench.Ask(prompt);
    EXPECT_EQ(again.cached_tokens, cached) << shared;
    EXPECT_EQ(again.tokens, Bench(Options(policy, 0)).Ask(prompt).tokens) << shared;
  }
  EXPECT_EQ(bench.Ask(Tokens(document.begin(), document.begin() + 19)).cached_tokens, 0u);
  bench.ExpectEmptyWithoutPrefixes();
}

// One that adds up from the start goes on only where its sums were published with the lanes: at
// multiples of 64, and at each prompt's last block.
TEST(Prefixes, WhatAddsUpFromTheStartIsNeverBegunInTheMiddle) {
  const char* policy = "h2o:budget=96,block=16";
  Bench bench(Options(policy, 64));
  const Tokens document = Count(200, 7);
  EXPECT_EQ(bench.Ask(document).cached_tokens, 0u);
  const std::map<size_t, uint32_t> expected = {{40, 0},    {90, 64},   {93, 80},   {127, 80},
                                               {130, 128}, {191, 128}, {192, 192}, {199, 192}};
  for (const auto& [shared, cached] : expected) {
    const Tokens prompt = Joined(Tokens(document.begin(), document.begin() + shared), {39, 3, 2});
    const Generation again = bench.Ask(prompt);
    EXPECT_EQ(again.cached_tokens, cached) << shared;
    EXPECT_EQ(again.tokens, Bench(Options(policy, 0)).Ask(prompt).tokens) << shared;
  }
  EXPECT_GT(bench.engine().ledger().bytes_side, 0u) << "snapshots have sums too";
  EXPECT_EQ(bench.engine().stats().snapshot_bytes, bench.engine().ledger().bytes);
  bench.ExpectEmptyWithoutPrefixes();
  // Nor does anybody wait for what is running and cannot be shared.
  for (const size_t common : {60, 70}) {
    bench.Start(Greedy(Joined(Count(common, 5), Tokens(70, 3)), 4));
    bench.Start(Greedy(Joined(Count(common, 5), Tokens(30, 39)), 4));
    bench.engine().Step();
    EXPECT_EQ(bench.engine().n_running(), common == 60 ? 2u : 1u);
    bench.engine().RunUntilIdle();
  }
}

// What snapshots record counts, and goes when others need the room.
TEST(Prefixes, WhatSnapshotsRecordGivesWayToo) {
  EngineOptions options = Options("tova:budget=64,block=16", 32);
  options.kv_memory = 96 << 10;
  Bench bench(options);
  for (int32_t step = 1; step < 30; ++step) {
    const Generation g = bench.Ask(Count(150, step), 4);
    ASSERT_FALSE(g.error) << step << ": " << g.error->what();
    ASSERT_EQ(bench.engine().stats().snapshot_bytes, bench.engine().ledger().bytes);
  }
  EXPECT_GT(bench.engine().stats().snapshots_dropped, 0u);
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(Prefixes, RequestsUnderAPolicyOfTheirOwnShareNothing) {
  Bench bench(Options("keydiff:budget=96,block=16"));
  const Tokens document = Count(200, 7);
  bench.Ask(document);
  for (const char* spec : {"keydiff:budget=95,block=16", "keydiff:budget=96,block=32",
                           "keydiff:budget=96,block=16,sink=1", "knorm:budget=96,block=16"}) {
    Request request = Greedy(document, 4);
    request.policy = MakePolicy(spec, {.shape = bench.model().MainLanes({Codec::kF32, Codec::kF32}),
                                       .facts = FactsOf(bench.model().config())});
    EXPECT_EQ(bench.Ask(std::move(request)).cached_tokens, 0u) << spec;
  }
  EXPECT_EQ(bench.Ask(document, 4).cached_tokens, 192u);
}

TEST(Prefixes, DroppedLanesServeOnlyWhoPinsTheSame) {
  Bench bench(Options("keydiff:budget=96,block=16"));
  const Tokens document = Count(200, 7);
  const auto ask = [&](std::vector<PositionSpan> pinned) {
    Request request = Greedy(document, 4);
    request.pinned = std::move(pinned);
    return bench.Ask(std::move(request)).cached_tokens;
  };
  EXPECT_EQ(ask({{0, 10}}), 0u);
  EXPECT_EQ(ask({{0, 10}}), 192u);
  EXPECT_EQ(ask({}), 96u - 16 + 16) << "what was published before the first drop";
  EXPECT_EQ(ask({{0, 11}}), 96u);
  EXPECT_EQ(ask({{0, 11}}), 192u);
}

TEST(Prefixes, WhoBeginsLikeARunningPromptWaitsForIt) {
  Bench bench(Options());
  const Tokens document = Count(300, 7);
  const auto a = bench.Start(Greedy(Joined(document, {1, 2}), 8));
  const auto b = bench.Start(Greedy(Joined(document, {3, 4}), 8));
  const auto c = bench.Start(Greedy(Count(30, 11), 8));  // overtakes b
  bench.engine().RunUntilIdle();
  EXPECT_EQ((*a)->cached_tokens, 0u);
  EXPECT_EQ((*b)->cached_tokens, 300u);
  EXPECT_EQ((*c)->cached_tokens, 0u);
  EXPECT_EQ(bench.model().rows, 302u + 2 + 30 + 3 * 7);
  EXPECT_EQ((*b)->tokens, Bench(Options("", 0)).Ask(Joined(document, {3, 4}), 8).tokens);
}

TEST(Prefixes, ManyChoicesReadOnePrompt) {
  for (const char* policy : {"", "keydiff:budget=96,block=16"}) {
    Bench bench(Options(policy));
    const Tokens prompt = Count(200, 7);
    std::vector<std::shared_ptr<std::optional<Generation>>> choices;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      Request request = Greedy(prompt, 8);
      request.sampling.temperature = 1;
      request.sampling.seed = seed;
      choices.push_back(bench.Start(std::move(request)));
    }
    bench.engine().RunUntilIdle();
    const uint64_t again = *policy == 0 ? 1 : 8;  // tokens of the prompt that each has to read
    EXPECT_EQ(bench.model().rows, 200 + 3 * again + 4 * 7) << policy;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      Request request = Greedy(prompt, 8);
      request.sampling.temperature = 1;
      request.sampling.seed = seed;
      EXPECT_EQ((*choices[seed])->tokens, Bench(Options(policy, 0)).Ask(std::move(request)).tokens);
    }
    bench.ExpectEmptyWithoutPrefixes();
  }
}

TEST(Prefixes, GiveWayToRequestsTheLeastUsefulFirst) {
  EngineOptions options = Options();
  options.kv_memory = 96 << 10;
  Bench bench(options);
  const auto prompt = [](int32_t step) { return Count(120, step); };
  bench.Ask(prompt(2), 4);
  bench.Ask(prompt(2), 4);  // of use
  bench.Ask(prompt(4), 4);
  EXPECT_EQ(bench.engine().stats().snapshots_dropped, 0u);
  EXPECT_GT(bench.engine().stats().snapshot_bytes, 0u);
  EXPECT_EQ(bench.engine().stats().snapshot_bytes, bench.engine().ledger().bytes);
  const Generation big = bench.Ask(Count(350, 5), 4);
  EXPECT_FALSE(big.error);
  EXPECT_GT(bench.engine().stats().snapshots_dropped, 0u);
  EXPECT_GT(bench.Ask(prompt(2), 4).cached_tokens, 0u);
  EXPECT_LE(bench.Ask(prompt(4), 4).cached_tokens, 1u) << "all begin with the same token";
  EXPECT_LE(bench.engine().ledger().bytes_reserved_peak, options.kv_memory);
}

TEST(Prefixes, ACancelledPromptLeavesWhatItHasRead) {
  Bench bench(Options());
  const Tokens prompt = Count(300, 7);
  bench.Start(Greedy(prompt, 8));
  ASSERT_TRUE(bench.engine().Step());
  bench.engine().Cancel(bench.last_id);
  EXPECT_EQ(bench.Ask(prompt, 8).cached_tokens, 48u);
  bench.ExpectEmptyWithoutPrefixes();
}

TEST(Prefixes, PromptLogprobsReadThePromptWhole) {
  Bench bench(Options());
  const Tokens prompt = Count(100, 7);
  bench.Ask(prompt, 1);
  Request scored = Greedy(prompt, 1);
  scored.prompt_logprobs = 2;
  scored.logprobs = 3;
  const Generation g = bench.Ask(std::move(scored));
  EXPECT_EQ(g.cached_tokens, 0u);
  ASSERT_EQ(g.prompt_logprobs.size(), 99u);
  for (size_t i = 0; i < 99; ++i) {
    EXPECT_EQ(g.prompt_logprobs[i].id, prompt[i + 1]);
    ASSERT_EQ(g.prompt_logprobs[i].top.size(), 2u);
    EXPECT_GE(g.prompt_logprobs[i].top[0].second, g.prompt_logprobs[i].logprob);
  }
  ASSERT_EQ(g.logprobs.size(), 1u);
  EXPECT_EQ(g.logprobs[0].id, g.tokens[0]);
  EXPECT_EQ(g.logprobs[0].top[0].first, g.tokens[0]) << "greedy";
  // Teacher-forced: the same token by token.
  Bench alone(Options("", 0));
  Tokens begin(prompt.begin(), prompt.begin() + 50);
  Request one = Greedy(begin, 1);
  one.logprobs = 40;
  const Generation next = alone.Ask(std::move(one));
  for (const auto& [id, logprob] : next.logprobs[0].top) {
    if (id == prompt[50]) {
      EXPECT_EQ(logprob, g.prompt_logprobs[49].logprob);
    }
  }
}

class Parking : public ::testing::TestWithParam<const char*> {};

TEST_P(Parking, AnswersAreTheSameAndTheOldestIsNeverParked) {
  EngineOptions options = Options(GetParam(), 64);
  const auto request = [](int32_t i) {
    Request r = Greedy(Count(20 + static_cast<size_t>(i) * 9, 3 + i), 1500);
    r.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    r.sampling.seed = static_cast<uint64_t>(i);
    return r;
  };
  // Four fit with 1024 new tokens each, fewer with 1500.
  const std::string_view policy = GetParam();
  options.kv_memory = policy.empty()                ? 640 << 10
                      : policy.starts_with("quest") ? 704 << 10
                                                    : 400 << 10;
  Bench bench(options, 4096);
  std::vector<std::shared_ptr<std::optional<Generation>>> results;
  for (int32_t i = 0; i < 4; ++i) results.push_back(bench.Start(request(i)));
  uint64_t step = 0;
  while (bench.engine().Step()) {
    if (++step % 50 == 0) bench.engine().CheckIntegrity();
  }
  EXPECT_GT(bench.engine().stats().n_parked, 0u);
  EXPECT_EQ((*results[0])->n_parked, 0u);
  EXPECT_LE(bench.engine().ledger().bytes_reserved_peak, options.kv_memory);
  for (int32_t i = 0; i < 4; ++i) {
    options.kv_memory = 4 << 20;
    options.prefix_interval = 0;
    Bench alone(options, 4096);
    const Generation expected = alone.Ask(request(i));
    ASSERT_FALSE((*results[static_cast<size_t>(i)])->error);
    EXPECT_EQ((*results[static_cast<size_t>(i)])->tokens, expected.tokens) << i;
    EXPECT_EQ(expected.tokens.size(), 1500u);
  }
  bench.ExpectEmptyWithoutPrefixes();
}

INSTANTIATE_TEST_SUITE_P(
    Policies, Parking,
    ::testing::Values("", "keydiff:keep=0.7,block=16", "streaming:keep=0.7,block=16",
                      "h2o:keep=0.7,block=16", "tova:keep=0.7,block=16",
                      "rpc:every=64,window=8,ratio=1.5", "snapkv:keep=0.7,window=8,every=64",
                      "adakv:keep=0.7,window=8,every=64", "expected:keep=0.7,window=8,every=64",
                      "rkv:keep=0.7,buffer=64", "quest:budget=64,part=4,skip=1"));

// Conversations that share beginnings, branch, are cancelled, in budgets from roomy to very tight.
class PrefixStress : public ::testing::TestWithParam<const char*> {};

TEST_P(PrefixStress, AnswersAreThoseOfAColdEngine) {
  size_t cached = 0;
  for (const uint64_t budget : {1 << 20, 192 << 10, 96 << 10}) {
    EngineOptions options = Options(GetParam(), 32);
    options.kv_memory = budget;
    Bench bench(options);
    EngineOptions cold_options = Options(GetParam(), 0);
    std::mt19937 rng(static_cast<uint32_t>(budget));
    const auto below = [&rng](size_t n) { return rng() % n; };
    std::vector<Tokens> prompts = {Count(100, 3)};
    struct Asked {
      Tokens prompt;
      uint64_t seed;
      uint32_t n;
      RequestId id;
      std::vector<PositionSpan> pinned;
      std::shared_ptr<std::optional<Generation>> result;
    };
    std::vector<Asked> asked;
    const auto make = [](const Asked& a) {
      Request request = Greedy(a.prompt, a.n);
      request.sampling.temperature = a.seed % 2 == 0 ? 0.0f : 0.9f;
      request.sampling.seed = a.seed;
      request.pinned = a.pinned;
      return request;
    };
    for (int round = 0; round < 120; ++round) {
      Tokens prompt = prompts[below(prompts.size())];
      prompt.resize(1 + below(prompt.size()));
      const size_t more = 1 + below(40);  // one after the other: compilers differ in their order
      prompt = Joined(std::move(prompt), Count(more, static_cast<int32_t>(1 + below(9))));
      if (prompt.size() > 220) prompt.resize(220);
      if (prompts.size() < 30) prompts.push_back(prompt);
      Asked a{std::move(prompt), rng(), static_cast<uint32_t>(1 + below(30)), 0, {}, nullptr};
      if (below(3) == 0) a.pinned = {{0, 8}};
      a.result = bench.Start(make(a));
      a.id = bench.last_id;
      asked.push_back(std::move(a));
      for (size_t steps = below(6); steps > 0; --steps) bench.engine().Step();
      if (below(8) == 0) bench.engine().Cancel(asked[below(asked.size())].id);
      bench.engine().CheckIntegrity();
      ASSERT_LE(bench.engine().ledger().bytes_reserved, budget);
    }
    bench.engine().RunUntilIdle();
    size_t whole = 0;
    for (const Asked& a : asked) {
      ASSERT_TRUE(a.result->has_value());
      const Generation& got = **a.result;
      ASSERT_FALSE(got.error) << got.error->what();
      cached += got.cached_tokens > 0;
      if (got.stop_reason == StopReason::kCancelled) continue;
      ++whole;
      EXPECT_EQ(got.tokens, Bench(cold_options).Ask(make(a)).tokens);
    }
    EXPECT_GT(whole, 60u);
    bench.ExpectEmptyWithoutPrefixes();
  }
  if (std::string_view(GetParam()).starts_with("expected")) {
    EXPECT_EQ(cached, 0u) << "its moments are of all queries, and nobody publishes them";
  } else {
    EXPECT_GT(cached, 10u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Policies, PrefixStress,
    ::testing::Values("", "keydiff:budget=64,block=16", "streaming:budget=64,block=16",
                      "random:keep=0.5,block=32", "keydiff:budget=200,block=16",
                      "h2o:budget=64,block=16", "h2o:budget=140,block=16",
                      "tova:budget=64,block=16", "knorm:budget=64,block=16",
                      "snapkv:budget=40,window=20", "adakv:budget=40,window=20,every=5",
                      "expected:budget=40,every=8,window=8", "rkv:budget=32,buffer=8",
                      "rpc:every=12,window=6", "quest:budget=16,part=4,skip=0"));

TEST(Admission, WhoWaitsTooLongIsRefusedAndSaysWhy) {
  EngineOptions options = Options("", 0);
  options.max_sequences = 1;
  Bench bench(options);
  bench.Start(Greedy(Count(30, 3), 100));
  Request late = Greedy(Count(30, 5), 4);
  late.admit_by = std::chrono::steady_clock::now();
  const auto refused = bench.Start(std::move(late));
  bench.engine().Step();
  bench.engine().Step();
  ASSERT_TRUE(refused->has_value());
  ASSERT_TRUE((*refused)->error);
  EXPECT_EQ((*refused)->error->code(), Code::kUnavailable);
}

TEST(Admission, StopTokensEndAnAnswer) {
  Bench bench(Options());
  const Generation whole = bench.Ask(Count(40, 3), 20);
  Request stopped = Greedy(Count(40, 3), 20);
  stopped.stop_tokens = {whole.tokens[5]};
  stopped.logprobs = 1;
  const auto first = std::find(whole.tokens.begin(), whole.tokens.end(), whole.tokens[5]);
  const Generation g = bench.Ask(std::move(stopped));
  EXPECT_EQ(g.tokens, Tokens(whole.tokens.begin(), first));
  EXPECT_EQ(g.stop_reason, StopReason::kStop);
  EXPECT_EQ(g.logprobs.size(), g.tokens.size());
}

TEST(PrefixIndex, CutsLeaveTheLastTokenAndKeepToTheGrain) {
  const Tokens kept = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto cut = [&](const Tokens& query, uint32_t grain) {
    return UsableCut(kept, {query, "", {}}, grain);
  };
  EXPECT_EQ(cut({1, 2, 3, 4, 5, 6, 7, 8}, 1), 7u);
  EXPECT_EQ(cut({1, 2, 3, 4, 5, 6, 7, 8, 9}, 1), 8u);
  EXPECT_EQ(cut({1, 2, 3, 4, 5, 6, 7, 8, 9}, 3), 6u);
  EXPECT_EQ(cut({1, 2, 9, 4}, 1), 2u);
  EXPECT_EQ(cut({1}, 1), 0u);
  EXPECT_EQ(cut({2, 3}, 1), 0u);
}

}  // namespace
}  // namespace kvasir
