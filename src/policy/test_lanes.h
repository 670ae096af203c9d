// Lanes for tests: a store fed with rows by hand, and lane views laid out slot by slot.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/table.h"
#include "kv/store.h"
#include "policy/policy.h"

namespace kvasir {

// The key of (layer, head, position); values are zero unless a test needs them.
using KeyMaker =
    std::function<std::vector<float>(uint32_t layer, uint32_t head, uint32_t position)>;

inline LaneShape F32Shape(uint32_t layers, uint32_t kv_heads, uint32_t dim) {
  return {.n_layers = layers,
          .n_kv_heads = kv_heads,
          .head_dim = dim,
          .k_form = Codec::kF32,
          .v_form = Codec::kF32};
}

// A model with `group` query heads for each KV head of a shape.
inline ModelFacts FactsFor(const LaneShape& shape, uint32_t group) {
  ModelFacts facts = {.n_heads = shape.n_kv_heads * group};
  for (uint32_t i = 0; i < shape.head_dim / 2; ++i) {
    facts.inverse_frequencies.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(shape.head_dim)));
  }
  return facts;
}

// A number in [0, 1) that depends on its arguments alone.
inline float HashedUnit(uint64_t a, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0) {
  uint64_t x = 0x243f6a8885a308d3;
  for (const uint64_t part : {a, b, c, d}) {
    x = (x ^ part) * 0x9e3779b97f4a7c15;
    x ^= x >> 29;
  }
  return static_cast<float>(x >> 40) * 0x1p-24f;
}

// Keys around a common direction, so that cosines to the mean differ widely.
inline KeyMaker RandomKeys(uint32_t dim, uint64_t seed) {
  return [dim, seed](uint32_t layer, uint32_t head, uint32_t position) {
    std::vector<float> key(dim);
    for (uint32_t c = 0; c < dim; ++c) {
      const uint64_t lane = uint64_t{layer} << 32 | head;
      key[c] = 2 * HashedUnit(seed, lane, position, c) - (c == 0 ? 0.5f : 1.0f);
    }
    return key;
  };
}

// Query heads per KV head of the models that tests make up.
inline constexpr uint32_t kTestGroup = 2;

// One sequence in a store of its own, run the way an engine runs it.
class TestSequence {
 public:
  TestSequence(const LaneShape& shape, const Demand& demand, KeyMaker keys,
               const Kernels& kernels = BestKernels())
      : kernels_(kernels),
        keys_(std::move(keys)),
        store_(std::make_shared<Store>(uint64_t{256} << 20, kernels, nullptr)),
        set_(store_->Create(shape, LaneRole::kMain, demand)) {
    CHECK(set_);
  }

  const LaneSet& set() const { return *set_; }
  const LaneShape& shape() const { return set_->shape(); }
  Store& store() { return *store_; }
  KvView View() const { return KvView(*store_, *set_, kernels_); }
  uint32_t position() const { return set_->next_position(); }

