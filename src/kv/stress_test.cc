// Random operations on a store and on the simplest thing that could be right: vectors of entries.
// Every lane set has exactly the demand that MaxDemand or ForkDemand names, and grows and drops
// within what it declared.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <random>

#include "kv/store.h"
#include "kv/testing.h"

namespace kvasir {
namespace {

struct StressCase {
  PlaneForm k_form, v_form;
  uint32_t head_dim;
  int steps;
  uint64_t budget_bytes;
  // Forms of sealed pages, and the window that they leave; 0: nothing is sealed.
  PlaneForm k_sealed = {}, v_sealed = {};
  uint32_t recent = 0;
};

std::ostream& operator<<(std::ostream& out, const StressCase& c) {
  return out << "k codec " << int(c.k_form.codec) << ", v codec " << int(c.v_form.codec) << ", dim "
             << c.head_dim << ", recent " << c.recent;
}

// Entries are immutable: forks share them.
struct OracleEntry {
  uint32_t position = 0;
  DecodedEntry open, sealed;
};
using OracleLane = std::vector<std::shared_ptr<const OracleEntry>>;

struct OracleSet {
  LaneSetHandle handle;
  std::vector<OracleLane> lanes;
  Growth growth;
  Demand granted;
  std::vector<std::pair<uint32_t, uint32_t>> protects;
  uint32_t position = 0;
  uint64_t may_append = 0;  // within the demand
  uint64_t dropped = 0;
  bool frozen = false;
  bool lent = false;

  bool IsProtected(uint32_t p) const {
    return std::any_of(protects.begin(), protects.end(),
                       [p](const auto& run) { return run.first <= p && p < run.second; });
  }
  size_t most_entries() const {
    size_t most = 0;
    for (const OracleLane& lane : lanes) most = std::max(most, lane.size());
    return most;
  }
};

class Stress {
 public:
  Stress(const StressCase& c, uint32_t seed)
      : rng_(seed),
        workers_(2),
        store_(c.budget_bytes, kernels_, seed % 2 == 0 ? &workers_ : nullptr),
        shape_{.first_layer = 3,
               .n_layers = 2,
               .n_kv_heads = 2,
               .head_dim = c.head_dim,
               .k_form = c.k_form,
               .v_form = c.v_form} {
    if (c.recent == 0) return;
    shape_.layers.assign(2, {.k = {c.k_form, c.k_sealed}, .v = {c.v_form, c.v_sealed}});
    shape_.seals.recent = c.recent;
  }

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      Step();
      store_.CheckIntegrity();
      Compare();
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(refused_, 0u) << "the budget was never tight";
    EXPECT_GT(forks_, 0u);
    EXPECT_GT(cuts_, 0u);
    sets_.clear();
    store_.CheckIntegrity();
    EXPECT_EQ(store_.ledger().bytes, 0u);
    EXPECT_EQ(store_.ledger().bytes_reserved, 0u);
    EXPECT_EQ(store_.ledger().bytes_committed, 0u);
    EXPECT_EQ(store_.ledger().entries, 0u);
  }

 private:
  uint32_t Below(uint64_t n) { return static_cast<uint32_t>(rng_() % n); }
  OracleSet& Any() { return *sets_[Below(sets_.size())]; }

  void Step() {
    const uint32_t what = Below(100);
    if (sets_.empty() || what < 8) return Create();
    OracleSet& set = Any();
    if (what < 14) return Fork(set);
    if (what < 20) return ForkAt(set);
    if (what < 24) return Release();
    if (set.frozen) return;
    if (what < 26) return Freeze(set);
    if (what < 30) return Extend(set);
    if (what < 33) return Protect(set);
    if (what < 45) return DropSome(set, Below(3) == 0 ? 80 : 10);
    Append(set);
  }

  Growth RandomGrowth(uint64_t tokens) {
    constexpr uint64_t kCaps[] = {0, 0, 1, 20, 64, 100, 128, 200, 300};
    Growth growth{.tokens = tokens, .cap = kCaps[Below(9)]};
    if (growth.cap > 0) growth.rows = 1 + Below(150);
    return growth;
  }

