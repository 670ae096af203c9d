// What holds for every registered policy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "policy/retention.h"
#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::IsSupersetOf;

const LaneShape kShape = F32Shape(3, 2, 8);

// Half of h2o's budget is protected unless told otherwise; these tests need the room.
std::unique_ptr<Policy> Make(std::string spec) {
  if (spec.starts_with("h2o:")) spec += ",recent=0";
  return MakePolicy(spec, {.shape = kShape, .facts = FactsFor(kShape, kTestGroup)});
}

struct Running {
  explicit Running(const std::string& spec, uint32_t tokens, uint64_t seed = 1,
                   std::vector<PositionSpan> pinned = {}, KeyMaker keys = {})
      : policy(Make(spec)),
        sequence(kShape, MaxDemand(kShape, policy->MaxGrowth(tokens, tokens, Count(pinned))),
                 keys ? std::move(keys) : RandomKeys(kShape.head_dim, seed)),
        state(policy->Begin({.shape = kShape, .pinned = pinned})) {}
  static uint64_t Count(const std::vector<PositionSpan>& spans) {
    uint64_t n = 0;
    for (const PositionSpan& span : spans) n += span.second - span.first;
    return n;
  }
  std::unique_ptr<Policy> policy;
  TestSequence sequence;
  std::unique_ptr<PolicyState> state;
};

// Policies that act on a grid.
std::vector<const Traits*> GridPolicies() {
  std::vector<const Traits*> grid;
  for (const Traits* traits : AllPolicies()) {
    if (traits->sharing == Sharing::kGrid) grid.push_back(traits);
  }
  return grid;
}

// Name and further keys.
using PolicyParam = std::tuple<const Traits*, const char*>;

class PolicyTest : public testing::TestWithParam<PolicyParam> {
 protected:
  std::string Spec(std::string_view keys) const {
    const std::string more = std::get<1>(GetParam());
    return fmt::format("{}:{}{}{}", std::get<0>(GetParam())->name, keys, more.empty() ? "" : ",",
                       more);
  }
};
INSTANTIATE_TEST_SUITE_P(All, PolicyTest,
                         testing::Combine(testing::ValuesIn(GridPolicies()),
                                          testing::Values("", "slack=0", "slack=7", "skip=1")),
                         [](const testing::TestParamInfo<PolicyParam>& info) {
                           std::string name = fmt::format("{}_{}", std::get<0>(info.param)->name,
                                                          std::get<1>(info.param));
                           std::erase(name, '=');
                           return name;
                         });

constexpr uint32_t kBudget = 32, kBlock = 8, kPrompt = 56, kEnd = 70;
const char* const kKeys = "budget=32,block=8,sink=2";

TEST_P(PolicyTest, KeepsItsBudgetAfterEveryCommit) {
  Running run(Spec(kKeys), kEnd);
  const uint64_t most = uint64_t{kBudget} * kShape.lanes();
  bool dropped = false;
  run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [&](const TestSequence::Step& step) {
    ASSERT_LE(run.sequence.set().n_entries(), most) << "at " << step.after.position;
    dropped |= !step.plan.drops.empty();
  });
  EXPECT_TRUE(dropped);
}

TEST_P(PolicyTest, KeepsWhatIsProtected) {
  // Keys as large as floats square to: no score outranks protection.
  const auto keys = [](uint32_t layer, uint32_t head, uint32_t position) {
    std::vector<float> key = RandomKeys(kShape.head_dim, 5)(layer, head, position);
    if (position % 3 == 0) {
      for (float& value : key) value *= 1e18f;
    }
    return key;
  };
  Running run(Spec(kKeys), kEnd, 1, {{5, 8}, {30, 32}}, keys);
  run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [&](const TestSequence::Step& step) {
    std::vector<uint32_t> expected;
    for (const uint32_t p : {0, 1, 5, 6, 7, 30, 31}) {
      if (p < step.after.position) expected.push_back(p);
    }
    for (const auto& [lane, positions] : run.sequence.AllPositions()) {
      ASSERT_THAT(positions, IsSupersetOf(expected)) << "at " << step.after.position;
    }
  });
  EXPECT_EQ(run.state->nonfinite_scores(), 0u);
}

TEST_P(PolicyTest, HonoursProtectionThatOthersAskedTheStoreFor) {
  Running run(Spec(kKeys), kEnd);
  run.sequence.ShowQueries(run.state.get(), kBlock, kShape.n_kv_heads * kTestGroup);
  run.sequence.Append(kBlock);
  Plan protect;
  run.state->Observe({kBlock, kPrompt}, run.sequence.View(), nullptr, &protect);
  protect.protects.push_back({3, 6});
  run.sequence.Commit(protect);
  run.sequence.Run(*run.state, kPrompt, kEnd);
  for (const auto& [lane, positions] : run.sequence.AllPositions()) {
    EXPECT_THAT(positions, IsSupersetOf({3u, 4u, 5u}));
  }
}

