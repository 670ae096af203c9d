// Pages change their form as a function of position, whatever the passes were.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/sparse_plane.h"
#include "kv/store.h"
#include "kv/testing.h"

namespace kvasir {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct SealCase {
  PlaneLife k, v;
  uint32_t head_dim;
  uint32_t recent;
};

LaneShape ShapeFor(const SealCase& c, uint32_t n_layers = 1, uint32_t n_kv_heads = 2) {
  LaneShape shape = {.n_layers = n_layers, .n_kv_heads = n_kv_heads, .head_dim = c.head_dim};
  shape.layers.assign(n_layers, {.k = c.k, .v = c.v});
  shape.seals.recent = c.recent;
  return shape;
}

constexpr PlaneForm Sparse(uint16_t keep) { return {Codec::kSparseBF16, keep}; }
const SealCase kBoth = {{Codec::kBF16, Sparse(20)}, {Codec::kBF16, Sparse(20)}, 64, 32};

// Rows of one sequence: layer and position decide them.
class SequenceRows {
 public:
  SequenceRows(const LaneShape& shape, uint32_t n_tokens) {
    std::mt19937 rng(7);
    for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
      layers_.emplace_back(shape, n_tokens, rng);
    }
  }
  RandomRows& layer(uint32_t i) { return layers_[i]; }

 private:
  std::vector<RandomRows> layers_;
};

// The next `n` rows of each layer.
void AppendNext(Store& store, LaneSetHandle& set, SequenceRows& rows, uint32_t n) {
  AppendCursor cursor = store.Append(set, n);
  const uint32_t first = cursor.first_position();
  for (uint32_t layer = 0; layer < set->shape().n_layers; ++layer) {
    while (const uint32_t block = cursor.BlockRows(layer)) {
      const uint32_t at = first + cursor.n_appended(layer);
      cursor.Append(layer, rows.layer(layer).k().Slice(at, block),
                    rows.layer(layer).v().Slice(at, block));
    }
  }
  cursor.Finish();
}

// Forms and bytes of all pages, of rows that are filled.
std::vector<std::vector<uint8_t>> PageBytes(const Store& store, const LaneSet& set) {
  std::vector<std::vector<uint8_t>> pages;
  const LaneShape& shape = set.shape();
  for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
    for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
      const LaneView view = store.View(set, layer, head);
      for (uint32_t i = 0; i < view.n_pages; ++i) {
        const PageView& page = view.pages[i];
        if (page.filled < kPageEntries) continue;  // what lies behind its rows may differ
        pages.emplace_back(page.k, page.k + PlaneBytes(page.k_form, view.head_dim));
        pages.emplace_back(page.v, page.v + PlaneBytes(page.v_form, view.head_dim));
      }
    }
  }
  return pages;
}

// What CheckPlane says of planes from outside.
void CheckSparsePlanes(const LaneView& view) {
  for (uint32_t i = 0; i < view.n_pages; ++i) {
    const PageView& page = view.pages[i];
    for (const bool keys : {true, false}) {
      const PlaneForm form = keys ? page.k_form : page.v_form;
      if (!IsSparse(form.codec)) continue;
      const std::span plane(keys ? page.k : page.v, PlaneBytes(form, view.head_dim));
      EXPECT_EQ(CheckPlane(form, view.head_dim, keys, plane), nullptr);
    }
  }
}

class Seals : public testing::Test {
 protected:
  LaneSetHandle Create(Store& store, const LaneShape& shape, const Growth& growth) {
    LaneSetHandle set = store.Create(shape, LaneRole::kMain, MaxDemand(shape, growth));
    EXPECT_TRUE(bool(set));
    return set;
  }
  std::vector<DecodedEntry> Entries(const Store& store, const LaneSetHandle& set, uint32_t head) {
    return Decode(kernels_, store.View(*set, 0, head));
  }
  const Kernels& kernels_ = BestKernels();
};

