#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "engine/testing.h"
#include "policy/panel.h"

namespace kvasir {
namespace {

using ::testing::HasSubstr;
using testing::LetterTokenizer;
using testing::TinyModel;

struct Outcome {
  std::vector<Generation> results;
  Ledger peak, end;
  uint32_t widest_pass = 0;
};

class EngineTest : public ::testing::Test {
 protected:
  static EngineOptions Options() {
    EngineOptions options;
    options.kv_memory = 1 << 20;
    options.encoding = {.k = Codec::kF32, .v = Codec::kF32};
    options.chunk = 48;
    options.step_tokens = 64;
    return options;
  }

  // Requests of many lengths, greedy and seeded, some with stops.
  static std::vector<Request> Mixed(size_t n) {
    std::mt19937 rng(5);
    std::vector<Request> requests(n);
    for (size_t i = 0; i < n; ++i) {
      const size_t length = 1 + rng() % 150;
      for (size_t t = 0; t < length; ++t) {
        requests[i].tokens.push_back(static_cast<int32_t>(1 + rng() % 39));
      }
      requests[i].max_tokens = 1 + rng() % 40;
      requests[i].sampling.temperature = i % 2 ? 0.9f : 0.0f;
      requests[i].sampling.seed = i;
      requests[i].ignore_eos = i % 3 == 0;
      if (i % 4 == 1) requests[i].stop = {"e", "qz"};
    }
    return requests;
  }

  Outcome Run(std::vector<Request> requests, const EngineOptions& options, size_t threads = 2,
              bool reversed = false) {
    TinyModel model;
    LetterTokenizer tokenizer;
    Workers workers(threads);
    Engine engine(model, &tokenizer, BestKernels(), workers, options);
    Outcome outcome;
    outcome.results.resize(requests.size());
    std::vector<size_t> order(requests.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (reversed) std::reverse(order.begin(), order.end());
    for (const size_t i : order) {
      requests[i].on_done = [&outcome, i](Generation g) { outcome.results[i] = std::move(g); };
      engine.Submit(std::move(requests[i]));
    }
    engine.RunUntilIdle();
    outcome.end = engine.ledger();
    outcome.widest_pass = model.widest_pass;
    return outcome;
  }

  void ExpectSameAsAlone(const EngineOptions& options) {
    constexpr size_t kRequests = 24;
    std::vector<Generation> alone;
    for (size_t i = 0; i < kRequests; ++i) {
      std::vector<Request> one;
      one.push_back(std::move(Mixed(kRequests)[i]));
      alone.push_back(std::move(Run(std::move(one), options).results[0]));
    }
    for (const uint32_t step_tokens : {5u, 17u, 64u}) {
      for (const size_t threads : {1, 3}) {
        EngineOptions batch = options;
        batch.step_tokens = step_tokens;
        const Outcome outcome = Run(Mixed(kRequests), batch, threads, step_tokens == 17);
        for (size_t i = 0; i < kRequests; ++i) {
          EXPECT_EQ(outcome.results[i].tokens, alone[i].tokens) << i << " step " << step_tokens;
          EXPECT_EQ(outcome.results[i].text, alone[i].text) << i;
          EXPECT_EQ(outcome.results[i].stop_reason, alone[i].stop_reason) << i;
        }
        EXPECT_LE(outcome.widest_pass, step_tokens);
        EXPECT_EQ(outcome.end.bytes, 0u);
        EXPECT_EQ(outcome.end.bytes_reserved, 0u);
        EXPECT_LE(outcome.end.bytes_peak, options.kv_memory);
      }
    }
  }
};

TEST_F(EngineTest, ARequestGivesTheSameTokensAloneAndInABatch) { ExpectSameAsAlone(Options()); }

TEST_F(EngineTest, ARequestGivesTheSameTokensAloneAndInABatchWithEviction) {
  EngineOptions options = Options();
  options.policy = "keydiff:budget=40,block=16";
  ExpectSameAsAlone(options);
}

std::string PolicyName(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

// Policies that look at queries, by block, at the prompt's end, in rounds.
class PolicyEngineTest : public EngineTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    All, PolicyEngineTest,
    ::testing::Values("h2o:budget=40,block=16", "tova:budget=40,block=16",
                      "snapkv:budget=30,window=8", "snapkv:budget=30,window=8,every=8",
                      "pyramidkv:budget=30,window=8", "adakv:budget=30,window=8",
                      "expected:budget=30,every=8,window=8", "rkv:budget=24,buffer=8",
                      "rpc:every=12,window=4", "knorm:keep=0.5,block=16"),
    PolicyName);

TEST_P(PolicyEngineTest, ARequestGivesTheSameTokensAloneAndInABatch) {
  EngineOptions options = Options();
  options.policy = GetParam();
  ExpectSameAsAlone(options);
}

// A prompt read whole and compressed afterwards is what a prompt read under the policy is.
class PromptEndEngineTest : public EngineTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void ExpectCompressedAsRead(const EngineOptions& options);
};
INSTANTIATE_TEST_SUITE_P(All, PromptEndEngineTest,
                         ::testing::Values("snapkv:budget=30,window=8",
                                           "pyramidkv:budget=30,window=8",
                                           "adakv:budget=30,window=8", "expected:budget=30,every=0",
                                           "h2o:budget=30,when=prompt", "tova:budget=30,block=512",
                                           "keydiff:budget=30,block=512",
                                           "knorm:keep=0.3,block=512"),
                         PolicyName);

TEST_P(PromptEndEngineTest, CompressingAWholePromptEqualsReadingItUnderThePolicy) {
  ExpectCompressedAsRead(Options());
}

TEST_P(PromptEndEngineTest, CompressesSealedPages) {
  EngineOptions options = Options();
  EncodingRule rule = {.codec = Codec::kSparseBF16, .recent = 32, .open = Codec::kBF16, .keep = 2};
  options.encoding.rules = {rule};
  options.encoding.seals.recent = 32;
  ExpectCompressedAsRead(options);
}

void PromptEndEngineTest::ExpectCompressedAsRead(const EngineOptions& options) {
  const std::string spec = GetParam();
  TinyModel model;
  LetterTokenizer tokenizer;
  Workers workers(2);
  Engine engine(model, &tokenizer, BestKernels(), workers, options);
  const std::shared_ptr<const Policy> policy = MakePolicy(
      spec, {.shape = model.MainLanes(options.encoding), .facts = FactsOf(model.config())});
  const auto run = [&](Request request) {
    Generation result;
    request.sampling.seed = 1;
    request.on_done = [&](Generation g) { result = std::move(g); };
    engine.Submit(std::move(request));
    engine.RunUntilIdle();
    return result;
  };
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 150; ++i) prompt.push_back(1 + (i * 7) % 39);
  const auto read = [&](std::shared_ptr<const Policy> under) {
    Request request;
    request.tokens = prompt;
    request.max_tokens = 0;
    request.keep_state = true;
    request.policy = std::move(under);
    request.track = true;
    return run(std::move(request));
  };
  const auto go_on = [&](SequenceState& state) {
    state.policy = nullptr;
    engine.Freeze(state);
    Request request;
    request.tokens = {3, 1, 4};
    request.max_tokens = 20;
    request.ignore_eos = true;
    request.fork_of = &state;
    return run(std::move(request)).tokens;
  };

