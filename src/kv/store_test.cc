#include "kv/store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <random>

#include "kv/testing.h"

namespace kvasir {
namespace {

constexpr uint64_t kMiB = 1 << 20;
const LaneShape kSmall = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 8};

// Indices [begin, end).
std::vector<uint32_t> Range(uint32_t begin, uint32_t end) {
  std::vector<uint32_t> indices(end - begin);
  std::iota(indices.begin(), indices.end(), begin);
  return indices;
}

class StoreTest : public testing::Test {
 protected:
  // Rows are random; what the lanes should hold is kept nowhere.
  void AppendRows(Store& store, LaneSetHandle& set, uint32_t n) {
    const LaneShape shape = set->shape();
    AppendCursor cursor = store.Append(set, n);
    for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
      RandomRows rows(shape, n, rng_);
      cursor.Append(shape.first_layer + layer, rows.k(), rows.v());
    }
    cursor.Finish();
  }

  std::vector<DecodedEntry> Entries(const Store& store, const LaneSetHandle& set,
                                    uint32_t head = 0) {
    return Decode(kernels_, store.View(*set, set->shape().first_layer, head));
  }
  std::vector<uint32_t> Positions(const Store& store, const LaneSetHandle& set, uint32_t head = 0) {
    std::vector<uint32_t> positions;
    for (const DecodedEntry& entry : Entries(store, set, head)) positions.push_back(entry.position);
    return positions;
  }
  LaneSetHandle Create(Store& store, const Growth& growth, const LaneShape& shape = kSmall) {
    return store.Create(shape, LaneRole::kMain, MaxDemand(shape, growth));
  }

  const Kernels& kernels_ = BestKernels();
  std::mt19937 rng_{1};
};
using StoreDeathTest = StoreTest;

// Bytes of a page of kSmall: K and V of 64 x 8 halves.
constexpr uint64_t kPage = 2 * 64 * 8 * 2;

TEST(MaxDemand, IsAPagePer64TokensWhenNothingIsDropped) {
  const LaneShape shape = {
      .n_layers = 2, .n_kv_heads = 3, .head_dim = 64, .k_form = Codec::kF16, .v_form = Codec::kQ8};
  const std::map<size_t, uint64_t> planes = {{64 * 64 * 2, 2 * 6}, {64 * (64 + 4), 2 * 6}};
  EXPECT_EQ(MaxDemand(shape, {.tokens = 65}).planes(), planes);
  EXPECT_EQ(MaxDemand(shape, {.tokens = 128}).planes(), planes);
  EXPECT_TRUE(MaxDemand(shape, {}).planes().empty());
}

TEST(MaxDemand, FollowsTheCapAndTheRowsBetweenCommits) {
  const Growth growth = {.tokens = 100'000, .cap = 2048, .rows = 128};
  const Demand demand = MaxDemand(kSmall, growth);
  EXPECT_EQ(demand.planes(), (std::map<size_t, uint64_t>{{1024, 2 * (34 + 2)}, {256, 32}}));
  EXPECT_EQ(demand.positions(), 32u);
  // Short sequences need no more than without a cap.
  EXPECT_EQ(MaxDemand(kSmall, {.tokens = 100, .cap = 2048, .rows = 128}).planes(),
            (std::map<size_t, uint64_t>{{1024, 2 * 2}, {256, 2}}));
}

TEST_F(StoreTest, ReadsRowsBackAtTheirPositions) {
  const LaneShape shape = {.first_layer = 5, .n_layers = 2, .n_kv_heads = 3, .head_dim = 40};
  Store store(16 * kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 300}, shape);
  std::vector<std::vector<DecodedEntry>> expected(6);
  for (const uint32_t n : {1u, 62u, 1u, 1u, 130u, 64u}) {
    AppendCursor cursor = store.Append(set, n);
    for (const uint32_t layer : {1u, 0u}) {
      RandomRows rows(shape, n, rng_);
      cursor.Append(5 + layer, rows.k(), rows.v());
      for (uint32_t head = 0; head < 3; ++head) {
        auto& lane = expected[layer * 3 + head];
        for (uint32_t i = 0; i < n; ++i) {
          lane.push_back(rows.Entry(kernels_, i, head, cursor.first_position() + i));
        }
        EXPECT_EQ(Decode(kernels_, cursor.View(5 + layer, head)), lane);
      }
    }
    cursor.Finish();
    store.CheckIntegrity();
  }
  EXPECT_EQ(set->next_position(), 259u);
  for (uint32_t lane = 0; lane < 6; ++lane) {
    EXPECT_EQ(Decode(kernels_, store.View(*set, 5 + lane / 3, lane % 3)), expected[lane]);
  }
}