  // Appends the next `n` positions to all lanes.
  void Append(uint32_t n) {
    const LaneShape& shape = set_->shape();
    const size_t width = size_t{shape.n_kv_heads} * shape.head_dim;
    const size_t stride = (width + 15) / 16 * 16;
    std::vector<float> k(n * stride), v(n * stride);
    AppendCursor cursor = store_->Append(set_, n);
    for (uint32_t l = 0; l < shape.n_layers; ++l) {
      const uint32_t layer = shape.first_layer + l;
      for (uint32_t r = 0; r < n; ++r) {
        for (uint32_t h = 0; h < shape.n_kv_heads; ++h) {
          const std::vector<float> key = keys_(layer, h, cursor.first_position() + r);
          CHECK(key.size() == shape.head_dim);
          std::copy(key.begin(), key.end(), k.begin() + r * stride + h * shape.head_dim);
          if (!values_) continue;
          const std::vector<float> value = values_(layer, h, cursor.first_position() + r);
          std::copy(value.begin(), value.end(), v.begin() + r * stride + h * shape.head_dim);
        }
      }
      cursor.Append(layer, Rows{k.data(), n, width, stride}, Rows{v.data(), n, width, stride});
    }
    cursor.Finish();
  }
  // Shows `state` the queries it wants of the next `n` rows, as a forward pass does. `query_heads`
  // numbers heads over all groups; without a maker they are random.
  void ShowQueries(PolicyState* state, uint32_t n, uint32_t query_heads) {
    const uint32_t wanted = state->QueryRows(n);
    if (wanted == 0) return;
    const LaneShape& shape = set_->shape();
    const size_t width = size_t{query_heads} * shape.head_dim;
    const uint32_t first = position() + n - wanted;
    std::vector<float> q(wanted * width);
    for (uint32_t l = 0; l < shape.n_layers; ++l) {
      const uint32_t layer = shape.first_layer + l;
      for (uint32_t r = 0; r < wanted; ++r) {
        for (uint32_t h = 0; h < query_heads; ++h) {
          const std::vector<float> row = queries_(layer, h, first + r);
          CHECK(row.size() == shape.head_dim);
          std::copy(row.begin(), row.end(), q.begin() + r * width + h * shape.head_dim);
        }
      }
      state->TakeQueries({.layer = layer,
                          .first_position = first,
                          .rows = {q.data(), wanted, width, width},
                          .kernels = &kernels_});
    }
  }
  // The lanes of a layer as the last row appended reads them under a state that chooses.
  std::vector<LaneView> Chosen(PolicyState* state, uint32_t layer, uint32_t query_heads,
                               Workers* workers = nullptr) const {
    const LaneShape& shape = set_->shape();
    const size_t width = size_t{query_heads} * shape.head_dim;
    std::vector<float> q;
    for (uint32_t h = 0; h < query_heads; ++h) {
      const std::vector<float> row = queries_(layer, h, position() - 1);
      q.insert(q.end(), row.begin(), row.end());
    }
    std::vector<LaneView> lanes;
    for (uint32_t h = 0; h < shape.n_kv_heads; ++h) lanes.push_back(store_->View(*set_, layer, h));
    state->Select({.layer = layer,
                   .first_position = position() - 1,
                   .rows = {q.data(), 1, width, width},
                   .kernels = &kernels_,
                   .workers = workers},
                  lanes);
    return lanes;
  }
  void SetValues(KeyMaker values) { values_ = std::move(values); }
  void SetQueries(KeyMaker queries) { queries_ = std::move(queries); }
  void Commit(const Plan& plan) { store_->Commit(set_, plan); }
  void Shrink(const Demand& demand) { store_->Shrink(set_, demand); }
  std::vector<uint32_t> Positions(uint32_t layer, uint32_t head) const {
    std::vector<uint32_t> positions;
    GatherPositions(store_->View(*set_, layer, head), &positions);
    return positions;
  }
  // Live positions of every lane, by (layer, head).
  std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> AllPositions() const {
    std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> all;
    const LaneShape& shape = set_->shape();
    for (uint32_t l = 0; l < shape.n_layers; ++l) {
      for (uint32_t h = 0; h < shape.n_kv_heads; ++h) {
        all[{shape.first_layer + l, h}] = Positions(shape.first_layer + l, h);
      }
    }
    return all;
  }
  uint64_t MostEntries() const {
    uint64_t most = 0;
    for (const auto& [lane, positions] : AllPositions()) {
      most = std::max<uint64_t>(most, positions.size());
    }
    return most;
  }

  // A sequence that begins with this one's pages; shares the store.
  TestSequence Fork(const Demand& own) {
    LaneSetHandle set = store_->Fork(set_, own);
    CHECK(set);
    return TestSequence(kernels_, keys_, store_, std::move(set));
  }