  Generation under = read(policy);
  Generation whole =
      read(std::make_shared<Panel>(std::vector<std::shared_ptr<const Policy>>{policy}));
  EXPECT_EQ(whole.entries_dropped, 0u);
  EXPECT_GT(under.entries_dropped, 0u);
  engine.Freeze(*whole.state);
  const auto compressed = engine.Compress(
      *whole.state, *policy, dynamic_cast<PanelState&>(*whole.state->policy).member(0));
  EXPECT_EQ(compressed->lanes->n_entries(), under.entries);
  // Rows of four channels are no smaller for being sparse.
  if (options.encoding.rules.empty()) {
    EXPECT_LE(engine.Bytes(*compressed), under.track.peak_bytes);
    EXPECT_LT(engine.Bytes(*compressed), engine.Bytes(*whole.state));
  }
  EXPECT_EQ(go_on(*compressed), go_on(*under.state));
  engine.CheckIntegrity();
}

TEST_F(EngineTest, ARequestBringsItsOwnPolicy) {
  TinyModel model;
  LetterTokenizer tokenizer;
  Workers workers(1);
  EngineOptions options = Options();
  options.policy = "keydiff:budget=64,block=16";
  Engine engine(model, &tokenizer, BestKernels(), workers, options);
  const auto own = std::shared_ptr<const Policy>(MakePolicy(
      "streaming:budget=20,block=8,sink=2", {.shape = model.MainLanes(options.encoding)}));
  std::vector<Generation> results(2);
  for (size_t i = 0; i < 2; ++i) {
    Request request;
    for (int32_t t = 0; t < 100; ++t) request.tokens.push_back(1 + t % 39);
    request.max_tokens = 1;
    request.track = true;
    if (i == 1) request.policy = own;
    request.on_done = [&results, i](Generation g) { results[i] = std::move(g); };
    engine.Submit(std::move(request));
  }
  engine.RunUntilIdle();
  EXPECT_EQ(results[0].entries, 64u * 4);
  EXPECT_EQ(results[1].entries, 20u * 4);
  EXPECT_LE(results[1].track.peak_entries, 28u);
  EXPECT_EQ(*results[1].track.first_drop, 24u);
}

TEST_F(EngineTest, WhatDoesNotFitWaits) {
  EngineOptions options = Options();
  options.kv_memory = 64 << 10;  // a few sequences at once
  const Outcome outcome = Run(Mixed(24), options);
  for (const Generation& g : outcome.results) {
    EXPECT_FALSE(g.error) << g.error->what();
    EXPECT_TRUE(g.stop_reason != StopReason::kLength || !g.tokens.empty());
  }
  EXPECT_LE(outcome.end.bytes_peak, options.kv_memory);
  EXPECT_GT(outcome.end.bytes_peak, options.kv_memory / 3);
}

TEST_F(EngineTest, WhatCanNeverFitIsRefusedWithBothNumbers) {
  TinyModel model;
  Workers workers(1);
  EngineOptions options = Options();
  options.kv_memory = 16 << 10;
  Engine engine(model, nullptr, BestKernels(), workers, options);
  Request request;
  request.tokens.assign(400, 1);
  request.max_tokens = 4;
  try {
    engine.Submit(std::move(request));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kBudget);
    EXPECT_THAT(error.what(), HasSubstr("16384"));
    // 404 positions: 7 pages x 2 layers x 2 heads x K and V of 64 x 4 floats, three planes to a
    // slab of 4 KiB.
    EXPECT_THAT(error.what(), HasSubstr(std::to_string((7 * 4 * 2 + 2) / 3 * 4096)));
  }
}