TEST_F(StoreTest, EncodesInParallelWhatItEncodesAlone) {
  const LaneShape shape = {.n_layers = 1, .n_kv_heads = 4, .head_dim = 64, .k_form = Codec::kQ8};
  Workers workers(3);
  Store alone(16 * kMiB, kernels_, nullptr), parallel(16 * kMiB, kernels_, &workers);
  LaneSetHandle a = Create(alone, {.tokens = 500}, shape);
  LaneSetHandle b = Create(parallel, {.tokens = 500}, shape);
  RandomRows rows(shape, 500, rng_);
  for (auto [store, set] : {std::pair(&alone, &a), std::pair(&parallel, &b)}) {
    AppendCursor cursor = store->Append(*set, 500);
    cursor.Append(0, rows.k(), rows.v());
    cursor.Finish();
  }
  for (uint32_t h = 0; h < 4; ++h) EXPECT_EQ(Entries(alone, a, h), Entries(parallel, b, h));
}

TEST_F(StoreTest, GivesAnEmptyHandleWhenTheDemandDoesNotFit) {
  Store store(256 << 10, kernels_, nullptr);
  LaneSetHandle first = Create(store, {.tokens = 64 * 80});
  ASSERT_TRUE(first);
  EXPECT_FALSE(Create(store, {.tokens = 64 * 80}));
  EXPECT_TRUE(store.FitsEmpty(MaxDemand(kSmall, {.tokens = 64 * 80})));
  EXPECT_FALSE(store.Fits(MaxDemand(kSmall, {.tokens = 64 * 80})));
  EXPECT_FALSE(store.Extend(first, MaxDemand(kSmall, {.tokens = 64 * 80})));
  EXPECT_TRUE(store.Extend(first, MaxDemand(kSmall, {.tokens = 64 * 16})));
  AppendRows(store, first, 64 * 96);
  EXPECT_EQ(store.ledger().bytes, 96 * kPage);
  first.Reset();
  EXPECT_TRUE(Create(store, {.tokens = 64 * 80}));
  EXPECT_EQ(store.ledger().bytes_peak, 96 * kPage);
}

TEST_F(StoreTest, DropsByViewIndexAndKeepsPositions) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 1000, .cap = 200, .rows = 200});
  AppendRows(store, set, 200);
  const std::vector<DecodedEntry> before = Entries(store, set);
  store.Commit(set, Drop(0, kAllHeads, {0, 1, 63, 64, 199}));
  EXPECT_EQ(set->n_entries(), 195u);
  EXPECT_EQ(set->dropped(), 5u);
  EXPECT_EQ(set->next_position(), 200u);
  EXPECT_EQ(Entries(store, set)[0], before[2]);
  EXPECT_EQ(Positions(store, set)[61], 65u);
  // Indices count what is alive now.
  store.Commit(set, Drop(0, 0, {0, 194}));
  EXPECT_EQ(Positions(store, set).front(), 3u);
  EXPECT_EQ(Positions(store, set).back(), 197u);
  AppendRows(store, set, 1);
  EXPECT_EQ(Positions(store, set).back(), 200u);
  EXPECT_EQ(store.ledger().entries_dropped, 7u);
  EXPECT_EQ(store.ledger().entries_peak_per_lane, 200u);
  store.ResetPeaks();
  EXPECT_EQ(store.ledger().entries_peak_per_lane, 194u);
  store.CheckIntegrity();
}

TEST_F(StoreTest, FreesEmptyPagesAtOnceAndDoesNotMoveForAFewHoles) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 1000, .cap = 320, .rows = 320});
  AppendRows(store, set, 320);
  EXPECT_EQ(store.ledger().bytes, 5 * kPage);
  store.Commit(set, Drop(0, 0, Range(64, 128)));
  EXPECT_EQ(store.ledger().bytes, 4 * kPage);
  store.Commit(set, Drop(0, 0, {5, 70, 200}));
  EXPECT_EQ(store.ledger().bytes, 4 * kPage) << "no position plane: nothing has moved";
  EXPECT_EQ(set->lane(0, 0).body.size(), 4u);
  // 253 - 126 = 127 entries need two pages, three are allowed.
  store.Commit(set, Drop(0, 0, Range(20, 146)));
  EXPECT_EQ(set->lane(0, 0).body.size(), 3u);
  store.Commit(set, Drop(0, 0, Range(0, 10)));
  EXPECT_EQ(set->lane(0, 0).body.size(), 3u);
  store.Commit(set, Drop(0, 0, {0}));
  store.CheckIntegrity();
}