TEST_F(Seals, APageIsSealedWhenTheWindowHasLeftIt) {
  Store store(64 * kMiB, kernels_, nullptr);
  for (const uint32_t recent : {32u, 64u, 160u}) {
    SealCase c = kBoth;
    c.recent = recent;
    const LaneShape shape = ShapeFor(c);
    SequenceRows rows(shape, 600);
    LaneSetHandle set = Create(store, shape, {.tokens = 600});
    for (uint32_t n = 1; n <= 600; ++n) {
      AppendNext(store, set, rows, 1);
      const LaneView view = store.View(*set, 0, 1);
      uint32_t open_entries = 0;
      for (uint32_t i = 0; i < view.n_pages; ++i) {
        const PageView& page = view.pages[i];
        const bool sealed = n >= 64 * (i + 1) + recent;
        EXPECT_EQ(page.base, 64 * i);
        EXPECT_EQ(IsSparse(page.k_form.codec), sealed) << n << " tokens, page " << i;
        EXPECT_EQ(IsSparse(page.v_form.codec), sealed);
        if (!sealed) open_entries += page.filled;
      }
      EXPECT_EQ(open_entries, n < recent + 64 ? n : recent + (n - recent) % 64);
      if (n % 97 == 0) store.CheckIntegrity();
    }
  }
}

TEST_F(Seals, BytesDoNotDependOnThePasses) {
  const SealCase cases[] = {
      kBoth,
      {{Codec::kF16, Codec::kQ8}, {Codec::kF16, Codec::kQ4}, 40, 32},
      {{Codec::kBF16, PlaneForm(Codec::kSparseI8, 20)}, {Codec::kF16, Codec::kF16}, 36, 64},
      {{Codec::kF32, Codec::kF32}, {Codec::kF16, PlaneForm(Codec::kSparseF16, 9)}, 18, 96}};
  for (const SealCase& c : cases) {
    const LaneShape shape = ShapeFor(c, 2);
    SequenceRows rows(shape, 500);
    std::vector<std::vector<uint8_t>> expected;
    for (const uint32_t block : {500u, 1u, 63u, 64u, 200u}) {
      Workers workers(2);
      Store store(64 * kMiB, kernels_, block == 63 ? &workers : nullptr);
      LaneSetHandle set = Create(store, shape, {.tokens = 500});
      while (set->next_position() < 500) {
        AppendNext(store, set, rows, std::min(block, 500 - set->next_position()));
      }
      store.CheckIntegrity();
      CheckSparsePlanes(store.View(*set, 1, 1));
      const auto bytes = PageBytes(store, *set);
      if (expected.empty()) {
        expected = bytes;
        EXPECT_EQ(expected.size(), 7u * 2 * 2 * 2);
      }
      EXPECT_TRUE(bytes == expected) << "blocks of " << block;
    }
  }
}

TEST_F(Seals, ARowSeesAPageOpenUntilTheTokenThatSealsItHasAttended) {
  const LaneShape shape = ShapeFor(kBoth);
  Store store(64 * kMiB, kernels_, nullptr);
  SequenceRows rows(shape, 300);
  LaneSetHandle set = Create(store, shape, {.tokens = 300});
  AppendCursor cursor = store.Append(set, 300);
  std::vector<uint32_t> ends;
  while (const uint32_t n = cursor.BlockRows(0)) {
    const uint32_t at = cursor.n_appended(0);
    cursor.Append(0, rows.layer(0).k().Slice(at, n), rows.layer(0).v().Slice(at, n));
    ends.push_back(at + n);
    const LaneView view = cursor.View(0, 0);
    for (uint32_t i = 0; i < view.n_pages; ++i) {
      // The first row of the block is the one that may read it sealed.
      EXPECT_EQ(IsSparse(view.pages[i].k_form.codec), at >= 64 * (i + 1) + 32);
    }
  }
  cursor.Finish();
  EXPECT_THAT(ends, testing::ElementsAre(96, 160, 224, 288, 300));
}

TEST_F(Seals, ThePoolHoldsExactlyThePlanesOfBothForms) {
  for (const uint32_t dim : {64u, 96u, 128u}) {
    for (const PlaneForm form : {Sparse(KeptChannels(dim, 500)), Sparse(KeptChannels(dim, 700)),
                                 PlaneForm(Codec::kSparseI8, KeptChannels(dim, 700))}) {
      const SealCase c = {{Codec::kBF16, form}, {Codec::kBF16, form}, dim, 32};
      const LaneShape shape = ShapeFor(c, 1, 1);
      Store store(64 * kMiB, kernels_, nullptr);
      SequenceRows rows(shape, 1000);
      LaneSetHandle set = Create(store, shape, {.tokens = 1000});
      AppendNext(store, set, rows, 1000);
      const uint64_t value = form.codec == Codec::kSparseI8 ? 1 : 2;
      const uint64_t scales = form.codec == Codec::kSparseI8 ? 128 : 0;
      const uint64_t sealed = 64 * (form.keep * value + 8 * ((dim + 63) / 64)) + scales;
      // Tokens 0 to 959 of 1000 have left a window of 32.
      const Ledger ledger = store.ledger();
      EXPECT_EQ(ledger.bytes_by_use[static_cast<size_t>(UseOf(form.codec))], 2 * 15 * sealed);
      EXPECT_EQ(ledger.bytes_by_use[static_cast<size_t>(PlaneUse::kBF16)], 2 * 128 * dim);
      EXPECT_EQ(ledger.bytes, 2 * 15 * sealed + 2 * 128 * dim);
      // Two open pages at any moment, in a prompt read at once too.
      EXPECT_LE(ledger.bytes_peak, 2 * 15 * sealed + 2 * 2 * 128 * dim);
    }
  }
}

