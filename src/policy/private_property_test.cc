// What holds for every policy whose state depends on where a prompt ends: the counterpart of
// property_test.cc for those that act on no grid.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>

#include "policy/retention.h"
#include "policy/test_lanes.h"

namespace kvasir {
namespace {

using ::testing::IsSupersetOf;

const LaneShape kShape = F32Shape(3, 2, 8);
constexpr uint32_t kPrompt = 60, kEnd = 100, kBudget = 24;

std::unique_ptr<Policy> Make(const std::string& spec) {
  return MakePolicy(spec, {.shape = kShape, .facts = FactsFor(kShape, kTestGroup)});
}

struct Running {
  explicit Running(const std::string& spec, uint32_t prompt = kPrompt, uint32_t end = kEnd,
                   std::vector<PositionSpan> pinned = {}, uint64_t seed = 1)
      : policy(Make(spec)),
        sequence(kShape, MaxDemand(kShape, policy->MaxGrowth(prompt, end, Count(pinned))),
                 RandomKeys(kShape.head_dim, seed)),
        state(policy->Begin({.shape = kShape, .pinned = pinned})) {
    sequence.SetValues(RandomKeys(kShape.head_dim, seed + 1));
  }
  static uint64_t Count(const std::vector<PositionSpan>& spans) {
    uint64_t n = 0;
    for (const PositionSpan& span : spans) n += span.second - span.first;
    return n;
  }
  std::unique_ptr<Policy> policy;
  TestSequence sequence;
  std::unique_ptr<PolicyState> state;
};

struct Case {
  const char* name;
  const char* spec;
  uint32_t window = 0;    // last tokens that stay at a selection
  bool budget = true;     // has one; rpc has rounds
  bool attention = true;  // scores are attention alone, without a square of it
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
const Case kCases[] = {
    {.name = "snapkv", .spec = "snapkv:budget=24,window=6", .window = 6},
    {.name = "snapkv_max", .spec = "snapkv:budget=24,window=6,pool=max,sink=2", .window = 6},
    {.name = "snapkv_every", .spec = "snapkv:budget=24,window=6,every=7", .window = 6},
    {.name = "snapkv_skip", .spec = "snapkv:budget=48,window=6,every=7,skip=1", .window = 6},
    {.name = "pyramidkv", .spec = "pyramidkv:budget=24,window=6", .window = 6},
    {.name = "pyramidkv_every", .spec = "pyramidkv:budget=24,window=6,every=7,beta=3", .window = 6},
    {.name = "pyramidkv_skip", .spec = "pyramidkv:budget=48,window=6,skip=1", .window = 6},
    {.name = "adakv", .spec = "adakv:budget=24,window=6,floor=0.2", .window = 6},
    {.name = "adakv_every", .spec = "adakv:budget=24,window=6,floor=0,every=7", .window = 6},
    {.name = "adakv_skip", .spec = "adakv:budget=48,window=6,skip=1", .window = 6},
    {.name = "adakv_kvpress", .spec = "adakv:budget=24,window=6,compat=kvpress", .window = 6},
    {.name = "expected", .spec = "expected:budget=24,every=9,window=5", .attention = false},
    {.name = "expected_mean", .spec = "expected:budget=24,cov=off,every=0", .attention = false},
    {.name = "rkv", .spec = "rkv:budget=24,buffer=7,window=5", .window = 5},
    {.name = "rpc", .spec = "rpc:every=12,window=5,ratio=3", .window = 5, .budget = false},
    {.name = "rpc_group",
     .spec = "rpc:every=12,window=5,ratio=3,heads=group",
     .window = 5,
     .budget = false},
};

class PrivateTest : public testing::TestWithParam<Case> {
 protected:
  std::string Spec() const { return GetParam().spec; }
  uint64_t Budget() const {
    return dynamic_cast<const RetentionPolicy&>(*Make(Spec())).schedule().skip() > 0 ? 2 * kBudget
                                                                                     : kBudget;
  }
};
INSTANTIATE_TEST_SUITE_P(All, PrivateTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(PrivatePolicies, AreAllHere) {
  for (const Traits* traits : AllPolicies()) {
    if (traits->sharing != Sharing::kPrivate) continue;
    EXPECT_TRUE(std::any_of(std::begin(kCases), std::end(kCases), [&](const Case& c) {
      return std::string_view(c.spec).starts_with(traits->name);
    })) << traits->name;
  }
}

TEST_P(PrivateTest, ASelectionLeavesExactlyTheBudget) {
  Running run(Spec());
  int selections = 0;
  run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [&](const TestSequence::Step& step) {
    if (step.plan.drops.empty()) return;
    ++selections;
    if (GetParam().budget) {
      ASSERT_EQ(run.sequence.set().n_entries(), Budget() * kShape.lanes())
          << "at " << step.after.position;
    }
    run.sequence.store().CheckIntegrity();
  });
  EXPECT_GE(selections, 1);
  EXPECT_GT(run.sequence.set().dropped(), 0u);
}

TEST_P(PrivateTest, TheWindowAndWhatIsPinnedStay) {
  const bool pins = GetParam().budget;
  const std::vector<PositionSpan> pinned = {{5, 8}, {30, 32}};
  Running run(Spec(), kPrompt, kEnd, pinned);
  run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [&](const TestSequence::Step& step) {
    if (step.plan.drops.empty()) return;
    std::vector<uint32_t> expected;
    if (pins) expected = {5, 6, 7, 30, 31};
    for (uint32_t i = 0; i < GetParam().window; ++i)
      expected.push_back(step.after.position - 1 - i);
    for (const auto& [lane, positions] : run.sequence.AllPositions()) {
      ASSERT_THAT(positions, IsSupersetOf(expected)) << "at " << step.after.position;
    }
  });
}

// Scores at the ends of what floats can hold, and beyond: NaN counts as the least.
TEST_P(PrivateTest, NoScoreOutranksProtection) {
  for (const float factor : {1e18f, 3e38f, std::numeric_limits<float>::quiet_NaN()}) {
    Running run(Spec(), kPrompt, kEnd, {{5, 8}});
    const KeyMaker plain = RandomKeys(kShape.head_dim, 7);
    run.sequence.SetQueries([&](uint32_t layer, uint32_t head, uint32_t position) {
      std::vector<float> q = plain(layer, head, position);
      if (head % 2 == 0) {
        for (float& x : q) x = std::clamp(x * factor, -3e38f, 3e38f);
      }
      return q;
    });
    uint64_t last = 0;
    run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [&](const TestSequence::Step& step) {
      if (step.plan.drops.empty()) return;
      last = run.sequence.set().n_entries();
      std::vector<uint32_t> expected;
      if (GetParam().budget) expected = {5, 6, 7};
      for (uint32_t i = 0; i < GetParam().window; ++i) {
        expected.push_back(step.after.position - 1 - i);
      }
      for (const auto& [lane, positions] : run.sequence.AllPositions()) {
        ASSERT_THAT(positions, IsSupersetOf(expected)) << "factor " << factor;
      }
    });
    if (GetParam().budget) {
      EXPECT_EQ(last, Budget() * kShape.lanes());
    }
  }
}

TEST_P(PrivateTest, SameViewsGiveTheSamePlanForAnyNumberOfWorkersAndForForks) {
  Running run(Spec());
  int selections = 0;
  while (run.sequence.position() < kEnd) {
    const Progress before = {run.sequence.position(), kPrompt};
    const uint32_t limit = before.in_prompt() ? kPrompt : run.sequence.position() + 1;
    const uint32_t rows = std::min(run.state->MaxRows(before), limit - run.sequence.position());
    run.sequence.ShowQueries(run.state.get(), rows, kShape.n_kv_heads * kTestGroup);
    run.sequence.Append(rows);
    const Progress after = {run.sequence.position(), kPrompt};
    std::vector<Plan> plans;
    for (const size_t threads : {1, 2, 3}) {
      Workers workers(threads);
      Plan plan;
      run.state->Fork()->Observe(after, run.sequence.View(), &workers, &plan);
      plans.push_back(std::move(plan));
    }
    Plan plan;
    run.state->Observe(after, run.sequence.View(), nullptr, &plan);
    for (const Plan& other : plans) ASSERT_EQ(other, plan) << "at " << after.position;
    run.sequence.Commit(plan);
    selections += !plan.drops.empty();
  }
  EXPECT_GE(selections, 1);
}

TEST_P(PrivateTest, AForkGoesOnAsIfItHadNeverParted) {
  Running whole(Spec());
  whole.sequence.Run(*whole.state, kPrompt, kEnd);
  // Inside a window before the prompt's end, at it, just before the first round, in a later window.
  for (const uint32_t border : {57u, 60u, 66u, 67u, 76u, 77u, 87u, 90u}) {
    Running parent(Spec());
    parent.sequence.Run(*parent.state, kPrompt, border);
    const auto state = parent.state->Fork();
    TestSequence child =
        parent.sequence.Fork(MaxDemand(kShape, parent.policy->MaxGrowth(kPrompt, kEnd, 0)));
    child.SetValues(RandomKeys(kShape.head_dim, 2));
    // Another child goes elsewhere, and leaves no trace in this one.
    const auto stranger = state->Fork();
    {
      TestSequence other =
          parent.sequence.Fork(MaxDemand(kShape, parent.policy->MaxGrowth(kPrompt, kEnd, 0)));
      other.SetQueries(RandomKeys(kShape.head_dim, 1234));
      other.Run(*stranger, kPrompt, kEnd);
    }
    child.Run(*state, kPrompt, kEnd);
    EXPECT_EQ(child.AllPositions(), whole.sequence.AllPositions()) << "parted at " << border;
    parent.sequence.Run(*parent.state, kPrompt, kEnd);
    EXPECT_EQ(parent.sequence.AllPositions(), whole.sequence.AllPositions());
    parent.sequence.store().CheckIntegrity();
  }
}

TEST_P(PrivateTest, PassesCutAnywhereGiveTheSameLists) {
  Running whole(Spec());
  whole.sequence.Run(*whole.state, kPrompt, kEnd);
  for (const uint32_t cut : {1u, 3u, 4u, 17u}) {
    Running run(Spec());
    run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, {}, cut);
    EXPECT_EQ(run.sequence.AllPositions(), whole.sequence.AllPositions()) << "cut at " << cut;
  }
  // Generated text that is there already comes in blocks.
  Running forced(Spec());
  while (forced.sequence.position() < kEnd) {
    const Progress before = {forced.sequence.position(), kPrompt};
    const uint32_t end = before.in_prompt() ? kPrompt : kEnd;
    const uint32_t rows = std::min(forced.state->MaxRows(before), end - before.position);
    forced.sequence.ShowQueries(forced.state.get(), rows, kShape.n_kv_heads * kTestGroup);
    forced.sequence.Append(rows);
    Plan plan;
    forced.state->Observe({forced.sequence.position(), kPrompt}, forced.sequence.View(), nullptr,
                          &plan);
    forced.sequence.Commit(plan);
  }
  EXPECT_EQ(forced.sequence.AllPositions(), whole.sequence.AllPositions());
}