  void Create() {
    auto set = std::make_unique<OracleSet>();
    set->growth = RandomGrowth(1 + Below(1200));
    set->granted = MaxDemand(shape_, set->growth);
    const bool fits = store_.Fits(set->granted);
    set->handle = store_.Create(shape_, LaneRole::kMain, set->granted);
    ASSERT_EQ(fits, bool(set->handle));
    if (!fits) {
      ++refused_;
      return sets_.size() > 2 ? Release() : void();
    }
    set->may_append = set->growth.tokens;
    set->lanes.resize(shape_.lanes());
    sets_.push_back(std::move(set));
  }

  void Fork(OracleSet& parent) {
    if (parent.lent && !parent.frozen) return;
    auto set = std::make_unique<OracleSet>();
    const uint64_t rows = Below(4) == 0 ? 0 : Below(300);
    set->growth = parent.growth;
    if (Below(3) == 0) set->growth = RandomGrowth(0);
    set->growth.tokens = parent.position + rows;
    set->granted =
        ForkDemand(parent.handle->shape(), parent.handle->next_position(), rows, set->growth);
    set->handle = store_.Fork(parent.handle, set->granted);
    if (!set->handle) {
      ++refused_;
      return;
    }
    ++forks_;
    set->may_append = rows;
    set->lanes = parent.lanes;
    set->protects = parent.protects;
    set->position = parent.position;
    set->dropped = parent.dropped;
    sets_.push_back(std::move(set));
  }

  void ForkAt(OracleSet& parent) {
    if (parent.dropped != 0 || parent.position == 0) {
      // Any other one that was never touched will do.
      const auto whole = std::find_if(sets_.begin(), sets_.end(), [](const auto& other) {
        return other->dropped == 0 && other->position > 0;
      });
      return whole == sets_.end() ? void() : ForkAt(**whole);
    }
    auto set = std::make_unique<OracleSet>();
    // What is sealed of the parent must be of the child.
    const uint32_t end = shape_.seals.End(parent.position);
    const uint32_t least = end == 0 ? 1 : end + shape_.seals.recent;
    const uint32_t position = least + Below(parent.position - least + 1);
    const uint64_t rows = 1 + Below(300);
    EXPECT_TRUE(parent.handle->CanCutAt(position));
    EXPECT_EQ(parent.handle->CanCutAt(least - 1), end == 0);
    set->growth = RandomGrowth(position + rows);
    set->granted = ForkDemand(shape_, position, rows, set->growth);
    set->handle = store_.ForkAt(parent.handle, position, set->granted);
    if (!set->handle) {
      ++refused_;
      return;
    }
    parent.lent |= !parent.frozen && parent.granted.positions() == 0;
    ++cuts_;
    set->may_append = rows;
    set->lanes = parent.lanes;
    for (auto& lane : set->lanes) lane.resize(position);
    set->position = position;
    sets_.push_back(std::move(set));
  }

  void Release() {
    const size_t i = Below(sets_.size());
    sets_.erase(sets_.begin() + i);
  }

  void Freeze(OracleSet& set) {
    store_.Freeze(set.handle);
    set.frozen = true;
    EXPECT_TRUE(set.handle->frozen());
  }

  void Extend(OracleSet& set) {
    Growth growth = set.growth;
    const uint64_t more = 1 + Below(200);
    growth.tokens = set.position + set.may_append + more;
    Demand missing;
    const Demand whole = MaxDemand(shape_, growth);
    for (const auto& [bytes, n] : whole.planes()) {
      const auto has = set.granted.planes().find(bytes);
      const uint64_t granted = has == set.granted.planes().end() ? 0 : has->second;
      if (n > granted) missing.Add(bytes, n - granted);
    }
    if (!store_.Extend(set.handle, missing)) {
      ++refused_;
      return;
    }
    set.granted.Add(missing);
    set.growth = growth;
    set.may_append += more;
  }

  void Protect(OracleSet& set) {
    // Never so many that the cap could not be kept.
    if (set.protects.size() >= 3 || set.position == 0 ||
        (set.growth.cap > 0 && set.growth.cap < 20)) {
      return;
    }
    const uint32_t begin = Below(set.position + 10);
    set.protects.emplace_back(begin, begin + 1 + Below(4));
    Plan plan;
    plan.protects.push_back({set.protects.back().first, set.protects.back().second});
    store_.Commit(set.handle, plan);
  }