TEST_F(Seals, OneBudgetAdmitsMoreTokens) {
  const auto sequences = [&](const LaneShape& shape) {
    Store store(2048 * kMiB, kernels_, nullptr);
    std::vector<LaneSetHandle> sets;
    while (LaneSetHandle set =
               store.Create(shape, LaneRole::kMain, MaxDemand(shape, {.tokens = 8192}))) {
      sets.push_back(std::move(set));
    }
    return static_cast<double>(sets.size());
  };
  const uint32_t layers = 4;
  const double dense = sequences({.n_layers = layers, .n_kv_heads = 2, .head_dim = 64});
  const auto sparse = [&](uint32_t thousandths) {
    const PlaneForm form = Sparse(KeptChannels(64, thousandths));
    return sequences(ShapeFor({{Codec::kBF16, form}, {Codec::kBF16, form}, 64, 32}, layers, 2));
  };
  EXPECT_GE(sparse(500) / dense, 1.7);
  EXPECT_GE(sparse(700) / dense, 2.5);
}

TEST_F(Seals, RowsThatWereDroppedBeforeLeaveNothingInTheirPage) {
  const LaneShape shape = ShapeFor(kBoth, 1, 1);
  Store store(64 * kMiB, kernels_, nullptr);
  SequenceRows rows(shape, 200);
  LaneSetHandle set = Create(store, shape, {.tokens = 200, .cap = 190, .rows = 200});
  AppendNext(store, set, rows, 80);
  store.Commit(set, Drop(0, 0, {3, 17, 63}));
  AppendNext(store, set, rows, 120);
  const LaneView view = store.View(*set, 0, 0);
  ASSERT_TRUE(IsSparse(view.pages[0].k_form.codec));
  EXPECT_EQ(view.pages[0].live, ~(uint64_t{1} << 3 | uint64_t{1} << 17 | uint64_t{1} << 63));
  std::vector<float> k(64 * 64), v(64 * 64);
  kernels_.planes.expand_k[view.pages[0].k_form.index()](view.pages[0].k,
                                                         view.pages[0].k_form.Shape(64), k.data());
  kernels_.planes.expand_v[view.pages[0].v_form.index()](view.pages[0].v,
                                                         view.pages[0].v_form.Shape(64), v.data());
  for (const uint32_t dead : {3u, 17u, 63u}) {
    for (uint32_t c = 0; c < 64; ++c) {
      EXPECT_EQ(k[c * 64 + dead], 0.0f);
      EXPECT_EQ(v[dead * 64 + c], 0.0f);
    }
  }
  store.CheckIntegrity();
}

// MUSTAFAR, section 1 of arXiv 2505.22913: of every row that is older than the window the elements
// of largest magnitude stay, the others are zero.
std::vector<float> Pruned(const std::vector<float>& row, uint32_t keep) {
  std::vector<size_t> order(row.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return std::abs(row[a]) > std::abs(row[b]); });
  std::vector<float> pruned(row.size(), 0.0f);
  for (uint32_t i = 0; i < keep; ++i) pruned[order[i]] = row[order[i]];
  return pruned;
}

