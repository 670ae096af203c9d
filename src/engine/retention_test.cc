// Retention as a whole: policies under an engine, on a small model with attention.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <map>
#include <random>

#include "engine/engine.h"
#include "engine/scoring.h"
#include "engine/testing.h"
#include "policy/selection.h"

namespace kvasir {
namespace {

using testing::Greedy;
using testing::LetterTokenizer;
using testing::TinyModel;

using Tokens = std::vector<int32_t>;

Tokens RandomTokens(size_t n, uint32_t vocabulary, uint32_t seed) {
  std::mt19937 rng(seed);
  Tokens tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(1 + rng() % (vocabulary - 1));
  return tokens;
}

// Two layers, four query heads over two KV heads, random weights.
class SmallModel : public testing::Client {
 public:
  explicit SmallModel(const std::string& policy, uint32_t prefix_interval = 0)
      : Client(engine_),
        file_(ModelFile::Open(std::string(KVASIR_SOURCE_DIR) + "/src/model/testdata/llama_gqa2")),
        model_(Model::Load(file_, BestKernels(), workers_,
                           {.compute = Compute::kFast, .max_rows = 64})),
        engine_(*model_, nullptr, BestKernels(), workers_,
                {.kv_memory = 4 << 20,
                 .policy = policy,
                 .step_tokens = 64,
                 .chunk = 48,
                 .prefix_interval = prefix_interval}) {}

  static constexpr uint32_t kVocabulary = 80;
  Engine& engine() { return engine_; }

  // Logits after every token.
  std::vector<std::vector<float>> Score(const Tokens& tokens, uint32_t prompt_end) {
    std::vector<std::vector<float>> logits;
    Scoring scoring(engine_, tokens, prompt_end);
    while (!scoring.done()) {
      scoring.Pass(33, [&](uint32_t position, std::span<const float> row) {
        CHECK(position == logits.size());
        logits.emplace_back(row.begin(), row.end());
      });
    }
    dropped = scoring.lanes().dropped();
    return logits;
  }

  uint64_t dropped = 0;  // of the last Score