  void Append(OracleSet& set) {
    uint64_t most = std::min<uint64_t>(set.may_append, 150);
    if (set.growth.cap > 0) most = std::min(most, set.growth.rows);
    if (most == 0) return;
    const uint32_t n = Below(2) == 0 ? 1 : 1 + Below(most);
    AppendCursor cursor = store_.Append(set.handle, n);
    EXPECT_EQ(cursor.first_position(), set.position);
    for (uint32_t i = 0; i < shape_.n_layers; ++i) {
      const uint32_t nth = (i + n) % shape_.n_layers;  // any order of layers
      RandomRows rows(shape_, n, rng_);
      AppendLayer(cursor, shape_.first_layer + nth, rows);
      for (uint32_t head = 0; head < shape_.n_kv_heads; ++head) {
        OracleLane& lane = set.lanes[nth * shape_.n_kv_heads + head];
        for (uint32_t row = 0; row < n; ++row) {
          const uint32_t position = set.position + row;
          lane.push_back(std::make_shared<const OracleEntry>(
              position, rows.Entry(kernels_, row, head, position),
              rows.SealedEntry(kernels_, row, head, position)));
        }
        EXPECT_EQ(cursor.View(shape_.first_layer + nth, head).n_entries, lane.size());
      }
    }
    cursor.Finish();
    set.position += n;
    set.may_append -= n;
    if (set.growth.cap > 0 && set.most_entries() > set.growth.cap) DropSome(set, 10);
  }

  // Indices of one lane: at least as many as the cap asks for.
  std::vector<uint32_t> Choose(const OracleSet& set, const OracleLane& lane, uint32_t percent) {
    std::vector<uint32_t> indices;
    for (uint32_t i = 0; i < lane.size(); ++i) {
      if (!set.IsProtected(lane[i]->position)) indices.push_back(i);
    }
    if (Below(3) == 0) {  // neighbours
      std::rotate(indices.begin(), indices.begin() + Below(indices.size() + 1), indices.end());
    } else {
      std::shuffle(indices.begin(), indices.end(), rng_);
    }
    size_t n = lane.size() * Below(percent + 1) / 100;
    if (set.growth.cap > 0 && lane.size() > set.growth.cap) {
      n = std::max(n, lane.size() - set.growth.cap);
    }
    indices.resize(std::min(n, indices.size()));
    std::sort(indices.begin(), indices.end());
    return indices;
  }

  bool Lockstep(const OracleSet& set, uint32_t layer) const {
    const OracleLane& first = set.lanes[layer * shape_.n_kv_heads];
    for (uint32_t head = 1; head < shape_.n_kv_heads; ++head) {
      const OracleLane& lane = set.lanes[layer * shape_.n_kv_heads + head];
      if (!std::equal(first.begin(), first.end(), lane.begin(), lane.end(),
                      [](const auto& a, const auto& b) { return a->position == b->position; })) {
        return false;
      }
    }
    return true;
  }

  void Apply(OracleSet& set, uint32_t lane, const std::vector<uint32_t>& indices) {
    OracleLane& entries = set.lanes[lane];
    for (size_t i = indices.size(); i-- > 0;) entries.erase(entries.begin() + indices[i]);
    set.dropped += indices.size();
    dropped_ += indices.size();
  }

  void DropSome(OracleSet& set, uint32_t percent) {
    if (set.lent) return;
    Plan plan;
    for (uint32_t layer = 0; layer < shape_.n_layers; ++layer) {
      const uint32_t first = layer * shape_.n_kv_heads;
      if (Lockstep(set, layer) && Below(4) != 0) {
        plan.drops.push_back({.layer = shape_.first_layer + layer,
                              .head = kAllHeads,
                              .indices = Choose(set, set.lanes[first], percent)});
        continue;
      }
      for (uint32_t head = 0; head < shape_.n_kv_heads; ++head) {
        const OracleLane& lane = set.lanes[first + head];
        if (lane.size() <= set.growth.cap && Below(4) == 0) continue;
        plan.drops.push_back({.layer = shape_.first_layer + layer,
                              .head = static_cast<int32_t>(head),
                              .indices = Choose(set, lane, percent)});
      }
    }
    plan = Plan::FromText(plan.ToText());
    store_.Commit(set.handle, plan);
    for (const DropOp& op : plan.drops) {
      for (uint32_t head = 0; head < shape_.n_kv_heads; ++head) {
        if (op.head != kAllHeads && head != static_cast<uint32_t>(op.head)) continue;
        Apply(set, (op.layer - shape_.first_layer) * shape_.n_kv_heads + head, op.indices);
      }
    }
  }