// The counts that the authors' code keeps of 128 elements.
TEST_F(Seals, ExactModePrunesEveryRowAtTheStepThatItLeavesTheWindow) {
  for (const uint16_t keep : {uint16_t{65}, uint16_t{40}}) {
    LaneShape shape =
        ShapeFor({{Codec::kBF16, Sparse(keep)}, {Codec::kBF16, Sparse(keep)}, 128, 32});
    shape.seals.at_prompt_end = shape.seals.by_row = true;
    constexpr uint32_t kPrompt = 150, kAll = 260;
    Store store(64 * kMiB, kernels_, nullptr);
    SequenceRows rows(shape, kAll);
    LaneSetHandle set = Create(store, shape, {.tokens = kAll, .prompt = kPrompt});
    std::vector<DecodedEntry> whole[2], pruned[2];
    for (uint32_t head = 0; head < 2; ++head) {
      for (uint32_t p = 0; p < kAll; ++p) {
        const DecodedEntry& entry =
            whole[head].emplace_back(rows.layer(0).Entry(kernels_, p, head, p));
        pruned[head].push_back({p, Pruned(entry.k, keep), Pruned(entry.v, keep)});
      }
    }
    const auto check = [&](uint32_t pruned_end) {
      for (uint32_t head = 0; head < 2; ++head) {
        const std::vector<DecodedEntry> entries = Entries(store, set, head);
        ASSERT_EQ(entries.size(), set->next_position());
        for (uint32_t p = 0; p < entries.size(); ++p) {
          const DecodedEntry& expected = p < pruned_end ? pruned[head][p] : whole[head][p];
          ASSERT_TRUE(entries[p] == expected) << "position " << p << " of " << entries.size();
        }
      }
    };
    AppendNext(store, set, rows, 100);
    AppendNext(store, set, rows, kPrompt - 100);
    check(0);
    store.StartSealing(set);
    check(kPrompt - 32);
    store.CheckIntegrity();
    // Decode, and several given tokens in one pass.
    while (set->next_position() < kAll) {
      AppendNext(store, set, rows, set->next_position() % 50 == 0 ? 3 : 1);
      check(set->next_position() - 32);
    }
    store.CheckIntegrity();
    const Lane& lane = set->lane(0, 0);
    EXPECT_EQ(std::count_if(lane.tail.begin(), lane.tail.end(),
                            [](const PageRef& page) { return page.sealed; }),
              (kAll - 32) / 64);
  }
}

TEST_F(Seals, AtAPromptsEndAllPagesBehindTheWindowAreSealedAndTheirRoomGoesBack) {
  LaneShape shape = ShapeFor(kBoth, 4);
  shape.seals.at_prompt_end = true;
  Store store(4 * kMiB, kernels_, nullptr);
  SequenceRows rows(shape, 700);
  const Growth growth = {.tokens = 700, .prompt = 600};
  LaneSetHandle set = Create(store, shape, growth);
  AppendNext(store, set, rows, 600);
  EXPECT_EQ(set->sealed_end(), 0u);
  EXPECT_EQ(store.ledger().bytes_by_use[static_cast<size_t>(PlaneUse::kSparseBF16)], 0u);
  const uint64_t committed = store.ledger().bytes_committed, dense = store.ledger().bytes;
  store.StartSealing(set);
  // One of four layers was there in both forms.
  const auto sparse = static_cast<size_t>(PlaneUse::kSparseBF16);
  EXPECT_EQ(store.ledger().bytes_peak, dense + store.ledger().bytes_by_use[sparse] / 4);
  // Slabs of dense planes go back to the system.
  EXPECT_LT(store.ledger().bytes_committed, committed * 7 / 10);
  store.Shrink(set, MaxDemand(shape, {.tokens = 700}));
  EXPECT_EQ(set->sealed_end(), 512u);
  EXPECT_EQ(store.ledger().bytes_reserved, MaxDemand(shape, {.tokens = 700}).bytes());
  store.CheckIntegrity();
  AppendNext(store, set, rows, 100);
  store.CheckIntegrity();
  // The same entries as of a set that seals all the while.
  LaneShape stream = ShapeFor(kBoth, 4);
  LaneSetHandle other = Create(store, stream, {.tokens = 700});
  AppendNext(store, other, rows, 700);
  EXPECT_TRUE(PageBytes(store, *set) == PageBytes(store, *other));
}