 private:
  Workers workers_{2};
  ModelFile file_;
  std::unique_ptr<Model> model_;
  Engine engine_;
};

TEST(Retention, ABudgetThatIsNeverReachedChangesNoBit) {
  const Tokens tokens = RandomTokens(160, SmallModel::kVocabulary, 1);
  const auto dense = SmallModel("").Score(tokens, 100);
  for (const Traits* traits : AllPolicies()) {
    const std::string name(traits->name);
    std::vector<std::string> specs;
    if (traits->sharing == Sharing::kGrid) {
      for (const int block : {1, 7, 128}) {
        specs.push_back(fmt::format("{}:budget=160,block={}", name, block));
      }
    } else if (traits->hides) {
      specs = {name + ":budget=160,skip=0", name + ":budget=160,part=64,skip=1"};
    } else if (name == "rpc") {
      specs = {"rpc:every=160,window=4", "rpc"};
    } else {
      specs = {name + ":budget=160"};
    }
    for (const std::string& spec : specs) {
      SmallModel model(spec);
      EXPECT_EQ(model.Score(tokens, 100), dense) << spec;
      EXPECT_EQ(model.dropped, 0u) << spec;
    }
  }
}

// The pass that fires a round sees all there was, and the next one no more.
TEST(Retention, APassDoesNotSeeWhatItCauses) {
  constexpr uint32_t kPrompt = 60;
  const Tokens tokens = RandomTokens(200, SmallModel::kVocabulary, 2);
  const auto dense = SmallModel("").Score(tokens, kPrompt);
  const std::map<std::string, uint32_t> first_drop = {
      {"rpc:every=24,window=6,ratio=4", kPrompt + 30},
      {"rpc:every=24,window=6,ratio=4,heads=group", kPrompt + 30},
      {"snapkv:budget=24,window=6", kPrompt},
      {"expected:budget=24", kPrompt},
      {"rkv:budget=70,buffer=20", 90},
      {"keydiff:budget=40,block=16", 48},
      {"h2o:budget=40,block=16", 48},
      {"tova:budget=40,block=16", 48}};
  for (const auto& [spec, tokens_read] : first_drop) {
    SmallModel model(spec);
    const auto logits = model.Score(tokens, kPrompt);
    EXPECT_GT(model.dropped, 0u);
    for (uint32_t i = 0; i < tokens_read; ++i) {
      ASSERT_EQ(logits[i], dense[i]) << spec << " token " << i;
    }
    EXPECT_NE(logits[tokens_read], dense[tokens_read]) << spec;
  }
}

// Decoded K and V rows of a lane's first `n` live entries.
std::vector<std::vector<float>> FirstRows(const LaneView& lane, uint32_t n) {
  std::vector<std::vector<float>> rows;
  const uint32_t dim = lane.head_dim;
  std::vector<float> k(kPageEntries * dim), v(kPageEntries * dim);
  const PlaneKernels& kernels = BestKernels().planes;
  for (uint32_t p = 0; p < lane.n_pages && rows.size() < n; ++p) {
    const PageView& page = lane.pages[p];
    kernels.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim), k.data());
    kernels.expand_v[page.v_form.index()](page.v, page.v_form.Shape(dim), v.data());
    for (uint64_t live = page.live; live != 0 && rows.size() < n; live &= live - 1) {
      const auto slot = static_cast<uint32_t>(std::countr_zero(live));
      std::vector<float> row = {static_cast<float>(page.position(slot))};
      for (uint32_t c = 0; c < dim; ++c) row.push_back(k[c * kPageEntries + slot]);
      row.insert(row.end(), v.begin() + slot * dim, v.begin() + (slot + 1) * dim);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

TEST(Retention, RpcLeavesThePromptAsItWas) {
  constexpr uint32_t kPrompt = 75;
  const Tokens prompt = RandomTokens(kPrompt, SmallModel::kVocabulary, 3);
  const auto read = [&](SmallModel& model, uint32_t more) {
    Request request = Greedy(prompt, more);
    request.keep_state = true;
    return model.Ask(std::move(request));
  };
  SmallModel dense(""), rpc("rpc:every=16,window=4,ratio=4");
  const Generation before = read(dense, 0), after = read(rpc, 150);
  EXPECT_GT(after.entries_dropped, 0u);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    for (uint32_t head = 0; head < 2; ++head) {
      const auto rows = FirstRows(dense.engine().View(*before.state, layer, head), kPrompt);
      ASSERT_EQ(rows.size(), kPrompt);
      EXPECT_EQ(FirstRows(rpc.engine().View(*after.state, layer, head), kPrompt), rows);
    }
  }
}

// Tokens and the log probabilities they were drawn with, to the bit.
void ExpectSame(const Generation& a, const Generation& b) {
  ASSERT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size());
  for (size_t i = 0; i < a.logprobs.size(); ++i) {
    ASSERT_EQ(a.logprobs[i].logprob, b.logprobs[i].logprob) << i;
    ASSERT_EQ(a.logprobs[i].top, b.logprobs[i].top) << i;
  }
}

std::string SpecName(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

// Whether a policy dropped or hid something of what there was.
bool Acted(const Generation& g) {
  return g.entries_dropped > 0 || (g.reads && g.reads->hidden > 0);
}

class NeighbourTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Policies, NeighbourTest,
                         ::testing::Values("keydiff:budget=40,block=16", "h2o:budget=40,block=16",
                                           "tova:budget=40,block=16",
                                           "snapkv:budget=30,window=8,every=12",
                                           "adakv:budget=30,window=8",
                                           "expected:budget=30,every=12,window=8",
                                           "rkv:budget=24,buffer=12", "rpc:every=12,window=6",
                                           "quest:budget=12,part=4,skip=0"),
                         SpecName);

TEST_P(NeighbourTest, OneThatIsAbortedInAWindowLeavesNoTrace) {
  const auto request = [](uint32_t seed, size_t prompt) {
    Request r = Greedy(RandomTokens(prompt, SmallModel::kVocabulary, seed), 60);
    r.logprobs = 3;
    return r;
  };
  const Generation alone = SmallModel(GetParam()).Ask(request(1, 70));
  EXPECT_TRUE(Acted(alone));
  // In its prompt, at its end, in a window before a round.
  for (const uint32_t generated : {0u, 1u, 16u}) {
    SmallModel model(GetParam());
    const auto kept = model.Start(request(1, 70));
    model.Start(request(2, 50));
    const RequestId aborted = model.last_id;
    for (;;) {
      ASSERT_TRUE(model.engine().Step());
      const auto lines = model.engine().sequences();
      const auto line = std::find_if(lines.begin(), lines.end(),
                                     [&](const SequenceLine& s) { return s.id == aborted; });
      if (line != lines.end() && line->position > 0 && line->generated_tokens >= generated) break;
    }
    model.engine().Cancel(aborted);
    const auto late = model.Start(request(3, 90));  // takes the place
    model.engine().RunUntilIdle();
    ASSERT_NO_FATAL_FAILURE(ExpectSame(**kept, alone)) << "aborted at " << generated;
    ASSERT_NO_FATAL_FAILURE(ExpectSame(**late, SmallModel(GetParam()).Ask(request(3, 90))));
    EXPECT_EQ(model.engine().ledger().bytes, 0u);
    EXPECT_EQ(model.engine().ledger().bytes_side, 0u);
    EXPECT_EQ(model.engine().ledger().bytes_reserved, 0u);
  }
}

class WarmTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Policies, WarmTest,
                         ::testing::Values("keydiff:budget=40,block=16", "h2o:budget=40,block=16",
                                           "h2o:budget=40,block=16,norm=lifetime",
                                           "tova:budget=40,block=16", "knorm:budget=40,block=16",
                                           "streaming:budget=40,block=16,sink=4",
                                           "random:budget=40,block=16", "h2o:budget=200,block=16",
                                           "rpc:every=12,window=6", "snapkv:budget=40,window=10",
                                           "rkv:budget=40,buffer=20",
                                           "quest:budget=12,part=4,skip=1"),
                         SpecName);