  void Compare() {
    uint64_t entries = 0;
    for (const auto& set : sets_) {
      EXPECT_EQ(set->handle->next_position(), set->position);
      EXPECT_EQ(set->handle->dropped(), set->dropped);
      EXPECT_EQ(set->handle->max_entries_per_lane(), set->most_entries());
      for (uint32_t lane = 0; lane < set->lanes.size(); ++lane) {
        const OracleLane& expected = set->lanes[lane];
        const LaneView view = store_.View(
            *set->handle, shape_.first_layer + lane / shape_.n_kv_heads, lane % shape_.n_kv_heads);
        ASSERT_EQ(view.n_entries, expected.size());
        size_t i = 0, wrong = 0;
        ForEachEntry(kernels_, view,
                     [&](uint32_t position, const float* k, size_t stride, const float* v) {
                       const OracleEntry& held = *expected[i++];
                       const bool sealed = held.position < shape_.seals.End(set->position);
                       const DecodedEntry& entry = sealed ? held.sealed : held.open;
                       wrong += position != entry.position;
                       for (size_t c = 0; c < shape_.head_dim; ++c) {
                         wrong += k[c * stride] != entry.k[c] || v[c] != entry.v[c];
                       }
                     });
        ASSERT_EQ(i, expected.size()) << "lane " << lane;
        ASSERT_EQ(wrong, 0u) << "lane " << lane;
        entries += i;
      }
    }
    const Ledger ledger = store_.ledger();
    EXPECT_EQ(ledger.entries, entries);
    EXPECT_EQ(ledger.entries_dropped, dropped_);
    EXPECT_LE(ledger.bytes, ledger.bytes_reserved);
    EXPECT_LE(ledger.bytes_reserved_peak, ledger.budget_bytes);
    EXPECT_LE(ledger.bytes_committed, ledger.budget_bytes);
    uint64_t bytes = 0;
    for (const uint64_t b : ledger.bytes_by_use) bytes += b;
    EXPECT_EQ(ledger.bytes, bytes);
  }

  std::mt19937 rng_;
  const Kernels& kernels_ = BestKernels();
  Workers workers_;
  Store store_;
  LaneShape shape_;
  std::vector<std::unique_ptr<OracleSet>> sets_;
  uint64_t dropped_ = 0, refused_ = 0, forks_ = 0, cuts_ = 0;
};

class StoreStress : public testing::TestWithParam<StressCase> {};

// --gtest_random_seed=N runs other seeds.
TEST_P(StoreStress, EqualsVectorsOfEntriesUnderRandomOperations) {
  for (uint32_t i = 0; i < 2; ++i) {
    const uint32_t seed = static_cast<uint32_t>(GTEST_FLAG_GET(random_seed)) * 2 + i;
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", " << GetParam());
    Stress(GetParam(), seed).Run(GetParam().steps);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, StoreStress,
                         testing::Values(StressCase{Codec::kF32, Codec::kF32, 4, 1500, 512 << 10},
                                         StressCase{Codec::kF16, Codec::kF16, 8, 1500, 512 << 10},
                                         StressCase{Codec::kQ8, Codec::kQ8, 40, 800, 1 << 20},
                                         StressCase{Codec::kQ8, Codec::kF16, 64, 500, 2 << 20},
                                         StressCase{Codec::kF16, Codec::kBF16, 40, 500, 2 << 20},
                                         StressCase{Codec::kQ4, Codec::kQ4, 40, 800, 1 << 20},
                                         StressCase{Codec::kQ4, Codec::kQ8, 18, 500, 512 << 10}));

constexpr PlaneForm kSparse20 = {Codec::kSparseBF16, 20};
INSTANTIATE_TEST_SUITE_P(
    Seals, StoreStress,
    testing::Values(
        StressCase{Codec::kBF16, Codec::kBF16, 40, 250, 1 << 20, kSparse20, kSparse20, 32},
        StressCase{Codec::kF16, Codec::kF16, 18, 400, 512 << 10, Codec::kF16,
                   PlaneForm(Codec::kSparseF16, 5), 64},
        StressCase{Codec::kBF16, Codec::kF16, 66, 200, 2 << 20, PlaneForm(Codec::kSparseI8, 24),
                   Codec::kQ8, 32},
        StressCase{Codec::kF16, Codec::kQ8, 36, 500, 512 << 10, Codec::kQ4, Codec::kQ8, 96}));

}  // namespace
}  // namespace kvasir