TEST_F(StoreTest, KeepsTheOpenPageInTheTailUntilItIsComplete) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 1000, .cap = 500, .rows = 500});
  AppendRows(store, set, 100);
  store.Commit(set, Drop(0, 0, {80}));
  EXPECT_EQ(set->lane(0, 0).body.size(), 1u);
  EXPECT_EQ(set->lane(0, 0).tail.size(), 1u);
  AppendRows(store, set, 28);
  EXPECT_EQ(set->lane(0, 0).tail.size(), 1u);
  store.Commit(set, Drop(0, 0, {80}));
  EXPECT_EQ(set->lane(0, 0).body.size(), 2u);
  EXPECT_TRUE(set->lane(0, 0).tail.empty());
  store.CheckIntegrity();
}

TEST_F(StoreTest, ADeadOpenPageGoesAndIsTakenAgainForTheNextRow) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 100});
  AppendRows(store, set, 70);
  store.Commit(set, Drop(0, 0, Range(64, 70)));
  EXPECT_EQ(store.ledger().bytes, kPage);
  AppendRows(store, set, 3);
  EXPECT_EQ(store.ledger().bytes, 2 * kPage);
  EXPECT_EQ(Positions(store, set).size(), 67u);
  EXPECT_EQ(Positions(store, set)[64], 70u);
  store.Commit(set, Drop(0, 0, Range(0, 67)));
  EXPECT_EQ(store.ledger().bytes, 0u);
  EXPECT_EQ(store.View(*set, 0, 0).n_pages, 0u);
  AppendRows(store, set, 1);
  EXPECT_EQ(Positions(store, set), std::vector<uint32_t>{73});
  store.CheckIntegrity();
}

// The shape of a capped policy at work: prompt in blocks, then token by token, the cap kept after
// every pass.
TEST_F(StoreTest, MemoryFollowsTheCapInPrefillAndDecode) {
  const LaneShape shape = {.n_layers = 2, .n_kv_heads = 2, .head_dim = 64};
  const Growth growth = {.tokens = 8192, .cap = 2048, .rows = 128};
  Workers workers(2);
  Store store(64 * kMiB, kernels_, &workers);
  LaneSetHandle set = Create(store, growth, shape);
  while (set->next_position() < 8192) {
    AppendRows(store, set, set->next_position() < 7000 ? 128 : 1);
    const uint32_t n = set->max_entries_per_lane();
    ASSERT_LE(n, 2048u + 128);
    if (n <= 2048) continue;
    Plan plan;
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (int32_t head = 0; head < 2; ++head) {  // each lane loses others
        std::vector<uint32_t> all = Range(0, n), gone;
        std::sample(all.begin(), all.end(), std::back_inserter(gone), n - 2048 + 32, rng_);
        plan.drops.push_back({.layer = layer, .head = head, .indices = gone});
      }
    }
    store.Commit(set, plan);
    const uint64_t payload = set->n_entries() * shape.EntryBytes();
    ASSERT_LE(store.ledger().bytes, payload * 11 / 10) << set->next_position();
    for (uint32_t lane = 0; lane < 4; ++lane) {
      const Lane& l = set->lane(lane / 2, lane % 2);
      ASSERT_LE(l.body.size(), (l.n_entries + 63) / 64 + 1);
    }
  }
  const Ledger ledger = store.ledger();
  EXPECT_EQ(ledger.entries_peak_per_lane, 2048u + 128);
  EXPECT_LE(ledger.bytes_peak, ledger.bytes_reserved);
  EXPECT_LE(ledger.bytes_tables, ledger.budget_bytes / 50);
  store.CheckIntegrity();
}

uint64_t ProcessResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

