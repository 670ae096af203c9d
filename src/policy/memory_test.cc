// Dropping entries frees memory: the bytes of a sequence under a policy follow its entries.
#include <gtest/gtest.h>

#include "base/checked.h"
#include "policy/test_lanes.h"

namespace kvasir {
namespace {

class MemoryTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Policies, MemoryTest,
                         testing::Values("keydiff:budget=100,block=32", "knorm:budget=100,block=7",
                                         "streaming:budget=100,block=64,sink=4",
                                         "h2o:budget=100,block=32", "tova:budget=100,block=32",
                                         "snapkv:budget=100,window=16,every=40",
                                         "pyramidkv:budget=100,window=16,every=40",
                                         "adakv:budget=100,window=16,floor=0,every=40",
                                         "expected:budget=100,every=40", "rkv:budget=100,buffer=40",
                                         "rpc:every=80,window=16,ratio=4,heads=group"));

// D3: pages of a lane's own, beside the open one, after each commit that dropped something.
TEST_P(MemoryTest, LanesArePackedAfterEveryCommit) {
  constexpr uint32_t kPrompt = 500, kEnd = 900;
  const LaneShape shape = F32Shape(2, 2, 8);
  const auto policy =
      MakePolicy(GetParam(), {.shape = shape, .facts = FactsFor(shape, kTestGroup)});
  TestSequence sequence(shape, MaxDemand(shape, policy->MaxGrowth(kPrompt, kEnd, 0)),
                        RandomKeys(shape.head_dim, 1));
  const auto state = policy->Begin({.shape = shape});
  int commits = 0;
  sequence.Run(*state, kPrompt, kEnd, nullptr, [&](const TestSequence::Step& step) {
    if (step.plan.drops.empty()) return;
    ++commits;
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (uint32_t head = 0; head < 2; ++head) {
        const Lane& lane = sequence.set().lane(layer, head);
        ASSERT_LE(lane.body.size(), DivideUp<uint64_t>(lane.n_entries, kPageEntries) + 1)
            << "at " << step.after.position;
        ASSERT_LE(lane.tail.size(), 1u);
      }
    }
  });
  EXPECT_GT(commits, 3);
}

TEST(Memory, ResidentBytesAreThoseOfLiveEntries) {
  const LaneShape shape = {.n_layers = 1, .n_kv_heads = 2, .head_dim = 64};  // f16
  const auto policy =
      MakePolicy("keydiff:budget=2048,block=128", {.shape = shape, .facts = FactsFor(shape, 2)});
  const Demand demand = MaxDemand(shape, policy->MaxGrowth(8192, 8192, 0));
  const uint64_t entry = shape.EntryBytes();
  EXPECT_LE(static_cast<double>(demand.bytes()),
            1.15 * static_cast<double>((2048 + 128) * shape.lanes() * entry));
  TestSequence sequence(shape, demand, RandomKeys(shape.head_dim, 1));
  const auto state = policy->Begin({.shape = shape});
  sequence.Run(*state, 8192, 8192, nullptr, [&](const TestSequence::Step& step) {
    if (step.after.position < 2048) return;
    const uint64_t live = sequence.set().n_entries() * entry;
    ASSERT_LE(static_cast<double>(sequence.store().Bytes(sequence.set())),
              1.10 * static_cast<double>(live))
        << "at " << step.after.position;
  });
  EXPECT_EQ(sequence.set().n_entries(), 2048 * shape.lanes());
}

}  // namespace
}  // namespace kvasir
