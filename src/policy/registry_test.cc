#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "policy/budget.h"
#include "policy/policy.h"
#include "policy/retention.h"

namespace kvasir {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr LaneShape kShape = {
    .n_layers = 30, .n_kv_heads = 3, .head_dim = 64, .k_form = Codec::kF16, .v_form = Codec::kF16};

std::unique_ptr<Policy> Make(std::string_view spec, uint64_t memory = 0) {
  return MakePolicy(spec, {.memory_bytes = memory,
                           .shape = kShape,
                           .facts = {.n_heads = 9, .inverse_frequencies = std::vector<float>(32)}});
}
const GridParams& Params(const Policy& policy) {
  const Schedule& schedule = dynamic_cast<const RetentionPolicy&>(policy).schedule();
  return dynamic_cast<const BudgetSchedule&>(schedule).params();
}

template <typename F>
std::string ErrorOf(Code code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}
std::string UsageError(std::string_view spec, uint64_t memory = 0) {
  return ErrorOf(Code::kUsage, [&] { Make(spec, memory); });
}

TEST(Registry, TablesOfAllPoliciesAreSound) {
  std::set<std::string_view> names;
  for (const Traits* traits : AllPolicies()) {
    EXPECT_TRUE(names.insert(traits->name).second) << traits->name;
    EXPECT_THAT(CheckTable(traits->options), IsEmpty()) << traits->name;
    EXPECT_FALSE(traits->summary.empty());
    for (const Option& option : traits->options) EXPECT_FALSE(option.help.empty()) << option.name;
  }
  EXPECT_EQ(names.count("none"), 0u);
}

TEST(Registry, NoneIsNoPolicy) {
  EXPECT_EQ(Make(""), nullptr);
  EXPECT_EQ(Make("none"), nullptr);
}

TEST(Registry, SpecsNameTheirPolicyWithAllParameters) {
  EXPECT_EQ(Make("keydiff:budget=2048")->Spec(),
            "keydiff:budget=2048,block=128,sink=0,pin=system,skip=0,slack=32,recent=0,anchor=unit,"
            "invert=off,bias=on");
  EXPECT_EQ(Make("streaming:sink=2,recent=9")->Spec(),
            "streaming:budget=10,block=128,sink=2,pin=system,skip=0,slack=0");
  EXPECT_EQ(Make("random:keep=0.25,seed=7,slack=3,pin=none")->Spec(),
            "random:keep=0.25,block=128,sink=0,pin=none,skip=0,slack=3,recent=0,seed=7");
}

TEST(Registry, SpecsRoundTrip) {
  for (const Traits* traits : AllPolicies()) {
    for (const char* keys : {"budget=100", "budget=1GiB", "keep=0.3", "keep=0.3,slack=5",
                             "budget=100,block=7,sink=9,pin=none,skip=2,slack=11",
                             "budget=100,sink=9,pin=none,skip=2", "every=64,window=8"}) {
      // Keys that the method has.
      std::string own;
      for (const auto& [key, value] : SplitSpec(fmt::format("x:{}", keys), "test").values) {
        const bool known = std::any_of(traits->options.begin(), traits->options.end(),
                                       [&](const Option& option) { return option.name == key; });
        if (known) own += fmt::format("{}{}={}", own.empty() ? "" : ",", key, value);
      }
      const bool needs_budget = traits->options[0].name == "budget";
      if (own.empty() ||
          (needs_budget && own.find("budget") == own.npos && own.find("keep") == own.npos)) {
        continue;
      }
      if (traits->hides && own == "budget=1GiB") continue;  // its budget is not one of memory
      const auto policy = Make(fmt::format("{}:{}", traits->name, own));
      EXPECT_EQ(&policy->traits(), traits);
      EXPECT_EQ(Make(policy->Spec())->Spec(), policy->Spec()) << own;
    }
  }
}

TEST(Registry, DefaultSlackIsASixteenthOfTheBudgetUpTo32) {
  for (const auto& [budget, slack] :
       {std::pair<uint64_t, uint64_t>{1, 0}, {15, 0}, {16, 1}, {511, 31}, {512, 32}, {4096, 32}}) {
    const auto policy = Make(fmt::format("keydiff:budget={}", budget));
    EXPECT_EQ(Params(*policy).Slack(budget), slack) << budget;
  }
  EXPECT_EQ(Params(*Make("streaming:budget=4096")).Slack(4096), 0u);
}

TEST(Registry, RefusesUnknownNamesAndKeysWithTheNearestOne) {
  EXPECT_EQ(UsageError("keydif:budget=3"),
            "--kv-policy: unknown policy \"keydif\"; did you mean keydiff?");
  EXPECT_THAT(UsageError("entropy:budget=3"), HasSubstr("keydiff, rpc, snapkv,"));
  EXPECT_EQ(UsageError("keydiff:buget=3"),
            "--kv-policy keydiff: unknown key \"buget\"; did you mean budget?");
  EXPECT_THAT(UsageError("keydiff:budget=3,budget=4"), HasSubstr("twice"));
  EXPECT_THAT(UsageError("streaming:budget=30,seed=4"), HasSubstr("unknown key \"seed\""));
}

TEST(Registry, RefusesValuesOutsideTheirLimits) {
  EXPECT_THAT(UsageError("keydiff:budget=0"), HasSubstr("budget=0"));
  EXPECT_THAT(UsageError("keydiff:budget=16777217"), HasSubstr("budget"));
  EXPECT_THAT(UsageError("keydiff:budget=9,block=0"), HasSubstr("block=0"));
  EXPECT_THAT(UsageError("keydiff:keep=1.5"), HasSubstr("keep=1.5"));
  EXPECT_THAT(UsageError("keydiff:budget=9,anchor=mean"), HasSubstr("unit|raw"));
}

TEST(Registry, RefusesABudgetThatIsProtectedAltogether) {
  EXPECT_THAT(UsageError("keydiff:budget=8,sink=4,recent=4"),
              AllOf(HasSubstr("sink + recent = 8"), HasSubstr("the least is 9")));
  EXPECT_NE(Make("keydiff:budget=9,sink=4,recent=4"), nullptr);
  EXPECT_THAT(UsageError("streaming:budget=4"), HasSubstr("the least is 5"));
  EXPECT_THAT(UsageError("keydiff:budget=8,slack=8"), HasSubstr("slack=8"));
}

TEST(Registry, RefusesToGuessABudget) {
  EXPECT_THAT(UsageError("keydiff"), AllOf(HasSubstr("budget=N"), HasSubstr("--kv-memory")));
  EXPECT_THAT(UsageError("keydiff:budget=3,keep=0.5"), HasSubstr("exclude"));
}

TEST(Registry, StreamingTakesItsWindowOrItsBudget) {
  EXPECT_EQ(Params(*Make("streaming:recent=2000")).budget, 2003u);
  EXPECT_EQ(Params(*Make("streaming:budget=2003,recent=2000")).budget, 2003u);
  EXPECT_THAT(UsageError("streaming:budget=2004,recent=2000"), HasSubstr("budget=2003"));
  EXPECT_THAT(UsageError("streaming:keep=0.5,recent=2000"), HasSubstr("budget=2003"));
}

TEST(Registry, SkipMustLeaveALayer) {
  EXPECT_NE(Make("keydiff:budget=64,skip=29"), nullptr);
  EXPECT_THAT(UsageError("keydiff:budget=64,skip=30"), HasSubstr("30 layers"));
}

TEST(Registry, DividesABudgetInBytesByTheBytesOfAnEntryInAllLanes) {
  const uint64_t row = 90 * (64 * 2 * 2 + 4);
  EXPECT_EQ(Params(*Make("keydiff:budget=1GiB")).budget, (uint64_t{1} << 30) / row);
  EXPECT_EQ(Params(*Make(fmt::format("keydiff:budget={}B", 7 * row))).budget, 7u);
  EXPECT_EQ(Params(*Make(fmt::format("keydiff:budget={}B", 7 * row - 1))).budget, 6u);
  EXPECT_THAT(UsageError("keydiff:budget=1KiB"), HasSubstr("22.9 KiB"));
}

TEST(Registry, DerivesTheLargestBudgetThatFitsTheMemory) {
  const uint64_t memory = uint64_t{64} << 20;
  const auto policy = Make("keydiff", memory);
  const uint64_t budget = Params(*policy).budget;
  const Pool pool(memory);
  const auto demand = [&](uint64_t n) {
    const auto exact = Make(fmt::format("keydiff:budget={}", n));
    return MaxDemand(kShape, exact->MaxGrowth(UINT32_MAX, UINT32_MAX, 0));
  };
  EXPECT_TRUE(pool.FitsEmpty(demand(budget)));
  EXPECT_FALSE(pool.FitsEmpty(demand(budget + 1)));
  // Nearly all of it: two blocks and some pages are not entries.
  EXPECT_GT(budget + 512, memory / (90 * PackedEntryBytes(kShape)));
  EXPECT_THAT(policy->Spec(), HasSubstr(fmt::format("budget={},", budget)));
  EXPECT_THAT(UsageError("keydiff", 4096), HasSubstr("4.0 KiB"));
}

// What a policy records has to fit beside the lanes.
TEST(Registry, DerivedBudgetsLeaveRoomForEvidence) {
  for (const Traits* traits : AllPolicies()) {
    if (traits->name == "rpc" || traits->hides) continue;  // no budget of memory
    const uint64_t memory = uint64_t{64} << 20;
    const Pool pool(memory);
    const auto policy = Make(traits->name, memory);
    // Where the whole prompt is resident the budget is for one that just fits.
    const uint64_t tokens = traits->sharing == Sharing::kGrid ? UINT32_MAX : Params(*policy).budget;
    const Growth growth = policy->MaxGrowth(tokens, tokens, 0);
    Demand demand = MaxDemand(kShape, growth);
    demand.AddSide(policy->EvidenceBytes(growth));
    EXPECT_TRUE(pool.FitsEmpty(demand)) << traits->name;
    EXPECT_GT(demand.bytes(), memory * 5 / 6) << traits->name;
  }
}

TEST(Registry, ADerivedBudgetLeavesRoomForWhatIsRecorded) {
  const uint64_t memory = uint64_t{64} << 20;
  const Pool pool(memory);
  for (const char* name : {"h2o", "tova"}) {
    const auto demand = [&](const Policy& policy) {
      const Growth growth = policy.MaxGrowth(UINT32_MAX, UINT32_MAX, 0);
      Demand sum = MaxDemand(kShape, growth);
      EXPECT_GT(policy.EvidenceBytes(growth), 0u) << name;
      sum.AddSide(policy.EvidenceBytes(growth));
      return sum;
    };
    const auto derived = Make(name, memory);
    EXPECT_TRUE(pool.FitsEmpty(demand(*derived))) << name;
    const auto more = Make(fmt::format("{}:budget={}", name, Params(*derived).budget + 1));
    EXPECT_FALSE(pool.FitsEmpty(demand(*more))) << name;
  }
}

TEST(MaxGrowth, IsBudgetAndABlockOrTheTokensOneSelectionServes) {
  Growth growth = Make("keydiff:budget=2048")->MaxGrowth(100000, 100000, 0);
  EXPECT_EQ(growth.tokens, 100000u);
  EXPECT_EQ(growth.cap, 2048u);
  EXPECT_EQ(growth.rows, 128u);
  growth = Make("keydiff:budget=2048,block=8")->MaxGrowth(100000, 100000, 0);
  EXPECT_EQ(growth.rows, 33u);
  growth = Make("keydiff:keep=0.25,slack=0,block=1")->MaxGrowth(1000, 1000, 0);
  EXPECT_EQ(growth.cap, 250u);
  EXPECT_EQ(growth.rows, 1u);
}

TEST(MaxGrowth, RefusesARequestWhosePinnedSpansFillTheBudget) {
  const auto policy = Make("keydiff:budget=100,sink=4,recent=6");
  policy->MaxGrowth(1000, 1000, 89);
  EXPECT_THAT(ErrorOf(Code::kInvalid, [&] { policy->MaxGrowth(1000, 1000, 90); }),
              AllOf(HasSubstr("100 protected"), HasSubstr("least budget is 101")));
  policy->MaxGrowth(100, 100, 90);  // as many tokens as the budget: nothing is dropped
  Make("keydiff:budget=100,pin=none")->MaxGrowth(1000, 1000, 5000);
  // A fraction grows with what must stay.
  EXPECT_EQ(Make("keydiff:keep=0.01,sink=4")->MaxGrowth(1000, 1000, 90).cap, 95u);
}

TEST(MaxGrowth, RefusesMoreTokensThanWholeLayersLeaveRoomFor) {
  // 30 x 100 entries, 2 layers of n whole: 28 lanes need one each.
  const auto policy = Make("keydiff:budget=100,skip=2");
  // Lanes are uneven then: their sum is bounded, and each may need a page more for rounding.
  EXPECT_EQ(policy->MaxGrowth(1486, 1486, 0).cap, 100u + 63u);
  EXPECT_EQ(Make("keydiff:budget=100")->MaxGrowth(1486, 1486, 0).cap, 100u);
  EXPECT_THAT(ErrorOf(Code::kInvalid, [&] { policy->MaxGrowth(1487, 1487, 0); }),
              AllOf(HasSubstr("skip=2"), HasSubstr("least budget is 101")));
}

}  // namespace
}  // namespace kvasir