TEST_F(StoreTest, ResidentMemoryFallsWithTheLedger) {
  const LaneShape shape = {.n_layers = 4, .n_kv_heads = 2, .head_dim = 64, .k_form = Codec::kF32};
  Store store(128 * kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 8192, .cap = 8192, .rows = 1024}, shape);
  const uint64_t empty = ProcessResidentBytes();
  while (set->next_position() < 8192) AppendRows(store, set, 1024);
  const uint64_t bytes = store.ledger().bytes;
  const uint64_t full = ProcessResidentBytes();
  EXPECT_GE(full - empty, bytes);
  Plan plan;  // seven of eight entries of every page
  std::vector<uint32_t> gone;
  for (uint32_t i = 0; i < 8192; ++i) {
    if (i % 8 != 0) gone.push_back(i);
  }
  for (uint32_t layer = 0; layer < 4; ++layer) {
    plan.drops.push_back({.layer = layer, .head = kAllHeads, .indices = gone});
  }
  store.Commit(set, plan);
  const Ledger ledger = store.ledger();
  EXPECT_LE(ledger.bytes, bytes / 7);
  EXPECT_LE(ledger.bytes_committed, ledger.bytes + 3 * 2 * kMiB) << "a slab per plane size";
  EXPECT_LE(ProcessResidentBytes(), full - bytes * 3 / 4);
  store.CheckIntegrity();
}

TEST_F(StoreTest, CountsBytesByCodecAndPositions) {
  const LaneShape shape = {
      .n_layers = 1, .n_kv_heads = 1, .head_dim = 40, .k_form = Codec::kQ8, .v_form = Codec::kF32};
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 1000, .cap = 64, .rows = 640}, shape);
  AppendRows(store, set, 640);
  std::vector<uint32_t> gone;
  for (uint32_t i = 0; i < 640; ++i) {
    if (i % 10 != 0) gone.push_back(i);
  }
  store.Commit(set, Drop(0, 0, gone));
  const Ledger ledger = store.ledger();
  EXPECT_EQ(ledger.bytes_by_use[static_cast<size_t>(PlaneUse::kQ8)], 64u * (40 + 4));
  EXPECT_EQ(ledger.bytes_by_use[static_cast<size_t>(PlaneUse::kF32)], 64u * 40 * 4);
  EXPECT_EQ(ledger.bytes_by_use[static_cast<size_t>(PlaneUse::kPositions)], 256u);
  EXPECT_EQ(ledger.bytes, 64u * 44 + 64 * 160 + 256);
  EXPECT_EQ(ledger.bytes_peak, 10u * (64 * 44 + 64 * 160) + 256) << "inside the commit";
  EXPECT_GT(ledger.bytes_tables, 0u);
  EXPECT_EQ(set->lane(0, 0).body.size(), 1u);
}

TEST_F(StoreTest, ViewsAreKeptAndOnlyChangeWhereTheLaneDid) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 640, .cap = 640, .rows = 640});
  AppendRows(store, set, 140);
  const LaneView first = store.View(*set, 0, 0);
  EXPECT_EQ(store.View(*set, 0, 0).pages, first.pages);
  EXPECT_EQ(first.n_pages, 3u);
  EXPECT_EQ(first.n_entries, 140u);
  EXPECT_EQ(first.pages[2].filled, 12u);
  const uint8_t* k = first.pages[0].k;
  AppendRows(store, set, 1);
  const LaneView second = store.View(*set, 0, 0);
  EXPECT_EQ(second.pages[2].filled, 13u);
  EXPECT_EQ(second.pages[2].live, (uint64_t{1} << 13) - 1);
  EXPECT_EQ(second.pages[0].k, k);
  store.Commit(set, Drop(0, 0, {1}));
  EXPECT_EQ(store.View(*set, 0, 0).pages[0].live, ~uint64_t{2});
}

TEST_F(StoreTest, ForksSharePagesUntilOneSideWrites) {
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle parent = Create(store, {.tokens = 400});
  AppendRows(store, parent, 150);
  const std::vector<DecodedEntry> prefix = Entries(store, parent);
  LaneSetHandle child =
      store.Fork(parent, ForkDemand(parent->shape(), parent->next_position(), 40, {.tokens = 190}));
  ASSERT_TRUE(child);
  EXPECT_EQ(store.ledger().bytes, 3 * kPage);
  EXPECT_EQ(store.ledger().entries, 300u);
  EXPECT_EQ(Entries(store, child), prefix);

  AppendRows(store, child, 1);  // the open page is copied, the others stay shared
  EXPECT_EQ(store.ledger().bytes, 4 * kPage);
  EXPECT_EQ(Entries(store, parent), prefix);
  AppendRows(store, parent, 2);  // now nobody else sees it: written in place
  EXPECT_EQ(store.ledger().bytes, 4 * kPage);
  store.CheckIntegrity();
  std::vector<DecodedEntry> of_parent = Entries(store, parent), of_child = Entries(store, child);
  EXPECT_EQ(of_parent.size(), 152u);
  EXPECT_EQ(of_child.size(), 151u);
  EXPECT_NE(of_parent[150], of_child[150]);
  EXPECT_EQ(of_parent[150].position, of_child[150].position);

  // Liveness is a fact of each lane's reference.
  store.Commit(child, Drop(0, 0, Range(0, 10)));
  EXPECT_EQ(Positions(store, child).front(), 10u);
  EXPECT_EQ(Entries(store, parent), of_parent);
  parent.Reset();
  store.CheckIntegrity();
  of_child.erase(of_child.begin(), of_child.begin() + 10);
  EXPECT_EQ(Entries(store, child), of_child);
  AppendRows(store, child, 39);
  child.Reset();
  EXPECT_EQ(store.ledger().bytes, 0u);
  EXPECT_EQ(store.ledger().bytes_reserved, 0u);
}