TEST_F(Seals, DroppedFromAtAPromptsEndTheyArePackedAfterwards) {
  LaneShape shape = ShapeFor(kBoth, 1, 1);
  shape.seals.at_prompt_end = true;
  Store store(64 * kMiB, kernels_, nullptr);
  SequenceRows rows(shape, 700);
  LaneSetHandle set = Create(store, shape, {.tokens = 700, .cap = 110, .rows = 600, .prompt = 600});
  AppendNext(store, set, rows, 600);
  std::vector<uint32_t> drops;
  for (uint32_t i = 0; i < 560; ++i) {
    if (i % 9 != 0) drops.push_back(i);
  }
  store.Commit(set, Drop(0, 0, drops));
  const std::vector<DecodedEntry> before = Entries(store, set, 0);
  store.StartSealing(set);
  store.CheckIntegrity();
  const std::vector<DecodedEntry> after = Entries(store, set, 0);
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    const bool sealed = before[i].position < 512;
    EXPECT_EQ(after[i].position, before[i].position);
    EXPECT_EQ(after[i].k, sealed ? Pruned(before[i].k, 20) : before[i].k);
    EXPECT_EQ(after[i].v, sealed ? Pruned(before[i].v, 20) : before[i].v);
  }
  // 57 entries below 512 where nine pages were.
  EXPECT_LE(set->lane(0, 0).body.size(), 2u);
}

// Keys by |k| times the sum of |q| over 32 queries and the heads that read them; values by
// magnitude.
TEST_F(Seals, KeysMayBeChosenByTheQueriesThatSeeThem) {
  LaneShape shape = ShapeFor(kBoth);
  shape.layers[0].k.by_query = shape.seals.by_query = true;
  constexpr uint32_t kGroup = 3, kAll = 300;
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  std::vector<float> q(size_t{kAll} * 2 * kGroup * 64);
  for (size_t i = 0; i < q.size(); ++i) q[i] = normal(rng) * static_cast<float>(1 + i % 7);
  const Rows queries{q.data(), kAll, 2 * kGroup * 64, 2 * kGroup * 64};
  SequenceRows rows(shape, kAll);
  std::vector<std::vector<uint8_t>> expected_bytes;
  for (const uint32_t block : {1u, 50u, 300u}) {
    Store store(64 * kMiB, kernels_, nullptr);
    LaneSetHandle set = Create(store, shape, {.tokens = kAll});
    while (set->next_position() < kAll) {
      AppendCursor cursor = store.Append(set, std::min(block, kAll - set->next_position()));
      const uint32_t first = cursor.first_position();
      while (const uint32_t n = cursor.BlockRows(0)) {
        const uint32_t at = first + cursor.n_appended(0);
        cursor.Append(0, rows.layer(0).k().Slice(at, n), rows.layer(0).v().Slice(at, n),
                      queries.Slice(at, n));
      }
      cursor.Finish();
    }
    EXPECT_FALSE(set->CanCutAt(299));
    EXPECT_TRUE(set->CanCutAt(300));
    for (uint32_t head = 0; head < 2; ++head) {
      const std::vector<DecodedEntry> entries = Entries(store, set, head);
      for (uint32_t p = 0; p < 256; ++p) {
        // Sealed when 64 (p / 64 + 1) + 32 tokens were seen.
        const uint32_t seen = 64 * (p / 64 + 1) + 32;
        const DecodedEntry whole = rows.layer(0).Entry(kernels_, p, head, p);
        std::vector<float> weighted(64);
        for (uint32_t c = 0; c < 64; ++c) {
          float w = 0;
          for (uint32_t i = seen - 32; i < seen; ++i) {
            for (uint32_t g = 0; g < kGroup; ++g) {
              w += std::abs(queries.row(i)[(head * kGroup + g) * 64 + c]);
            }
          }
          weighted[c] = std::abs(whole.k[c]) * w;
        }
        const std::vector<float> kept = Pruned(weighted, 20);
        for (uint32_t c = 0; c < 64; ++c) {
          ASSERT_EQ(entries[p].k[c], kept[c] != 0 ? whole.k[c] : 0) << p << " " << c;
        }
        ASSERT_EQ(entries[p].v, Pruned(whole.v, 20));
      }
    }
    const auto bytes = PageBytes(store, *set);
    if (expected_bytes.empty()) expected_bytes = bytes;
    EXPECT_TRUE(bytes == expected_bytes);
  }
}

// Rows of which some hold NaN and infinity, and are dropped before or after they are sealed.
class Poisoned {
 public:
  Poisoned(const LaneShape& shape, uint32_t n, std::mt19937& rng) : rows_(shape, n, rng), bad_(n) {
    for (uint32_t i = 0; i < n; ++i) {
      bad_[i] = rng() % 3 == 0;
      if (!bad_[i]) continue;
      for (uint32_t c = i % 5; c < rows_.k().dim; c += 3) {
        rows_.k().row(i)[c] = c % 2 == 0 ? NAN : INFINITY;
        rows_.v().row(i)[c] = NAN;
      }
    }
  }
  RandomRows& rows() { return rows_; }
  bool bad(uint32_t i) const { return bad_[i]; }