TEST_P(PolicyTest, ForgetsPinsThatAreTurnedOff) {
  Running run(Spec(std::string(kKeys) + ",pin=none"), kEnd, 1, {{2, 40}});
  run.sequence.Run(*run.state, kPrompt, kEnd);  // 40 protected entries would not have fitted
  EXPECT_LE(run.sequence.set().n_entries(), uint64_t{kBudget} * kShape.lanes());
}

TEST_P(PolicyTest, DropsNothingWhenTheBudgetIsLargeEnough) {
  for (const uint32_t block : {1u, 8u, 128u}) {
    Running run(Spec(fmt::format("budget={},block={}", kEnd, block)), kEnd);
    run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [](const TestSequence::Step& step) {
      ASSERT_TRUE(step.plan.empty()) << step.plan.ToText();
    });
  }
}

TEST_P(PolicyTest, SameViewsGiveTheSamePlanForAnyNumberOfWorkers) {
  Running run(Spec(kKeys), kEnd);
  while (run.sequence.position() < kEnd) {
    const Progress before = {run.sequence.position(), kPrompt};
    const uint32_t limit = before.in_prompt() ? kPrompt : kEnd;
    const uint32_t rows = std::min(run.state->MaxRows(before), limit - run.sequence.position());
    run.sequence.ShowQueries(run.state.get(), rows, kShape.n_kv_heads * kTestGroup);
    run.sequence.Append(rows);
    const Progress after = {run.sequence.position(), kPrompt};
    std::vector<Plan> plans;
    for (const size_t threads : {0, 1, 2, 3}) {
      const auto state = run.state->Fork();
      Plan plan;
      if (threads == 0) {
        state->Observe(after, run.sequence.View(), nullptr, &plan);
      } else {
        Workers workers(threads);
        state->Observe(after, run.sequence.View(), &workers, &plan);
      }
      plans.push_back(std::move(plan));
    }
    for (const Plan& plan : plans) ASSERT_EQ(plan, plans[0]);
    Plan plan;
    run.state->Observe(after, run.sequence.View(), nullptr, &plan);
    ASSERT_EQ(plan, plans[0]) << "a fork plans differently";
    run.sequence.Commit(plan);
  }
}

TEST_P(PolicyTest, AForkGoesOnAsIfItHadNeverParted) {
  Running whole(Spec(kKeys), kEnd);
  whole.sequence.Run(*whole.state, kPrompt, kEnd);
  for (const uint32_t border : {8u, 40u, 45u, 56u, 61u}) {
    Running parent(Spec(kKeys), kEnd);
    // 45 lies inside a block.
    parent.sequence.Run(*parent.state, kPrompt, border, nullptr, {}, border == 45 ? 1 : 128);
    const auto state = parent.state->Fork();
    TestSequence child =
        parent.sequence.Fork(MaxDemand(kShape, parent.policy->MaxGrowth(kEnd, kEnd, 0)));
    child.Run(*state, kPrompt, kEnd);
    EXPECT_EQ(child.AllPositions(), whole.sequence.AllPositions()) << "parted at " << border;
    // The parent is not disturbed by what its child dropped.
    parent.sequence.Run(*parent.state, kPrompt, kEnd);
    EXPECT_EQ(parent.sequence.AllPositions(), whole.sequence.AllPositions());
    parent.sequence.store().CheckIntegrity();
  }
}

TEST_P(PolicyTest, CutsInsideABlockDoNotChangeTheResult) {
  Running whole(Spec(kKeys), kEnd);
  whole.sequence.Run(*whole.state, kPrompt, kEnd);
  for (const uint32_t cut : {1u, 3u, 5u}) {
    Running run(Spec(kKeys), kEnd);
    run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, {}, cut);
    EXPECT_EQ(run.sequence.AllPositions(), whole.sequence.AllPositions()) << "cut at " << cut;
  }
}

// Grid policies: at a block boundary nothing tells a prompt that ends later from one that ends
// here.
TEST_P(PolicyTest, TheStateAtABoundaryDoesNotDependOnThePromptsEnd) {
  std::set<std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>>> states;
  for (const uint32_t prompt : {40u, 41u, 56u}) {
    Running run(Spec(kKeys), kEnd);
    run.sequence.Run(*run.state, prompt, 40);
    states.insert(run.sequence.AllPositions());
  }
  EXPECT_EQ(states.size(), 1u);
}