TEST_P(WarmTest, APrefixHitEqualsAColdRunBitForBit) {
  SmallModel warm(GetParam(), 32);
  const Tokens document = RandomTokens(120, SmallModel::kVocabulary, 5);
  const auto request = [&](int32_t question) {
    Request r = Greedy(document, 40);
    r.tokens.insert(r.tokens.end(), {question, 3, 5, 7, 2, 9, 11, 4, 6, 8, 10, 12, 14});
    r.logprobs = 5;
    return r;
  };
  warm.Ask(request(1));
  for (const int32_t question : {2, 3}) {
    const Generation g = warm.Ask(request(question));
    EXPECT_GE(g.cached_tokens, 96u);
    ASSERT_NO_FATAL_FAILURE(ExpectSame(g, SmallModel(GetParam()).Ask(request(question))));
  }
}

// What was written by rows that did not read all there was is no prompt's: others read it anew.
TEST(Retention, AnswersOfRowsThatChoseWhatToReadAreNotShared) {
  const std::string policy = "quest:budget=64,part=8,skip=0";
  const Tokens prompt = RandomTokens(50, SmallModel::kVocabulary, 6);
  const Tokens written = SmallModel(policy).Ask(Greedy(prompt, 60)).tokens;
  Tokens second = prompt;
  second.insert(second.end(), written.begin(), written.begin() + 50);
  second.push_back(7);
  const auto request = [&] {
    Request r = Greedy(second, 20);
    r.logprobs = 5;
    return r;
  };
  const Generation cold = SmallModel(policy).Ask(request());
  for (const bool running : {false, true}) {
    SmallModel model(policy, 32);
    const auto first = model.Start(Greedy(prompt, 60));
    while (model.engine().Step()) {
      const auto lines = model.engine().sequences();
      if (running && !lines.empty() && lines[0].generated_tokens > 55) break;
    }
    const Generation again = model.Ask(request());
    // 64 entries are read whole; the row at position 64 is the first that leaves some out.
    EXPECT_EQ(again.cached_tokens, 64u) << running;
    ASSERT_NO_FATAL_FAILURE(ExpectSame(again, cold)) << running;
  }
}

class TurnTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    Policies, TurnTest,
    ::testing::Values("keydiff:budget=40,block=16", "h2o:budget=40,block=16",
                      "tova:budget=40,block=16", "snapkv:budget=30,window=8",
                      "snapkv:budget=30,window=8,every=12", "pyramidkv:budget=30,window=8",
                      "adakv:budget=30,window=8,floor=0,every=7",
                      "expected:budget=30,every=12,window=8", "rkv:budget=24,buffer=12",
                      "rpc:every=12,window=6", "rpc:every=12,window=6,heads=group",
                      "rpc:every=12,window=6,turn=continue", "quest:budget=12,part=4,skip=0"),
    SpecName);

// Turns of a conversation and forks of what is kept, within what was granted, side by side with
// others: the integrity checks see every page.
TEST_P(TurnTest, ConversationsAndForksGoOn) {
  SmallModel model(GetParam());
  const auto turn = [&](std::unique_ptr<SequenceState> state, uint32_t seed) {
    Request request = Greedy(RandomTokens(50, SmallModel::kVocabulary, seed), 30);
    request.resume = std::move(state);
    request.keep_state = true;
    request.logprobs = 2;
    return model.Ask(std::move(request));
  };
  Generation first = turn(nullptr, 1);
  ASSERT_FALSE(first.error);
  Generation second = turn(std::move(first.state), 2);
  ASSERT_FALSE(second.error);
  EXPECT_TRUE(Acted(second));
  ASSERT_TRUE(second.state);
  model.engine().Freeze(*second.state);
  const uint64_t held = model.engine().ledger().bytes;
  const auto fork = [&](size_t question) {
    Request request = Greedy(RandomTokens(question, SmallModel::kVocabulary, 3), 30);
    request.fork_of = second.state.get();
    request.logprobs = 2;
    return request;
  };
  for (const size_t question : {3, 60}) {
    const Generation alone = model.Ask(fork(question));
    ASSERT_FALSE(alone.error);
    // Beside a sibling and a stranger.
    const auto a = model.Start(fork(question)), b = model.Start(fork(63 - question));
    const auto c = model.Start(Greedy(RandomTokens(77, SmallModel::kVocabulary, 4), 40));
    while (model.engine().Step()) model.engine().CheckIntegrity();
    ASSERT_NO_FATAL_FAILURE(ExpectSame(**a, alone));
    EXPECT_FALSE((*b)->error);
    EXPECT_FALSE((*c)->error);
    EXPECT_EQ(model.engine().ledger().bytes, held);
  }
  second.state.reset();
  EXPECT_EQ(model.engine().ledger().bytes, 0u);
  EXPECT_EQ(model.engine().ledger().bytes_reserved, 0u);
}

// A model that notes who was shown queries.
class WatchedModel : public TinyModel {
 public:
  using TinyModel::TinyModel;
  void Forward(std::span<const Segment> segments, const LogitsSink& sink,
               const QuerySink& query_sink, const ViewSink& view_sink) override {
    with_sink += query_sink != nullptr;
    for (const Segment& segment : segments) query_rows += segment.query_rows;
    TinyModel::Forward(segments, sink, query_sink, view_sink);
  }
  uint64_t with_sink = 0, query_rows = 0;
};

// A tiny engine and what it ran.
struct Tiny {
  explicit Tiny(const char* policy, uint64_t kv_memory = 1 << 20, uint32_t context = 512)
      : model(64, context),
        engine(model, &tokenizer, BestKernels(), workers,
               {.kv_memory = kv_memory,
                .policy = policy,
                .encoding = {.k = Codec::kF32, .v = Codec::kF32},
                .step_tokens = 64,
                .chunk = 48}) {}
  std::shared_ptr<std::optional<Generation>> Start(Request request) {
    auto result = std::make_shared<std::optional<Generation>>();
    request.on_done = [result](Generation g) { *result = std::move(g); };
    engine.Submit(std::move(request));
    return result;
  }
  WatchedModel model;
  LetterTokenizer tokenizer;
  Workers workers{2};
  Engine engine;
};