 private:
  RandomRows rows_;
  std::vector<bool> bad_;
};

// softmax(q K^T) V over the entries, in double.
std::vector<double> Oracle(const std::vector<DecodedEntry>& entries, const float* q, uint32_t dim) {
  std::vector<double> scores, out(dim);
  double most = -INFINITY, sum = 0;
  for (const DecodedEntry& entry : entries) {
    double score = 0;
    for (uint32_t c = 0; c < dim; ++c) score += double{q[c]} * entry.k[c];
    scores.push_back(score);
    most = std::max(most, score);
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const double p = std::exp(scores[i] - most);
    sum += p;
    for (uint32_t c = 0; c < dim; ++c) out[c] += p * entries[i].v[c];
  }
  for (double& x : out) x /= sum;
  return out;
}

TEST_F(Seals, WhatIsDeadNeverLeaksIntoAttention) {
  const SealCase cases[] = {
      kBoth,
      {{Codec::kBF16, PlaneForm(Codec::kSparseI8, 20)}, {Codec::kBF16, Sparse(40)}, 64, 32},
      {{Codec::kF16, PlaneForm(Codec::kSparseF16, 24)}, {Codec::kF16, Codec::kF16}, 80, 64}};
  Workers workers(2);
  uint32_t seed = 1;
  for (const SealCase& c : cases) {
    const LaneShape shape = ShapeFor(c, 1, 1);
    std::mt19937 rng(seed++);
    Store store(64 * kMiB, kernels_, nullptr);
    constexpr uint32_t kAll = 700;
    Poisoned rows(shape, kAll, rng);
    const Growth growth = {.tokens = kAll, .cap = kAll, .rows = kAll};
    LaneSetHandle set = Create(store, shape, growth);
    AttentionScratch scratch(workers.size(), 1, c.head_dim, Compute::kExact);
    std::vector<float> q(c.head_dim), out(c.head_dim + 16);
    std::normal_distribution<float> normal;
    uint32_t sealed_deaths = 0, forks = 0;
    while (set->next_position() < kAll) {
      const uint32_t first = set->next_position();
      const uint32_t n = std::min<uint32_t>(1 + rng() % 90, kAll - first);
      AppendCursor cursor = store.Append(set, n);
      while (const uint32_t block = cursor.BlockRows(0)) {
        const uint32_t at = first + cursor.n_appended(0);
        cursor.Append(0, rows.rows().k().Slice(at, block), rows.rows().v().Slice(at, block));
      }
      cursor.Finish();
      // Most poisoned rows go now, some once they are sealed; the others now and then.
      std::vector<uint32_t> drops;
      const std::vector<DecodedEntry> held = Entries(store, set, 0);
      const bool late = rng() % 3 == 0;
      for (uint32_t i = 0; i < held.size(); ++i) {
        const bool bad = rows.bad(held[i].position);
        const bool sealed = held[i].position < set->sealed_end();
        if (bad ? (!late || sealed) : rng() % 9 == 0) {
          drops.push_back(i);
          sealed_deaths += bad && sealed;
        }
      }
      store.Commit(set, Drop(0, 0, drops));
      if (rng() % 4 == 0) {  // goes on as a fork of itself
        LaneSetHandle fork = store.Fork(
            set, ForkDemand(shape, set->next_position(), kAll - set->next_position(), growth));
        if (fork) {
          set = std::move(fork);
          ++forks;
        }
      }
      store.CheckIntegrity();
      std::vector<DecodedEntry> entries = Entries(store, set, 0);
      if (std::any_of(entries.begin(), entries.end(),
                      [&](const DecodedEntry& e) { return rows.bad(e.position); }) ||
          entries.empty()) {
        continue;
      }
      for (float& x : q) x = normal(rng);
      const AttentionJob job = {.lane = store.View(*set, 0, 0),
                                .q = q.data(),
                                .out = out.data(),
                                .row_stride = c.head_dim,
                                .rows = 1,
                                .first_position = set->next_position()};
      Attention(kernels_, workers, {&job, 1}, scratch);
      const std::vector<double> expected = Oracle(entries, q.data(), c.head_dim);
      for (uint32_t i = 0; i < c.head_dim; ++i) ASSERT_NEAR(out[i], expected[i], 2e-5);
    }
    EXPECT_GT(sealed_deaths, 0u);
    EXPECT_GT(forks, 0u);
  }
}