TEST_F(EngineTest, BadPromptsAreRefused) {
  TinyModel model;
  Workers workers(1);
  Engine engine(model, nullptr, BestKernels(), workers, Options());
  EXPECT_THROW(engine.Submit({}), Error);
  Request outside;
  outside.tokens = {1, 40};
  EXPECT_THROW(engine.Submit(std::move(outside)), Error);
  Request negative;
  negative.tokens = {-1};
  EXPECT_THROW(engine.Submit(std::move(negative)), Error);
  Request longer;
  longer.tokens.assign(513, 1);
  EXPECT_THROW(engine.Submit(std::move(longer)), Error);
  EXPECT_FALSE(engine.Step());
}

TEST_F(EngineTest, StopStringsCutTheTextAndAreNeverShown) {
  std::vector<Request> probe(1);
  probe[0].tokens = {3, 4, 5};
  probe[0].max_tokens = 30;
  probe[0].sampling.temperature = 0;
  probe[0].ignore_eos = true;
  const std::string text = Run(std::move(probe), Options()).results[0].text;
  ASSERT_EQ(text.size(), 30u);
  const std::string stop = text.substr(10, 3);
  const size_t at = text.find(stop);

  std::string shown;
  std::vector<Request> stopped(1);
  stopped[0].tokens = {3, 4, 5};
  stopped[0].max_tokens = 30;
  stopped[0].sampling.temperature = 0;
  stopped[0].ignore_eos = true;
  stopped[0].stop = {stop};
  stopped[0].on_text = [&shown](const Piece& piece) { shown += piece.text; };
  const Generation g = std::move(Run(std::move(stopped), Options()).results[0]);
  EXPECT_EQ(g.text, text.substr(0, at));
  EXPECT_EQ(shown, g.text);
  EXPECT_EQ(g.stop_reason, StopReason::kStop);
  EXPECT_EQ(g.tokens.size(), at + 3);
}

TEST_F(EngineTest, ZeroTokensOnlyPrefills) {
  std::vector<Request> requests(1);
  requests[0].tokens.assign(100, 2);
  requests[0].max_tokens = 0;
  const Generation g = std::move(Run(std::move(requests), Options()).results[0]);
  EXPECT_TRUE(g.tokens.empty());
  EXPECT_EQ(g.entries, 100u * 4);
}