// A state that begins inside the prompt, where nothing was dropped, needs to see this much of it.
TEST_P(PrivateTest, AStateThatSawTheRowsItNamesPlansLikeOneThatSawAll) {
  const std::optional<uint32_t> rows = Make(Spec())->rows_to_see();
  Running whole(Spec());
  whole.sequence.Run(*whole.state, kPrompt, kEnd);
  const auto late = [&](uint32_t seen) {
    Running run(Spec());
    run.sequence.Append(kPrompt - seen);  // nobody watched
    run.sequence.Run(*run.state, kPrompt, kEnd);
    return run.sequence.AllPositions();
  };
  if (rows) {
    EXPECT_EQ(late(*rows), whole.sequence.AllPositions());
    EXPECT_EQ(late(*rows + 7), whole.sequence.AllPositions());
    if (*rows > 1) {
      EXPECT_NE(late(*rows - 1), whole.sequence.AllPositions());
    }
  } else {
    EXPECT_NE(late(kPrompt - 10), whole.sequence.AllPositions());
  }
}

TEST_P(PrivateTest, OneTurnAloneGivesTheSameLists) {
  Running open(Spec()), closed(Spec());
  open.sequence.Run(*open.state, kPrompt, kEnd);
  const auto state = closed.policy->Begin({.shape = kShape, .one_turn = true});
  closed.sequence.Run(*state, kPrompt, kEnd);
  EXPECT_EQ(closed.sequence.AllPositions(), open.sequence.AllPositions());
}