TEST_F(Seals, AForkAndACutHaveTheBytesOfASetOfTheirOwn) {
  const LaneShape shape = ShapeFor(kBoth, 2);
  SequenceRows rows(shape, 600);
  const auto alone = [&](Store& store, uint32_t n) {
    LaneSetHandle set = Create(store, shape, {.tokens = 600});
    AppendNext(store, set, rows, n);
    return PageBytes(store, *set);
  };
  Store store(64 * kMiB, kernels_, nullptr);
  const auto expected = alone(store, 500);
  for (const bool frozen : {false, true}) {
    for (const bool whole : {false, true}) {
      // 300 tokens, 256 of them sealed: the cut leaves 290.
      LaneSetHandle parent = Create(store, shape, {.tokens = 600});
      AppendNext(store, parent, rows, 300);
      if (frozen) store.Freeze(parent);
      const uint32_t at = whole ? 300 : 290;
      const Demand own = ForkDemand(shape, at, 500 - at, {});
      LaneSetHandle child = whole ? store.Fork(parent, own) : store.ForkAt(parent, at, own);
      ASSERT_TRUE(bool(child));
      store.CheckIntegrity();
      EXPECT_FALSE(parent->CanCutAt(287));  // it would have an open page that is sealed here
      EXPECT_TRUE(parent->CanCutAt(288));
      AppendNext(store, child, rows, 500 - at);
      store.CheckIntegrity();
      EXPECT_TRUE(PageBytes(store, *child) == expected) << frozen << whole;
      if (!frozen) {
        AppendNext(store, parent, rows, 200);
        EXPECT_TRUE(PageBytes(store, *parent) == expected) << whole;
      }
      store.CheckIntegrity();
      parent.Reset();
      store.CheckIntegrity();
      EXPECT_TRUE(PageBytes(store, *child) == expected);
    }
  }
}

TEST(ResolveEncoding, SpeaksOfLayersAndPlanesApart) {
  Encoding encoding = {.k = Codec::kF16, .v = Codec::kQ8};
  encoding.rules = {{.values = false,
                     .first_layer = 1,
                     .last_layer = 2,
                     .codec = Codec::kSparseBF16,
                     .recent = 32,
                     .open = Codec::kBF16,
                     .thousandths = 700},
                    {.keys = false, .first_layer = 2, .codec = Codec::kQ4}};
  encoding.seals.recent = 32;
  const auto window = [](uint32_t layer) { return layer == 1 ? 512u : 0u; };
  const LayerEncodings resolved = ResolveEncoding(encoding, 4, 64, window);
  const PlaneLife f16 = {Codec::kF16, Codec::kF16}, q8 = {Codec::kQ8, Codec::kQ8};
  const PlaneLife q4 = {Codec::kQ4, Codec::kQ4}, sparse = {Codec::kBF16, Sparse(20)};
  const std::vector<LayerForms> expected = {
      {f16, q8}, {f16, q8} /* a short window */, {sparse, q4}, {f16, q4}};
  EXPECT_EQ(resolved.layers, expected);
  EXPECT_EQ(resolved.seals.recent, 32u);
  // Nothing is left to seal.
  const LayerEncodings none = ResolveEncoding(encoding, 4, 64, [](uint32_t) { return 1024u; });
  EXPECT_EQ(none.seals.recent, 0u);
}

TEST(ResolveEncoding, RefusesWhatTheModelDoesNotHave) {
  const auto refusal = [](EncodingRule rule) {
    rule.codec = Codec::kSparseBF16;
    rule.recent = 32;
    try {
      ResolveEncoding({.rules = {rule}, .seals = {.recent = 32}}, 24, 64,
                      [](uint32_t) { return 0u; });
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kUsage);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal({.keep = 65}), testing::HasSubstr("keep=65 is more than the 64 elements"));
  EXPECT_THAT(refusal({.first_layer = 3, .last_layer = 24, .thousandths = 500}),
              testing::HasSubstr("layers=3-24: the model has layers 0-23"));
  EXPECT_EQ(refusal({.keep = 64}), "accepted");
}

}  // namespace
}  // namespace kvasir
