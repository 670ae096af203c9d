// On a model whose answers are known, accuracy under every policy, budget and mode is the computed
// one: an answer is right iff the entry it needs is alive.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <random>
#include <set>

#include "engine/constructed_model.h"
#include "engine/engine.h"
#include "policy/selection.h"

namespace kvasir {
namespace {

using Tokens = std::vector<int32_t>;

constexpr uint32_t kContext = 384, kBlock = 16, kPairs = 28;

class ConstructedTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const test::TempFolder folder;
    const std::string path = folder.path() + "/constructed.gguf";
    const test::Bytes bytes = test::ConstructedModel(1024).Build();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    workers_ = new Workers(2);
    file_ = new ModelFile(ModelFile::Open(path));
    model_ =
        Model::Load(*file_, BestKernels(), *workers_, {.compute = Compute::kExact, .max_rows = 64})
            .release();
  }
  static void TearDownTestSuite() {
    delete model_;
    delete file_;
    delete workers_;
  }
  static inline Workers* workers_ = nullptr;
  static inline ModelFile* file_ = nullptr;
  static inline Model* model_ = nullptr;
};

// Pairs at even places among tokens that mean nothing. Where a pass or a part may begin, and the
// token before is not seen, there is no key: it would take itself for what it follows.
struct Text {
  Tokens tokens;
  std::vector<int32_t> keys, values;
  std::vector<uint32_t> places;  // of the values

  explicit Text(uint32_t seed, uint32_t first = 0) {
    std::mt19937 rng(seed);
    tokens.resize(kContext);
    for (int32_t& token : tokens) token = 64 + static_cast<int32_t>(rng() % 32);
    std::set<uint32_t> at;
    while (at.size() < kPairs) {
      const uint32_t place = 2 * (rng() % (kContext / 2));
      if (place % kBlock != 0 && (place + first) % kBlock != 0) at.insert(place);
    }
    keys.resize(kPairs);
    std::iota(keys.begin(), keys.end(), 0);
    std::shuffle(keys.begin(), keys.end(), rng);
    for (const uint32_t place : at) {
      const int32_t key = keys[places.size()];
      tokens[place] = key;
      tokens[place + 1] = 32 + (key + static_cast<int32_t>(seed)) % 32;
      values.push_back(tokens[place + 1]);
      places.push_back(first + place + 1);
    }
  }
};

struct Case {
  const char* spec;
  bool block = true;  // its points in a prompt are the blocks
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.spec; }

class Policies : public ConstructedTest, public ::testing::WithParamInterface<Case> {
 protected:
  static std::string Spec(uint32_t budget) {
    std::string spec = GetParam().spec;
    if (const size_t at = spec.find("{}"); at != spec.npos) {
      spec.replace(at, 2, std::to_string(budget));
    }
    return spec;
  }
  struct Session {
    explicit Session(const std::string& policy)
        : engine(*model_, nullptr, BestKernels(), *workers_,
                 {.kv_memory = 16 << 20,
                  .policy = policy,
                  .encoding = {.k = Codec::kF32, .v = Codec::kF32},
                  .step_tokens = 64,
                  .chunk = 48}) {}
    Generation Run(Request request) {
      Generation result;
      request.sampling.temperature = 0;
      request.on_done = [&result](Generation g) { result = std::move(g); };
      engine.Submit(std::move(request));
      engine.RunUntilIdle();
      CHECK(!result.error);
      return result;
    }
    // The state behind a request that generates nothing.
    Generation Read(Request request) {
      request.max_tokens = 0;
      request.keep_state = true;
      return Run(std::move(request));
    }
    Engine engine;
  };
  // The token that means nothing between context and question is the one before the key.
  static Tokens Question(int32_t key) { return {95, key}; }
  static std::set<uint32_t> Alive(const Session& session, const SequenceState& state) {
    std::vector<uint32_t> positions;
    GatherPositions(session.engine.View(state, test::kRetrievalLayer, test::kRetrievalHead),
                    &positions);
    return {positions.begin(), positions.end()};
  }
};