TEST_F(EngineTest, AnOpenEndedRequestTakesWhatAnEmptyBudgetHolds) {
  EngineOptions options = Options();
  options.kv_memory = 64 << 10;
  std::vector<Request> requests(1);
  requests[0].tokens.assign(30, 2);
  requests[0].ignore_eos = true;
  const Outcome outcome = Run(std::move(requests), options);
  const Generation& g = outcome.results[0];
  EXPECT_EQ(g.stop_reason, StopReason::kLength);
  EXPECT_EQ(g.stop_detail, "KV budget");
  EXPECT_GT(g.tokens.size(), 100u);
  EXPECT_LE(outcome.end.bytes_peak, options.kv_memory);
}

TEST_F(EngineTest, AFullContextStops) {
  std::vector<Request> requests(1);
  requests[0].tokens.assign(500, 2);
  requests[0].max_tokens = 100;
  requests[0].ignore_eos = true;
  const Generation g = std::move(Run(std::move(requests), Options()).results[0]);
  EXPECT_EQ(g.tokens.size(), 12u);
  EXPECT_EQ(g.stop_detail, "context");
}

class ForkTest : public EngineTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(ForkTest, ForksAnswerAsAWholePromptWouldAndLeaveTheParentAlone) {
  EngineOptions options = Options();
  options.policy = GetParam();
  TinyModel model;
  LetterTokenizer tokenizer;
  Workers workers(2);
  Engine engine(model, &tokenizer, BestKernels(), workers, options);
  const auto ask = [&](Request request) {
    request.max_tokens = request.max_tokens.value_or(20);
    request.sampling.temperature = 0;
    request.ignore_eos = true;
    Generation result;
    request.on_done = [&result](Generation g) { result = std::move(g); };
    engine.Submit(std::move(request));
    engine.RunUntilIdle();
    return result;
  };
  std::vector<int32_t> document;
  for (int i = 0; i < 96; ++i) document.push_back(1 + i * 7 % 39);  // a multiple of the block
  const std::vector<int32_t> questions[] = {
      {5, 6, 7}, {9}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}};

  Request read;
  read.tokens = document;
  read.max_tokens = 0;
  read.keep_state = true;
  Generation kept = ask(std::move(read));
  ASSERT_TRUE(kept.state);
  engine.Freeze(*kept.state);
  const uint64_t held = engine.ledger().bytes;
  for (int round = 0; round < 2; ++round) {
    for (const std::vector<int32_t>& question : questions) {
      Request fork;
      fork.tokens = question;
      fork.fork_of = kept.state.get();
      Request whole;
      whole.tokens = document;
      whole.tokens.insert(whole.tokens.end(), question.begin(), question.end());
      EXPECT_EQ(ask(std::move(fork)).tokens, ask(std::move(whole)).tokens);
      EXPECT_EQ(engine.ledger().bytes, held);
    }
  }
  kept.state.reset();
  EXPECT_EQ(engine.ledger().bytes, 0u);
  EXPECT_EQ(engine.ledger().bytes_reserved, 0u);
}

INSTANTIATE_TEST_SUITE_P(Policies, ForkTest,
                         ::testing::Values("", "keydiff:budget=40,block=16",
                                           "streaming:budget=40,block=16"));

TEST_F(EngineTest, ARequestThatStatesHeldOutsideKeepOutIsRefusedAndSaysSo) {
  TinyModel model;
  LetterTokenizer tokenizer;
  Workers workers(1);
  EngineOptions options = Options();
  options.kv_memory = 64 << 10;
  Engine engine(model, &tokenizer, BestKernels(), workers, options);
  Generation kept, refused;
  Request read;
  read.tokens.assign(300, 2);
  read.max_tokens = 0;
  read.keep_state = true;
  read.on_done = [&kept](Generation g) { kept = std::move(g); };
  engine.Submit(std::move(read));
  engine.RunUntilIdle();
  ASSERT_TRUE(kept.state);
  Request other;
  other.tokens.assign(200, 3);
  other.max_tokens = 10;
  other.on_done = [&refused](Generation g) { refused = std::move(g); };
  engine.Submit(std::move(other));
  EXPECT_TRUE(engine.Step());  // refusing is something done
  ASSERT_TRUE(refused.error);
  EXPECT_THAT(refused.error->what(), HasSubstr("65536"));
  EXPECT_FALSE(engine.Step());
}

