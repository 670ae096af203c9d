#include "policy/rpc/rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "policy/rpc/rounds.h"
#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;

// Entries per lane with t tokens generated behind a prompt of p, in closed form.
uint64_t EntriesAt(uint64_t p, uint64_t t, uint64_t every, uint64_t window, uint64_t ratio) {
  if (t < every + window) return p + t;
  const uint64_t n = (t - window) / every;
  return p + n * (every / ratio) + window + (t - window - n * every);
}

// As EntriesAt, played through with the schedule itself: no lanes, whole passes.
uint64_t PlayedEntries(uint32_t p, uint32_t t, const RpcParams& params) {
  const RoundSchedule schedule(params);
  Held held = {.entries = p, .lanes = 1, .pinned = 0};
  Progress at = {.position = p, .prompt_end = p};
  while (at.position < p + t) {
    const uint32_t rows = std::min(schedule.MaxRows(at, held), p + t - at.position);
    at.position += rows;
    held.entries += rows;
    if (const auto target = schedule.Target(at, held)) held.entries = *target;
  }
  return held.entries;
}

TEST(RoundSchedule, EntriesAreThoseOfTheTable) {
  struct Line {
    uint32_t t;
    uint64_t c4_p1024, c4_p4096, c8_p1024, c8_p4096;
  };
  for (const Line& line : {Line{8192, 2944, 5248, 2048, 4736}, Line{16384, 4992, 7296, 3072, 5760},
                           Line{32768, 9088, 11392, 5120, 7808}}) {
    const auto played = [&](uint32_t every, double ratio) {
      return PlayedEntries(128, line.t, {.every = every, .window = 32, .ratio = ratio});
    };
    EXPECT_EQ(played(1024, 4), line.c4_p1024);
    EXPECT_EQ(played(4096, 4), line.c4_p4096);
    EXPECT_EQ(played(1024, 8), line.c8_p1024);
    EXPECT_EQ(played(4096, 8), line.c8_p4096);
  }
}

TEST(RoundSchedule, EntriesOfThePapersFigure) {
  std::vector<uint64_t> entries;
  for (uint32_t t = 0; t <= 15; ++t) {
    entries.push_back(PlayedEntries(3, t, {.every = 4, .window = 2, .ratio = 4}));
  }
  EXPECT_THAT(entries, ElementsAre(3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 7, 8, 9, 10, 8, 9));
}

TEST(RoundSchedule, NoPassStraddlesARound) {
  const RoundSchedule schedule({.every = 8, .window = 3, .ratio = 2});
  for (uint32_t t = 0; t < 60; ++t) {
    const uint32_t rows = schedule.MaxRows({.position = 5 + t, .prompt_end = 5}, {});
    ASSERT_GE(rows, 1u);
    ASSERT_EQ(schedule.Rounds(t + rows), schedule.Rounds(t) + 1) << t;
    ASSERT_EQ(schedule.Rounds(t + rows - 1), schedule.Rounds(t)) << t;
  }
}