  struct Step {
    Progress after;
    uint64_t entries_before_commit = 0;  // of the fullest lane
    const Plan& plan;
  };
  // Appends in passes of at most `max_rows` until `end`; positions below `prompt_end` are prompt.
  // `check` sees each pass after its plan was committed.
  void Run(PolicyState& state, uint32_t prompt_end, uint32_t end, Workers* workers = nullptr,
           const std::function<void(const Step&)>& check = {},
           uint32_t max_rows = std::numeric_limits<uint32_t>::max()) {
    while (position() < end) {
      const Progress before = {position(), prompt_end};
      const uint32_t limit = before.in_prompt() ? prompt_end : position() + 1;
      const uint32_t rows =
          std::min({state.MaxRows(before), max_rows, std::min(limit, end) - position()});
      CHECK(rows >= 1);
      ShowQueries(&state, rows, set_->shape().n_kv_heads * kTestGroup);
      Append(rows);
      const uint64_t entries = MostEntries();
      Plan plan;
      const Progress after = {position(), prompt_end};
      state.Observe(after, View(), workers, &plan);
      Commit(plan);
      if (check) check({after, entries, plan});
    }
  }

 private:
  TestSequence(const Kernels& kernels, KeyMaker keys, std::shared_ptr<Store> store,
               LaneSetHandle set)
      : kernels_(kernels), keys_(std::move(keys)), store_(std::move(store)), set_(std::move(set)) {}

  const Kernels& kernels_;
  KeyMaker keys_;
  std::shared_ptr<Store> store_;  // outlives the sets of all forks
  LaneSetHandle set_;
  KeyMaker values_;
  KeyMaker queries_ = RandomKeys(set_->shape().head_dim, 77);
};

// A lane laid out by hand in f32: slot by slot, a missing key is a dead slot that holds NaN.
class HandLane {
 public:
  explicit HandLane(uint32_t dim, const Kernels& kernels = BestKernels())
      : dim_(dim), kernels_(kernels) {}

  // Starts a page; slots are added to the last one.
  HandLane& Page() {
    pages_.emplace_back();
    planes_.emplace_back(PlaneBytes(Codec::kF32, dim_) + 64);
    positions_.emplace_back(kPageEntries);
    return *this;
  }
  HandLane& Add(uint32_t position, const std::vector<float>& key) {
    Write(position, key, true);
    return *this;
  }
  HandLane& AddDead() {
    Write(0, std::vector<float>(dim_, std::numeric_limits<float>::quiet_NaN()), false);
    return *this;
  }
  LaneView View() {
    uint32_t n = 0;
    for (size_t i = 0; i < pages_.size(); ++i) {
      pages_[i].k = planes_[i].data();
      pages_[i].positions = positions_[i].data();
      pages_[i].k_form = pages_[i].v_form = Codec::kF32;
      n += static_cast<uint32_t>(__builtin_popcountll(pages_[i].live));
    }
    return {pages_.data(), static_cast<uint32_t>(pages_.size()), n, dim_};
  }

 private:
  void Write(uint32_t position, const std::vector<float>& key, bool live) {
    if (pages_.empty() || pages_.back().filled == kPageEntries) Page();
    PageView& page = pages_.back();
    std::vector<float> padded((dim_ + 15) / 16 * 16);
    std::copy(key.begin(), key.end(), padded.begin());
    kernels_.planes.encode_k[static_cast<size_t>(Codec::kF32)](
        padded.data(), padded.size(), 1, dim_, page.filled, planes_.back().data());
    positions_.back()[page.filled] = position;
    if (live) page.live |= uint64_t{1} << page.filled;
    ++page.filled;
  }

  uint32_t dim_;
  const Kernels& kernels_;
  std::vector<PageView> pages_;
  std::vector<std::vector<uint8_t>> planes_;
  std::vector<std::vector<uint32_t>> positions_;
};

}  // namespace kvasir