TEST(Retention, WhoAsksForNoEvidencePaysNothing) {
  for (const char* policy : {"", "keydiff:budget=40,block=16", "knorm:budget=40,block=16",
                             "streaming:budget=40,block=16", "random:budget=40,block=16"}) {
    Tiny tiny(policy);
    tiny.Start(Greedy(RandomTokens(100, 40, 1), 30));
    while (tiny.engine.Step()) {
      ASSERT_EQ(tiny.engine.ledger().bytes_side, 0u) << policy;
    }
    EXPECT_EQ(tiny.model.with_sink, 0u) << policy;
    EXPECT_EQ(tiny.model.query_rows, 0u) << policy;
  }
}

// Moments of all queries are for a prompt's end: where no other follows, an answer adds none.
TEST(Retention, AnswersThatNobodyGoesOnFromAddNoMoments) {
  for (const bool kept : {false, true}) {
    for (const char* every : {"0", "12"}) {
      Tiny tiny(fmt::format("expected:budget=40,window=8,every={}", every).c_str());
      Request request = Greedy(RandomTokens(100, 40, 1), 30);
      request.keep_state = kept;
      const auto result = tiny.Start(std::move(request));
      tiny.engine.RunUntilIdle();
      EXPECT_GT((*result)->entries_dropped, 0u);
      // With further selections the last rows are recorded, not summed.
      EXPECT_EQ(tiny.model.query_rows, !kept && *every == '0' ? 100u : 129u);
      (*result)->state.reset();
    }
  }
}

TEST(Retention, EvidenceIsAskedForAndCounted) {
  Tiny tiny("snapkv:budget=40,window=8");
  const auto result = tiny.Start(Greedy(RandomTokens(100, 40, 1), 30));
  tiny.engine.Step();
  // 8 rows x 2 heads x 4 channels x 2 layers, f32 as the lanes are.
  EXPECT_EQ(tiny.engine.ledger().bytes_side, 8u * 2 * 4 * 2 * 4);
  tiny.engine.RunUntilIdle();
  EXPECT_GT(tiny.model.with_sink, 0u);
  EXPECT_EQ(tiny.engine.ledger().bytes_side, 0u);
}

// D1: entries of a lane, before the plan of a pass takes effect.
TEST(Retention, KeyDiffPeaksAtABlockMoreAndOneMoreInGeneration) {
  constexpr uint32_t kBudget = 16;
  for (const uint32_t block : {4u, 16u, 48u}) {
    for (const uint32_t prompt : {kBudget - 3, 3 * kBudget + 5, 64 * kBudget}) {
      Tiny tiny(fmt::format("keydiff:budget={},block={}", kBudget, block).c_str(), 1 << 20, 2048);
      Request request = Greedy(RandomTokens(prompt, 40, 1), 3 * kBudget);
      request.track = true;
      const auto result = tiny.Start(std::move(request));
      tiny.engine.RunUntilIdle();
      const uint32_t peak = (*result)->track.peak_entries;
      if (prompt < kBudget) {
        EXPECT_EQ(peak, kBudget + 1) << "generation alone";
      } else {
        EXPECT_LE(peak, kBudget + block);
      }
      if (prompt == 64 * kBudget) {
        EXPECT_EQ(peak, kBudget + block);
      }
    }
  }
}