TEST_F(StoreTest, AForkInheritsPositionsProtectionAndCounts) {
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle parent = Create(store, {.tokens = 200, .cap = 200, .rows = 200});
  AppendRows(store, parent, 100);
  Plan plan = Drop(0, 0, Range(50, 60));
  plan.protects = {{.begin = 0, .end = 4}, {.begin = 4, .end = 8}, {.begin = 20, .end = 21}};
  store.Commit(parent, plan);
  LaneSetHandle child = store.Fork(parent, ForkDemand(parent->shape(), parent->next_position(), 10,
                                                      {.tokens = 110, .cap = 200, .rows = 200}));
  ASSERT_TRUE(child);
  EXPECT_EQ(child->next_position(), 100u);
  EXPECT_EQ(child->dropped(), 10u);
  EXPECT_EQ(store.ledger().entries_dropped, 10u);
  for (const uint32_t p : {0u, 7u, 20u}) EXPECT_TRUE(child->IsProtected(p));
  for (const uint32_t p : {8u, 19u, 21u}) EXPECT_FALSE(child->IsProtected(p));
}

TEST_F(StoreTest, AForkIsRefusedWhenALiveParentCouldNotStayWhole) {
  Store store(256 << 10, kernels_, nullptr);  // 96 pages
  LaneSetHandle parent = Create(store, {.tokens = 64 * 60});
  AppendRows(store, parent, 64 * 40);
  const Demand own = ForkDemand(parent->shape(), parent->next_position(), 64, {.tokens = 64 * 41});
  EXPECT_TRUE(store.Fits(own));
  const uint64_t reserved = store.ledger().bytes_reserved;
  EXPECT_FALSE(store.Fork(parent, own)) << "40 shared, 60 granted and one of its own";
  EXPECT_EQ(store.ledger().bytes_reserved, reserved);
  store.CheckIntegrity();

  store.Freeze(parent);
  EXPECT_EQ(store.ledger().bytes_reserved, 40 * kPage);
  std::vector<LaneSetHandle> children;
  while (LaneSetHandle child = store.Fork(parent, own)) children.push_back(std::move(child));
  EXPECT_EQ(children.size(), 96u - 40);
  for (LaneSetHandle& child : children) AppendRows(store, child, 64);
  EXPECT_EQ(store.ledger().bytes, 96 * kPage);
  store.CheckIntegrity();
  parent.Reset();  // the children still hold its pages
  EXPECT_EQ(store.ledger().bytes, 96 * kPage);
  children.clear();
  EXPECT_EQ(store.ledger().bytes, 0u);
}

TEST_F(StoreTest, ALiveParentGoesOnWithItsWholeReservationAfterAFork) {
  Store store(kMiB, kernels_, nullptr);
  const Growth growth = {.tokens = 64 * 20, .cap = 256, .rows = 64};
  LaneSetHandle parent = Create(store, growth);
  AppendRows(store, parent, 64);
  while (parent->next_position() < 64 * 10) {
    AppendRows(store, parent, 64);
    if (parent->n_entries() > 256) store.Commit(parent, Drop(0, 0, Range(100, 164)));
  }
  Growth of_child = growth;
  LaneSetHandle child =
      store.Fork(parent, ForkDemand(parent->shape(), parent->next_position(), 64 * 10, of_child));
  ASSERT_TRUE(child);
  for (LaneSetHandle* set : {&parent, &child, &parent}) {
    for (int i = 0; i < 5; ++i) {
      AppendRows(store, *set, 64);
      store.Commit(*set, Drop(0, 0, Range(64, 128)));
      store.CheckIntegrity();
    }
  }
}