class EveryPolicy : public testing::TestWithParam<const Traits*> {};
INSTANTIATE_TEST_SUITE_P(All, EveryPolicy, testing::ValuesIn(GridPolicies()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST_P(EveryPolicy, PeaksAtBudgetAndBlockInThePromptAndOneMoreInGeneration) {
  constexpr uint32_t kN = 8;
  for (const uint32_t block : {1u, 4u, 32u}) {
    for (const uint32_t prompt : {1u, kN, 3 * kN + 5, 64 * kN}) {
      Running run(fmt::format("{}:budget={},block={},sink=1", GetParam()->name, kN, block),
                  prompt + 3 * kN);
      uint64_t peak_prompt = 0, peak_generation = 0;
      run.sequence.Run(
          *run.state, prompt, prompt + 3 * kN, nullptr, [&](const TestSequence::Step& step) {
            uint64_t& peak = step.after.position <= prompt ? peak_prompt : peak_generation;
            peak = std::max(peak, step.entries_before_commit);
            ASSERT_LE(run.sequence.MostEntries(), kN);
          });
      EXPECT_LE(peak_prompt, kN + block);
      EXPECT_LE(peak_generation, kN + 1);
      if (prompt == 64 * kN) {
        EXPECT_EQ(peak_prompt, kN + block);
      }
      EXPECT_EQ(peak_generation, kN + 1);
      run.sequence.store().CheckIntegrity();
    }
  }
}

TEST_P(EveryPolicy, AKeptFractionFollowsTheTokensSeen) {
  Running run(fmt::format("{}:keep=0.25,block=16,sink=1,slack=0", GetParam()->name), 480);
  run.sequence.Run(*run.state, 400, 480, nullptr, [&](const TestSequence::Step& step) {
    const uint64_t budget = std::max<uint64_t>(step.after.position / 4, 2);
    ASSERT_EQ(run.sequence.MostEntries(), budget) << "at " << step.after.position;
  });
}

TEST_P(EveryPolicy, WholeLayersAreCountedAndTheSumIsExact) {
  // 3 layers x 2 heads x 20 = 120 entries; the first layer holds 2n.
  Running run(fmt::format("{}:budget=20,block=8,skip=1,sink=0,slack=0", GetParam()->name), 56);
  const Grain grain = dynamic_cast<const RetentionPolicy&>(*run.policy).scorer().grain();
  run.sequence.Run(*run.state, 40, 56, nullptr, [&](const TestSequence::Step& step) {
    const uint32_t n = step.after.position;
    if (n <= 20) return;
    uint64_t rest = 0;
    for (const auto& [lane, positions] : run.sequence.AllPositions()) {
      if (lane.first == 0) {
        ASSERT_EQ(positions.size(), n);
      } else {
        rest += positions.size();
        ASSERT_NEAR(static_cast<double>(positions.size()), (120 - 2 * n) / 4.0, 1);
      }
    }
    const uint32_t left = 120 - 2 * n;
    const uint32_t exact = grain == Grain::kModel ? left / 4 * 4 : left;
    // A list per layer drops what its heads cannot share evenly.
    ASSERT_LE(rest, exact) << "at " << n;
    ASSERT_GE(rest, grain == Grain::kLayer ? exact - 2 : exact) << "at " << n;
  });
}

TEST_P(EveryPolicy, RefusesToBeginBeyondItsBudget) {
  const auto policy = Make(fmt::format("{}:budget=16,sink=2", GetParam()->name));
  policy->MaxGrowth(1000, 1000, 13);
  EXPECT_THROW(policy->MaxGrowth(1000, 1000, 14), Error);
}

TEST_P(EveryPolicy, ReservationsSufficeForLongRandomRuns) {
  std::mt19937 rng(11);
  int with_skip = 0;
  for (int round = 0; round < 40; ++round) {
    const uint32_t budget = 4 + rng() % 200, block = 1 + rng() % 100;
    const uint32_t prompt = 1 + rng() % 600, end = prompt + rng() % 200;
    // Whole layers (one of three) where they leave the others room for their sinks and one more.
    const int skip = 3 * budget > end + 8 ? 1 : 0;
    with_skip += skip;
    Running run(fmt::format("{}:budget={},block={},sink={},skip={}", GetParam()->name, budget,
                            block, rng() % 4, skip),
                end, round);
    // The store CHECKs that no plane is taken beyond the reservation.
    run.sequence.Run(*run.state, prompt, end);
    run.sequence.store().CheckIntegrity();
  }
  EXPECT_GT(with_skip, 5);
}

}  // namespace
}  // namespace kvasir