// D6: 16 answers of 32768 tokens by R1-Distill-Qwen-7B.
TEST(RoundSchedule, WhatIsReservedForLongAnswers) {
  const LaneShape shape = {.n_layers = 28, .n_kv_heads = 4, .head_dim = 128};
  const auto policy =
      MakePolicy("rpc:every=4096,window=32,ratio=4", {.shape = shape, .facts = FactsFor(shape, 7)});
  const uint64_t entry = shape.lanes() * shape.EntryBytes();
  EXPECT_EQ(entry, 57344u);
  const uint64_t payload = 16 * PlayedEntries(128, 32768, RpcParams()) * entry;
  EXPECT_LE(payload, 10'460'000'000u);
  EXPECT_GE(payload, 10'440'000'000u);
  // A round's candidates are there at once before it: P more. Pages round up, and packed ones know
  // their positions.
  const Growth growth = policy->MaxGrowth(128, 128 + 32768, 0);
  EXPECT_EQ(growth.cap, 128u + 7 * 1024 + 32);
  EXPECT_LE(growth.cap + growth.rows, 11392u + 4096);
  const uint64_t reserved = MaxDemand(shape, growth).bytes();
  EXPECT_LE(static_cast<double>(reserved),
            1.03 * static_cast<double>((growth.cap + growth.rows) * entry));
  EXPECT_LT(reserved, (128 + 32768) * entry / 2);
  EXPECT_EQ(policy->EvidenceBytes(growth), 32u * 28 * 128 * 28 * 2);
}

TEST(Rpc, BeforeItsFirstRoundNothingCanBeDropped) {
  const LaneShape shape = F32Shape(1, 1, 8);
  const auto policy =
      MakePolicy("rpc:every=16,window=4,ratio=4", {.shape = shape, .facts = FactsFor(shape, 2)});
  EXPECT_EQ(policy->MaxGrowth(100, 119, 0).cap, 0u);
  EXPECT_EQ(policy->MaxGrowth(100, 120, 0).cap, 100u + 4 + 4);
}

// (P, R, c)
class RpcRounds : public testing::TestWithParam<std::tuple<uint32_t, uint32_t, uint32_t>> {
 protected:
  static constexpr uint32_t kPrompt = 7;
  const uint32_t every_ = std::get<0>(GetParam()), window_ = std::get<1>(GetParam()),
                 ratio_ = std::get<2>(GetParam());
  const LaneShape shape_ = F32Shape(2, 2, 8);
  std::unique_ptr<Policy> Make(const char* more) const {
    return MakePolicy(
        fmt::format("rpc:every={},window={},ratio={}{}", every_, window_, ratio_, more),
        {.shape = shape_, .facts = FactsFor(shape_, kTestGroup)});
  }
};
INSTANTIATE_TEST_SUITE_P(All, RpcRounds,
                         testing::Values(std::tuple(4, 2, 4), std::tuple(8, 1, 2),
                                         std::tuple(64, 32, 8), std::tuple(1024, 32, 4)));

TEST_P(RpcRounds, FireOnTimeAndKeepPromptSurvivorsAndWindow) {
  for (const char* heads : {",heads=all", ",heads=group"}) {
    const auto policy = Make(heads);
    const uint32_t end = kPrompt + 4 * every_ + window_ + 3;
    TestSequence sequence(shape_, MaxDemand(shape_, policy->MaxGrowth(kPrompt, end, 0)),
                          RandomKeys(shape_.head_dim, 1));
    const auto state = policy->Begin({.shape = shape_});
    std::vector<uint32_t> rounds;
    std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> before;
    sequence.Run(*state, kPrompt, end, nullptr, [&](const TestSequence::Step& step) {
      const uint32_t position = step.after.position;
      if (position < kPrompt) return;
      const uint32_t t = position - kPrompt;
      const bool fired = !step.plan.drops.empty();
      ASSERT_EQ(sequence.set().n_entries(),
                shape_.lanes() * EntriesAt(kPrompt, t, every_, window_, ratio_))
          << "t " << t;
      if (!fired) return;
      rounds.push_back(t);
      for (const auto& [lane, positions] : sequence.AllPositions()) {
        // The prompt and the last R are there, and all else was there before or is new.
        ASSERT_TRUE(std::is_sorted(positions.begin(), positions.end()));
        for (uint32_t p = 0; p < kPrompt; ++p) ASSERT_EQ(positions[p], p);
        for (uint32_t i = 0; i < window_; ++i) {
          ASSERT_EQ(positions[positions.size() - window_ + i], position - window_ + i);
        }
        const auto& old = before[lane];
        for (const uint32_t p : positions) {
          const bool known = old.empty() || p + every_ + window_ >= position ||
                             std::binary_search(old.begin(), old.end(), p);
          ASSERT_TRUE(known) << p << " came back";
        }
        before[lane] = positions;
      }
      if (heads[7] == 'a') {
        for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
          ASSERT_EQ(sequence.Positions(layer, 0), sequence.Positions(layer, 1));
        }
      }
      sequence.store().CheckIntegrity();
    });
    EXPECT_THAT(rounds, ElementsAre(every_ + window_, 2 * every_ + window_, 3 * every_ + window_,
                                    4 * every_ + window_));
    EXPECT_NE(sequence.Positions(0, 0), sequence.Positions(1, 0)) << "layers choose for themselves";
    if (heads[7] == 'g' && every_ > 4) {
      EXPECT_NE(sequence.Positions(0, 0), sequence.Positions(0, 1)) << "and KV heads, if asked to";
    }
  }
}

// The rows of a later turn's prompt are prompt: nothing that was there is a candidate again.
TEST(Rpc, WhatWasThereBeforeATurnStays) {
  const LaneShape shape = F32Shape(1, 1, 8);
  const auto policy =
      MakePolicy("rpc:every=8,window=2,ratio=4", {.shape = shape, .facts = FactsFor(shape, 2)});
  TestSequence sequence(shape, MaxDemand(shape, {.tokens = 200}), RandomKeys(8, 1));
  const auto state = policy->Begin({.shape = shape});
  sequence.Run(*state, 10, 30);  // rounds at t = 10 and 18
  const std::vector<uint32_t> first = sequence.Positions(0, 0);
  EXPECT_EQ(first.size(), EntriesAt(10, 20, 8, 2, 4));
  sequence.Run(*state, 36, 60);  // six tokens of a second prompt, 24 of an answer
  std::vector<uint32_t> positions = sequence.Positions(0, 0);
  EXPECT_EQ(positions.size(), first.size() + 6 + EntriesAt(0, 24, 8, 2, 4));
  positions.resize(first.size());
  EXPECT_EQ(positions, first);
}

// turn=continue: t goes on over turns, what was given stays, what was written may still go.
TEST(Rpc, TurnsThatGoOnAreOneAnswerWithPromptsInIt) {
  const LaneShape shape = F32Shape(2, 2, 8);
  for (const char* heads : {"all", "group"}) {
    const auto policy =
        MakePolicy(fmt::format("rpc:every=8,window=2,ratio=4,turn=continue,heads={}", heads),
                   {.shape = shape, .facts = FactsFor(shape, kTestGroup)});
    TestSequence sequence(shape, MaxDemand(shape, policy->MaxGrowth(36, 60, 0)), RandomKeys(8, 1));
    const auto state = policy->Begin({.shape = shape});
    std::vector<uint32_t> rounds;
    const auto check = [&](const TestSequence::Step& step) {
      const uint32_t position = step.after.position;
      if (!step.plan.drops.empty()) rounds.push_back(position);
      const uint32_t prompts = std::min(position, 10u) + std::clamp(position, 28u, 34u) - 28;
      ASSERT_EQ(sequence.set().n_entries(),
                shape.lanes() * EntriesAt(prompts, position - prompts, 8, 2, 4));
      sequence.store().CheckIntegrity();
    };
    sequence.Run(*state, 10, 28, nullptr, check);  // ends with the round at t = 18
    const auto parted = state->Fork();
    TestSequence child = sequence.Fork(MaxDemand(shape, policy->MaxGrowth(36, 60, 0)));
    const std::vector<uint32_t> first = sequence.Positions(0, 0);
    sequence.Run(*state, 34, 60, nullptr, check);  // six tokens of a second prompt
    EXPECT_THAT(rounds, ElementsAre(20, 28, 42, 50, 58));
    child.Run(*parted, 34, 60);
    EXPECT_EQ(child.AllPositions(), sequence.AllPositions());
    size_t went = 0;
    for (const auto& [lane, positions] : sequence.AllPositions()) {
      for (uint32_t p = 0; p < 34; p = p == 9 ? 28 : p + 1) {
        ASSERT_TRUE(std::binary_search(positions.begin(), positions.end(), p)) << p;
      }
    }
    const std::vector<uint32_t> last = sequence.Positions(0, 0);
    for (const uint32_t p : first) went += !std::binary_search(last.begin(), last.end(), p);
    EXPECT_GT(went, 0u) << "nothing of the first answer was given up for the second";
  }
}

}  // namespace
}  // namespace kvasir