TEST_F(EngineTest, AConversationGoesOnFromItsOwnState) {
  TinyModel model;
  LetterTokenizer tokenizer;
  Workers workers(1);
  Engine engine(model, &tokenizer, BestKernels(), workers, Options());
  std::unique_ptr<SequenceState> state;
  std::vector<int32_t> said, tokens;
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<int32_t> prompt;
    if (!said.empty()) prompt.push_back(said.back());  // sampled last, not yet in the lanes
    for (int i = 0; i < 30; ++i) prompt.push_back(1 + (turn * 31 + i) % 39);
    Request next;
    next.tokens = prompt;
    next.max_tokens = 10;
    next.sampling.temperature = 0;
    next.ignore_eos = true;
    next.keep_state = true;
    next.resume = std::move(state);
    next.on_done = [&](Generation g) {
      ASSERT_FALSE(g.error) << g.error->what();
      said = g.tokens;
      state = std::move(g.state);
    };
    engine.Submit(std::move(next));
    engine.RunUntilIdle();

    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    std::vector<Request> whole(1);
    whole[0].tokens = tokens;
    whole[0].max_tokens = 10;
    whole[0].sampling.temperature = 0;
    whole[0].ignore_eos = true;
    EXPECT_EQ(Run(std::move(whole), Options()).results[0].tokens, said);
    tokens.insert(tokens.end(), said.begin(), said.end() - 1);
  }
}

TEST_F(EngineTest, ARequestThatFailsFailsAlone) {
  TinyModel model;
  model.poison = 13;
  LetterTokenizer tokenizer;
  Workers workers(1);
  Engine engine(model, &tokenizer, BestKernels(), workers, Options());
  std::vector<Generation> results(3);
  for (int i = 0; i < 3; ++i) {
    Request request;
    request.tokens = {1, 2, i == 1 ? 13 : 3};
    request.max_tokens = 5;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    request.stop = {"n"};  // token 13 and 39 are the letter n: end before it comes around
    request.on_done = [&results, i](Generation g) {
      results[static_cast<size_t>(i)] = std::move(g);
    };
    engine.Submit(std::move(request));
  }
  engine.RunUntilIdle();
  EXPECT_FALSE(results[0].error);
  ASSERT_TRUE(results[1].error);
  EXPECT_THAT(results[1].error->what(), HasSubstr("not a number"));
  EXPECT_FALSE(results[2].error);
  EXPECT_EQ(results[0].tokens, results[2].tokens);
  EXPECT_EQ(engine.ledger().bytes, 0u);
}

TEST_F(EngineTest, CancelGivesEverythingBackAndReportsOnce) {
  TinyModel model;
  LetterTokenizer tokenizer;
  Workers workers(1);
  EngineOptions options = Options();
  options.max_sequences = 1;
  Engine engine(model, &tokenizer, BestKernels(), workers, options);
  std::vector<StopReason> reasons;
  std::vector<RequestId> ids;
  for (int i = 0; i < 2; ++i) {
    Request request;
    request.tokens.assign(40, 3);
    request.max_tokens = 50;
    request.ignore_eos = true;
    request.on_done = [&reasons](Generation g) { reasons.push_back(g.stop_reason); };
    ids.push_back(engine.Submit(std::move(request)));
  }
  ASSERT_TRUE(engine.Step());
  EXPECT_EQ(engine.n_running(), 1u);
  EXPECT_EQ(engine.n_waiting(), 1u);
  engine.Cancel(ids[1]);
  engine.Cancel(ids[0]);
  engine.Cancel(ids[0]);
  EXPECT_EQ(reasons, (std::vector<StopReason>{StopReason::kCancelled, StopReason::kCancelled}));
  EXPECT_EQ(engine.ledger().bytes_reserved, 0u);
  EXPECT_FALSE(engine.Step());
}

TEST_F(EngineTest, ScoreSeesWhatGenerationSees) {
  EngineOptions options = Options();
  options.policy = "keydiff:budget=40,block=16";
  TinyModel model;
  Workers workers(1);
  Engine engine(model, nullptr, BestKernels(), workers, options);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 160; ++i) tokens.push_back(1 + i * 11 % 39);
  std::vector<float> last;
  uint32_t rows = 0;
  const auto result = engine.Score(tokens, [&](uint32_t row, std::span<const float> logits) {
    EXPECT_EQ(row, rows++);
    last.assign(logits.begin(), logits.end());
  });
  EXPECT_EQ(rows, 160u);
  EXPECT_EQ(result.entries, 40u * 4);
  const auto best = std::max_element(last.begin(), last.end()) - last.begin();

  std::vector<Request> same(1);
  same[0].tokens = tokens;
  same[0].max_tokens = 1;
  same[0].sampling.temperature = 0;
  same[0].ignore_eos = true;
  EXPECT_EQ(Run(std::move(same), options).results[0].tokens,
            std::vector<int32_t>{static_cast<int32_t>(best)});
  EXPECT_EQ(engine.ledger().bytes, 0u);
}

}  // namespace
}  // namespace kvasir