// What a dropped prompt no longer needs lets the next one in.
TEST(Retention, APromptThatWasDroppedFromMakesRoom) {
  // A slab of 4 KiB holds three planes, a page of all lanes is 8 planes: 7 pages for the first
  // prompt, 5 for the second, 4 (ragged: 5) for what the first keeps and writes.
  constexpr uint64_t kMemory = 120 << 10;
  for (const char* policy : {"snapkv:budget=30,window=8", "adakv:budget=30,window=8",
                             "expected:budget=30,every=0,window=8", "rkv:budget=30,buffer=8"}) {
    Tiny tiny(policy, kMemory);
    const auto a = tiny.Start(Greedy(RandomTokens(400, 40, 1), 40));
    const auto b = tiny.Start(Greedy(RandomTokens(280, 40, 2), 10));
    size_t alone = 0, together = 0;
    while (tiny.engine.Step()) {
      tiny.engine.CheckIntegrity();
      ASSERT_LE(tiny.engine.ledger().bytes_reserved, kMemory);
      if (tiny.engine.n_running() == 2) ++together;
      if (tiny.engine.n_running() == 1 && tiny.engine.n_waiting() == 1) {
        ++alone;
        EXPECT_EQ(together, 0u);
        ASSERT_LE(tiny.engine.sequences()[0].position, 400u) << policy;
      }
    }
    EXPECT_GE(alone, 7u) << policy << ": it did not wait for the prompt";
    EXPECT_GE(together, 5u) << policy;
    EXPECT_FALSE((*a)->error);
    EXPECT_FALSE((*b)->error);
    EXPECT_EQ((*a)->tokens.size(), 40u);
    EXPECT_EQ((*b)->tokens.size(), 10u);
    const Ledger end = tiny.engine.ledger();
    EXPECT_EQ(end.bytes, 0u) << policy;
    EXPECT_EQ(end.bytes_side, 0u) << policy;
    EXPECT_EQ(end.bytes_reserved, 0u) << policy;
    EXPECT_EQ(end.bytes_committed, 0u) << policy;
  }
}

// D7: ragged lists never take more than was reserved, and nothing that fits is turned away.
class RandomRuns : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Policies, RandomRuns,
                         ::testing::Values("adakv:budget=40,window=8,floor=0.1",
                                           "adakv:budget=40,window=8,floor=0,every=9",
                                           "pyramidkv:budget=40,window=8,every=9",
                                           "rpc:every=12,window=6,heads=group"),
                         SpecName);

TEST_P(RandomRuns, ReservedIsNeverLessThanUsedAndNothingThatFitsIsRefused) {
  constexpr uint64_t kMemory = 192 << 10;
  Tiny tiny(GetParam(), kMemory);
  std::mt19937 rng(7);
  std::vector<std::shared_ptr<std::optional<Generation>>> results;
  std::vector<size_t> wanted;
  const auto step = [&] {
    const bool more = tiny.engine.Step();
    const Ledger ledger = tiny.engine.ledger();
    CHECK(ledger.bytes <= ledger.bytes_reserved && ledger.bytes_reserved <= kMemory);
    return more;
  };
  for (int i = 0; i < 1000; ++i) {
    const size_t prompt = 1 + rng() % 200;
    wanted.push_back(1 + rng() % 60);
    Request request = Greedy(RandomTokens(prompt, 40, rng()), static_cast<uint32_t>(wanted.back()));
    if (i % 3 == 0 && prompt > 20) request.pinned = {{0, 9}};
    results.push_back(tiny.Start(std::move(request)));
    for (size_t n = rng() % 12; n > 0; --n) step();
    if (i % 100 == 0) tiny.engine.CheckIntegrity();
  }
  while (step()) {
  }
  for (size_t i = 0; i < results.size(); ++i) {
    ASSERT_TRUE(results[i]->has_value());
    ASSERT_FALSE((*results[i])->error) << (*results[i])->error->what();
    ASSERT_EQ((*results[i])->tokens.size(), wanted[i]);
  }
  EXPECT_GT(tiny.engine.ledger().entries_dropped, 0u);
  EXPECT_GT(tiny.engine.ledger().bytes_reserved_peak, kMemory * 3 / 4) << "memory was short";
  EXPECT_EQ(tiny.engine.ledger().bytes, 0u);
  EXPECT_EQ(tiny.engine.ledger().bytes_reserved, 0u);
}

}  // namespace
}  // namespace kvasir