// Many questions from one state: `agnostic` with one, `multi` with all of them.
TEST_P(Policies, ManyQuestionsOfOneStateAreAnsweredAsComputed) {
  size_t right = 0, lost = 0;
  for (const uint32_t budget : {16u, 120u, 400u}) {
    const Text text(budget);
    Session session(Spec(budget));
    const Generation context = session.Read({.tokens = text.tokens});
    const std::set<uint32_t> alive = Alive(session, *context.state);
    session.engine.Freeze(*context.state);
    for (size_t i = 0; i < kPairs; ++i) {
      Request ask;
      ask.tokens = Question(text.keys[i]);
      ask.max_tokens = 1;
      ask.fork_of = context.state.get();
      const bool is_right = session.Run(std::move(ask)).tokens == Tokens{text.values[i]};
      ASSERT_EQ(is_right, alive.count(text.places[i]) > 0)
          << Spec(budget) << " key " << text.keys[i];
      ++(is_right ? right : lost);
    }
  }
  EXPECT_GE(right, kPairs) << "a budget beyond the text loses nothing";
  EXPECT_EQ(lost > 0, std::string_view(GetParam().spec).find("{}") != std::string_view::npos &&
                          !std::string_view(GetParam().spec).starts_with("quest"));
}

// `aware`: the question ends the prompt; what was dropped at blocks before it is gone, a policy
// that waits for the prompt's end has it all.
TEST_P(Policies, AQuestionThatEndsThePromptIsAnsweredAsComputed) {
  for (const uint32_t budget : {16u, 100u}) {
    const Text text(3);
    Session session(Spec(budget));
    const Generation context = session.Read({.tokens = text.tokens});
    const std::set<uint32_t> alive = Alive(session, *context.state);
    for (size_t i = 0; i < kPairs; i += 3) {
      Request ask;
      ask.tokens = text.tokens;
      for (const int32_t token : Question(text.keys[i])) ask.tokens.push_back(token);
      ask.max_tokens = 1;
      const bool is_right = session.Run(std::move(ask)).tokens == Tokens{text.values[i]};
      ASSERT_EQ(is_right, !GetParam().block || alive.count(text.places[i]) > 0)
          << Spec(budget) << " key " << text.keys[i];
    }
  }
}

// The text as an answer that was written, of which policies drop by their rules for answers. Not
// those that choose at every token beyond their budget: they may part a pair.
class WritingPolicies : public Policies {};

TEST_P(WritingPolicies, WhatWasWrittenIsAnsweredAsComputed) {
  const Text text(4, /*first=*/2);
  for (const uint32_t budget : {40u, 160u}) {
    Session session(Spec(budget));
    const auto write = [&] {
      Request request;
      request.tokens = {95, 94};
      request.forced = text.tokens;
      return request;
    };
    const Generation written = session.Read(write());
    const std::set<uint32_t> alive = Alive(session, *written.state);
    const bool hides = written.reads.has_value();
    session.engine.Freeze(*written.state);
    for (size_t i = 0; i < kPairs; i += 3) {
      Request ask;
      // What hides is asked behind what was written, by a row that chooses; others by a next turn.
      if (hides) {
        ask = write();
        for (const int32_t token : Question(text.keys[i])) ask.forced.push_back(token);
      } else {
        ask.tokens = Question(text.keys[i]);
        ask.fork_of = written.state.get();
      }
      ask.max_tokens = 1;
      const bool is_right = session.Run(std::move(ask)).tokens == Tokens{text.values[i]};
      ASSERT_EQ(is_right, alive.count(text.places[i]) > 0)
          << Spec(budget) << " key " << text.keys[i];
    }
  }
}

const Case kCases[] = {{"", false},
                       {"keydiff:budget={},block=16"},
                       {"knorm:budget={},block=16"},
                       {"streaming:budget={},block=16"},
                       {"h2o:budget={},block=16"},
                       {"tova:budget={},block=16"},
                       {"random:budget={},block=16"},
                       {"snapkv:budget={},window=8,every=32", false},
                       {"pyramidkv:budget={},window=8,every=32", false},
                       {"adakv:budget={},window=8,every=32", false},
                       {"expected:budget={},every=32,window=8", false},
                       {"rkv:budget={},window=8,buffer=32", false},
                       {"rpc:every=32,window=8,ratio=4", false},
                       {"quest:budget={},skip=0", false}};
INSTANTIATE_TEST_SUITE_P(All, Policies, ::testing::ValuesIn(kCases));

std::vector<Case> WritingCases() {
  std::vector<Case> cases;
  std::copy_if(std::begin(kCases), std::end(kCases), std::back_inserter(cases),
               [](const Case& c) { return !c.block; });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(All, WritingPolicies, ::testing::ValuesIn(WritingCases()));

TEST(ConstructedCases, EveryPolicyIsAmongThem) {
  for (const Traits* traits : AllPolicies()) {
    EXPECT_TRUE(std::any_of(std::begin(kCases), std::end(kCases), [&](const Case& c) {
      return std::string_view(c.spec).starts_with(traits->name);
    })) << traits->name;
  }
}

}  // namespace
}  // namespace kvasir