TEST_F(StoreTest, SharedPagesStayWhileHalfOfTheirEntriesLive) {
  Store store(4 * kMiB, kernels_, nullptr);
  const Growth growth = {.tokens = 64 * 5, .cap = 64 * 5, .rows = 64};
  LaneSetHandle parent = Create(store, growth);
  AppendRows(store, parent, 64 * 4);
  store.Freeze(parent);
  LaneSetHandle child =
      store.Fork(parent, ForkDemand(parent->shape(), parent->next_position(), 64, growth));
  ASSERT_TRUE(child);
  store.Commit(child, Drop(0, 0, Range(64 * 3, 64 * 3 + 32)));
  EXPECT_EQ(store.ledger().bytes, 4 * kPage) << "32 of 64 live";
  EXPECT_EQ(child->lane(0, 0).body[3].n_live(), 32u);
  const std::vector<DecodedEntry> before = Entries(store, child);
  store.Commit(child, Drop(0, 0, {64 * 3}));
  EXPECT_EQ(store.ledger().bytes, 5 * kPage + kPositionBytes) << "31 entries in a page of its own";
  EXPECT_EQ(child->lane(0, 0).body[3].filled, 31u);

  // A run of pages is copied as soon as less than half of it lives, and fills the page behind it.
  store.Commit(child, Drop(0, 0, Range(64 * 2, 64 * 2 + 40)));
  EXPECT_EQ(store.ledger().bytes, 5 * kPage + kPositionBytes);
  EXPECT_EQ(child->lane(0, 0).body.size(), 3u);
  EXPECT_EQ(child->lane(0, 0).body[2].filled, 24u + 31);
  std::vector<DecodedEntry> expected(before.begin(), before.begin() + 128);
  expected.insert(expected.end(), before.begin() + 168, before.begin() + 192);
  expected.insert(expected.end(), before.begin() + 193, before.end());
  EXPECT_EQ(Entries(store, child), expected);
  // A page that dies in front of full ones stays: together more than half of them lives.
  store.Commit(child, Drop(0, 0, Range(0, 63)));
  EXPECT_EQ(store.ledger().bytes, 5 * kPage + kPositionBytes);
  store.CheckIntegrity();
  EXPECT_EQ(Entries(store, parent).size(), 256u);
}

TEST_F(StoreTest, AForkNeverCopiesSoMuchThatItsRowsFindNoRoom) {
  Store store(4 * kMiB, kernels_, nullptr);
  const Growth growth = {.tokens = 64 * 26, .cap = 64 * 24, .rows = 64};
  LaneSetHandle parent = Create(store, {.tokens = 64 * 24});
  AppendRows(store, parent, 64 * 24);
  LaneSetHandle child =
      store.Fork(parent, ForkDemand(parent->shape(), parent->next_position(), 128, growth));
  std::vector<uint32_t> gone;
  for (uint32_t i = 0; i < 64 * 24; ++i) {
    if (i % 64 < 33) gone.push_back(i);
  }
  // 24 pages with 31 entries each would fill all 12 pages that the child was granted.
  store.Commit(child, Drop(0, 0, gone));
  EXPECT_EQ(store.ledger().bytes, (24 + 6) * kPage + 6 * kPositionBytes);
  AppendRows(store, child, 64);
  store.Commit(child, Drop(0, 0, {0}));
  AppendRows(store, child, 64);
  store.CheckIntegrity();
  EXPECT_EQ(child->n_entries(), 24u * 31 - 1 + 128);
}