TEST_P(PrivateTest, DropsNothingWhenTheBudgetIsLargeEnough) {
  std::string spec = Spec();
  const size_t at = spec.find(GetParam().budget ? "budget=" : "every=");
  spec.replace(at, spec.find(',', at) - at, GetParam().budget ? "budget=100" : "every=100");
  Running run(spec);
  run.sequence.Run(*run.state, kPrompt, kEnd, nullptr, [](const TestSequence::Step& step) {
    ASSERT_TRUE(step.plan.empty()) << step.plan.ToText();
  });
}

// The store CHECKs that no plane is taken beyond the reservation.
TEST(PrivatePolicies, ReservationsSufficeForLongRandomRuns) {
  std::mt19937 rng(12);
  int gave_back = 0;
  for (int round = 0; round < 150; ++round) {
    const uint32_t prompt = 1 + rng() % 500, end = prompt + rng() % 300;
    const uint32_t budget = 20 + rng() % 200, every = 1 + rng() % 90;
    const std::string common = fmt::format("budget={},window={}", budget, 1 + rng() % 16);
    const std::string specs[] = {
        fmt::format("snapkv:{}", common),
        fmt::format("snapkv:{},every={}", common, every),
        fmt::format("pyramidkv:{},beta={},every={}", common, 1 + rng() % 30, every % 3 ? 0 : every),
        fmt::format("adakv:{},floor=0.1", common),
        fmt::format("adakv:{},floor=0,every={}", common, every),
        fmt::format("adakv:{},compat=kvpress,every={}", common, every),
        fmt::format("expected:budget={},every={},window=9", budget, every),
        fmt::format("rkv:{},buffer={}", common, every),
        fmt::format("rpc:every={},window={},ratio=3", 3 + every, 1 + rng() % 20),
        fmt::format("rpc:every={},window=2,heads=group", 4 + every),
    };
    const std::string& spec = specs[rng() % std::size(specs)];
    SCOPED_TRACE(fmt::format("{} prompt {} end {}", spec, prompt, end));
    Running run(spec, prompt, end, {}, static_cast<uint64_t>(round));
    run.sequence.Run(*run.state, prompt, prompt);
    run.sequence.store().CheckIntegrity();
    // What an engine gives back behind a prompt that was dropped from.
    if (run.sequence.set().dropped() > 0) {
      Growth growth = run.policy->MaxGrowth(prompt, end, 0);
      growth.rows = std::min<uint64_t>(growth.rows, std::max(end - prompt, 1u));
      run.sequence.Shrink(MaxDemand(kShape, growth));
      ++gave_back;
    }
    run.sequence.Run(*run.state, prompt, end);
    run.sequence.store().CheckIntegrity();
  }
  EXPECT_GT(gave_back, 30);
}

}  // namespace
}  // namespace kvasir