TEST_F(StoreTest, ACutTakesTheFirstPositionsAndCopiesThePageItFallsInto) {
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle parent = Create(store, {.tokens = 300});
  AppendRows(store, parent, 200);
  const std::vector<DecodedEntry> whole = Entries(store, parent);
  const auto cut = [&](uint32_t position, uint64_t rows) {
    const Demand own = ForkDemand(kSmall, position, rows, {.tokens = position + rows});
    return store.ForkAt(parent, position, own);
  };
  LaneSetHandle child = cut(150, 10);
  ASSERT_TRUE(child);
  EXPECT_EQ(store.ledger().bytes, 5 * kPage) << "two pages shared, one copied";
  EXPECT_EQ(child->next_position(), 150u);
  EXPECT_EQ(Entries(store, child), std::vector(whole.begin(), whole.begin() + 150));
  LaneSetHandle aligned = cut(128, 64);
  EXPECT_EQ(store.ledger().bytes, 5 * kPage);
  AppendRows(store, child, 10);
  AppendRows(store, aligned, 64);
  AppendRows(store, parent, 100);  // in place, and within what it was granted
  store.CheckIntegrity();
  EXPECT_EQ(store.ledger().bytes, (5 + 1 + 1) * kPage);
  const std::vector<DecodedEntry> after = Entries(store, parent);
  EXPECT_EQ(std::vector(after.begin(), after.begin() + 200), whole);
  EXPECT_EQ(Entries(store, child).size(), 160u);
  parent.Reset();
  EXPECT_EQ(store.ledger().bytes, (2 + 1 + 1) * kPage);
  store.CheckIntegrity();
  child.Reset();
  aligned.Reset();
  EXPECT_EQ(store.ledger().bytes_reserved, 0u);
}

TEST_F(StoreTest, ACutOfALiveParentThatNeverPacksNeedsNoRoomBesideIt) {
  Store store(256 << 10, kernels_, nullptr);  // 96 pages
  LaneSetHandle parent = Create(store, {.tokens = 64 * 60});
  AppendRows(store, parent, 64 * 40);
  const Demand own = ForkDemand(kSmall, 64 * 40, 64, {.tokens = 64 * 41});
  const uint64_t reserved = store.ledger().bytes_reserved;
  LaneSetHandle child = store.ForkAt(parent, 64 * 40, own);
  ASSERT_TRUE(child);
  EXPECT_EQ(store.ledger().bytes_reserved, reserved + kPage);
  AppendRows(store, parent, 64 * 20);
  AppendRows(store, child, 64);
  store.CheckIntegrity();
  EXPECT_EQ(store.ledger().bytes, 61 * kPage);
}

TEST_F(StoreTest, ACutForgetsWhatWasProtected) {
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle parent = Create(store, {.tokens = 200, .cap = 200, .rows = 200});
  AppendRows(store, parent, 100);
  Plan plan;
  plan.protects = {{.begin = 0, .end = 4}};
  store.Commit(parent, plan);
  LaneSetHandle child =
      store.ForkAt(parent, 70, ForkDemand(kSmall, 70, 10, {.tokens = 80, .cap = 200, .rows = 200}));
  ASSERT_TRUE(child);
  EXPECT_TRUE(parent->IsProtected(0));
  EXPECT_FALSE(child->IsProtected(0));
}

TEST_F(StoreTest, AForkNeedsTheOpenPageAndItsNewRows) {
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle parent = Create(store, {.tokens = 400});
  AppendRows(store, parent, 130);
  const auto pages = [&](uint64_t rows) {
    const Demand demand =
        ForkDemand(parent->shape(), parent->next_position(), rows, {.tokens = 130 + rows});
    return demand.bytes() / kPage;
  };
  EXPECT_EQ(pages(0), 0u);
  EXPECT_EQ(pages(1), 1u);
  EXPECT_EQ(pages(62), 1u);
  EXPECT_EQ(pages(63), 2u);
  // Under a cap never more than a sequence without a parent.
  const Growth growth = {.tokens = 100'000, .cap = 2048, .rows = 128};
  EXPECT_EQ(ForkDemand(parent->shape(), parent->next_position(), 50'000, growth).planes(),
            MaxDemand(kSmall, growth).planes());
  EXPECT_LT(ForkDemand(parent->shape(), parent->next_position(), 100, growth).bytes(),
            MaxDemand(kSmall, growth).bytes() / 2);
}

TEST_F(StoreTest, HandlesGiveBackWhatTheyHoldWhenMovedOver) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle a = Create(store, {.tokens = 64});
  LaneSetHandle b = Create(store, {.tokens = 128});
  AppendRows(store, b, 128);
  a = std::move(b);
  EXPECT_FALSE(b);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(a->next_position(), 128u);
  EXPECT_EQ(store.ledger().bytes_reserved, 2 * kPage);
  LaneSetHandle c = std::move(a);
  EXPECT_FALSE(a);  // NOLINT(bugprone-use-after-move)
  c.Reset();
  EXPECT_EQ(store.ledger().bytes_reserved, 0u);
}

TEST_F(StoreDeathTest, PlansThatNameWhatIsNotThereAreBugs) {
  Store store(kMiB, kernels_, nullptr);
  const LaneShape shape = {.first_layer = 1, .n_layers = 1, .n_kv_heads = 2, .head_dim = 8};
  LaneSetHandle set = Create(store, {.tokens = 100, .cap = 100, .rows = 100}, shape);
  AppendRows(store, set, 10);
  EXPECT_DEATH(store.Commit(set, Drop(0, 0, {1})), "HasLayer");
  EXPECT_DEATH(store.Commit(set, Drop(2, 0, {1})), "HasLayer");
  EXPECT_DEATH(store.Commit(set, Drop(1, 2, {1})), "head 2");
  EXPECT_DEATH(store.Commit(set, Drop(1, -2, {1})), "head -2");
  EXPECT_DEATH(store.Commit(set, Drop(1, 0, {2, 1})), "ascend");
  EXPECT_DEATH(store.Commit(set, Drop(1, 0, {2, 2})), "ascend");
  EXPECT_DEATH(store.Commit(set, Drop(1, 0, {10})), "index 10 of 10");
  Plan twice = Drop(1, 0, {1});
  twice.drops.push_back({.layer = 1, .head = kAllHeads, .indices = {2}});
  EXPECT_DEATH(store.Commit(set, twice), "named twice");
  store.Commit(set, Drop(1, 0, {3}));
  store.Commit(set, Drop(1, 1, {4}));
  EXPECT_DEATH(store.Commit(set, Drop(1, kAllHeads, {0})), "differ");
  store.Commit(set, Drop(1, 0, {3}));
  store.Commit(set, Drop(1, 1, {3}));
  store.Commit(set, Drop(1, kAllHeads, {0}));  // equal again
  EXPECT_EQ(set->n_entries(), 2u * 7);
}

TEST_F(StoreDeathTest, ProtectedEntriesAreNeverDropped) {
  Store store(kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 100, .cap = 100, .rows = 100});
  AppendRows(store, set, 20);
  Plan plan;
  plan.protects = {{.begin = 4, .end = 6}, {.begin = 19, .end = 30}};
  store.Commit(set, plan);
  store.Commit(set, Drop(0, 0, {3, 6, 18}));
  EXPECT_DEATH(store.Commit(set, Drop(0, 0, {3})), "position 4 is protected");
  EXPECT_DEATH(store.Commit(set, Drop(0, 0, {16})), "position 19 is protected");
  AppendRows(store, set, 1);
  EXPECT_DEATH(store.Commit(set, Drop(0, 0, {17})), "position 20 is protected");
  Plan both = Drop(0, 0, {0});
  both.protects = {{.begin = 0, .end = 1}};
  EXPECT_DEATH(store.Commit(set, both), "position 0 is protected");
}

TEST_F(StoreDeathTest, WhoGaveItsPagesAwayNeitherDropsNorIsForkedWhole) {
  Store store(4 * kMiB, kernels_, nullptr);
  LaneSetHandle set = Create(store, {.tokens = 200});
  AppendRows(store, set, 100);
  const Demand own = ForkDemand(kSmall, 80, 10, {.tokens = 90});
  ASSERT_TRUE(store.ForkAt(set, 80, own));
  EXPECT_DEATH(store.Commit(set, Drop(0, 0, {1})), "gave its pages away");
  EXPECT_DEATH(store.Fork(set, own), "no room for copies");
  store.Freeze(set);
  EXPECT_TRUE(store.Fork(set, own));
}

TEST_F(StoreDeathTest, FrozenSetsAndOpenCursorsRefuseChanges) {
  Store store(kMiB, kernels_, nullptr);
  const LaneShape shape = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 8};
  LaneSetHandle set = Create(store, {.tokens = 64}, shape);
  AppendCursor cursor = store.Append(set, 1);
  RandomRows rows(shape, 1, rng_);
  cursor.Append(1, rows.k(), rows.v());
  EXPECT_DEATH(cursor.Append(1, rows.k(), rows.v()), "appended already");
  EXPECT_DEATH(cursor.Finish(), "done");
  EXPECT_DEATH(store.Append(set, 1), "cursor is open");
  EXPECT_DEATH(store.Commit(set, {}), "cursor is open");
  cursor.Append(0, rows.k(), rows.v());
  cursor.Finish();
  EXPECT_DEATH(AppendRows(store, set, 64), "were granted");
  store.Freeze(set);
  EXPECT_DEATH(store.Append(set, 1), "frozen");
  EXPECT_DEATH(store.Commit(set, {}), "frozen");
}

}  // namespace
}  // namespace kvasir
