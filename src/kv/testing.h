// What the tests of this room share: rows, and what a lane says it holds.
#pragma once

#include <bit>
#include <random>
#include <vector>

#include "kernels/table.h"
#include "kv/store.h"

namespace kvasir {

// One entry as floats, after its codec.
struct DecodedEntry {
  uint32_t position = 0;
  std::vector<float> k, v;
  bool operator==(const DecodedEntry&) const = default;
};

// Calls f(position, k, k_stride, v) for every live entry in order; channel c of its key is k[c *
// k_stride].
template <typename F>
void ForEachEntry(const Kernels& kernels, const LaneView& lane, F&& f) {
  const size_t dim = lane.head_dim;
  std::vector<float> k(kPageEntries * dim), v(kPageEntries * dim);
  for (uint32_t i = 0; i < lane.n_pages; ++i) {
    const PageView& page = lane.pages[i];
    kernels.planes.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim), k.data());
    kernels.planes.expand_v[page.v_form.index()](page.v, page.v_form.Shape(dim), v.data());
    for (uint64_t left = page.live; left != 0; left &= left - 1) {
      const auto slot = static_cast<uint32_t>(std::countr_zero(left));
      f(page.position(slot), &k[slot], kPageEntries, &v[slot * dim]);
    }
  }
}

inline std::vector<DecodedEntry> Decode(const Kernels& kernels, const LaneView& lane) {
  std::vector<DecodedEntry> entries;
  ForEachEntry(kernels, lane,
               [&](uint32_t position, const float* k, size_t stride, const float* v) {
                 DecodedEntry entry{.position = position};
                 for (size_t c = 0; c < lane.head_dim; ++c) entry.k.push_back(k[c * stride]);
                 entry.v.assign(v, v + lane.head_dim);
                 entries.push_back(std::move(entry));
               });
  return entries;
}

template <typename RowsOf>
void AppendLayer(AppendCursor& cursor, uint32_t layer, RowsOf&& rows) {
  while (cursor.BlockRows(layer) > 0) {
    const uint32_t done = cursor.n_appended(layer), n = cursor.BlockRows(layer);
    cursor.Append(layer, rows.k().Slice(done, n), rows.v().Slice(done, n));
  }
}

// Appends `n` rows in the blocks that the lanes ask for. `rows(layer)` is called once per layer.
template <typename MakeRows>
void AppendAll(Store& store, LaneSetHandle& set, uint32_t n, MakeRows&& rows) {
  AppendCursor cursor = store.Append(set, n);
  const LaneShape shape = set->shape();
  for (uint32_t layer = shape.first_layer; layer < shape.first_layer + shape.n_layers; ++layer) {
    AppendLayer(cursor, layer, rows(layer));
  }
  cursor.Finish();
}

// Random rows of one pass: k and v of all heads side by side.
class RandomRows {
 public:
  RandomRows(const LaneShape& shape, uint32_t n, std::mt19937& rng)
      : shape_(shape), n_(n), k_(n * stride()), v_(n * stride()) {
    std::normal_distribution<float> normal;
    for (float& x : k_) x = normal(rng);
    for (float& x : v_) x = normal(rng);
  }
  // Rows are farther apart than they are wide.
  size_t stride() const { return size_t{shape_.n_kv_heads} * shape_.head_dim + 3; }
  Rows k() { return {k_.data(), n_, stride() - 3, stride()}; }
  Rows v() { return {v_.data(), n_, stride() - 3, stride()}; }

  // Row `i` of `head` as it was appended, at `position`; and after its page was sealed.
  DecodedEntry Entry(const Kernels& kernels, uint32_t i, uint32_t head, uint32_t position) const {
    return EntryIn(kernels, i, head, position, /*sealed=*/false);
  }
  DecodedEntry SealedEntry(const Kernels& kernels, uint32_t i, uint32_t head,
                           uint32_t position) const {
    return EntryIn(kernels, i, head, position, /*sealed=*/true);
  }

 private:
  // A row alone in its plane.
  struct RowPlane {
    PlaneForm form;
    std::vector<uint8_t> bytes;
  };
  RowPlane Encoded(const Kernels& kernels, const float* row, PlaneForm form, bool keys) const {
    const size_t dim = shape_.head_dim;
    RowPlane plane = {form, std::vector<uint8_t>(PlaneBytes(form, dim) + 64)};
    const auto& encode = keys ? kernels.planes.encode_k : kernels.planes.encode_v;
    encode[form.index()](row, dim, 1, dim, 0, plane.bytes.data());
    return plane;
  }
  RowPlane Sealed(const Kernels& kernels, const RowPlane& open, PlaneForm form, bool keys) const {
    const size_t dim = shape_.head_dim;
    if (form == open.form) return open;
    RowPlane plane = {form, std::vector<uint8_t>(PlaneBytes(form, dim) + 64)};
    if (IsSparse(form.codec)) {
      const auto& pack = keys ? kernels.planes.pack_k : kernels.planes.pack_v;
      pack[form.index()](open.bytes.data(), form.Shape(dim), nullptr, plane.bytes.data());
      return plane;
    }
    std::vector<float> all(kPageEntries * dim), row(dim);
    const auto& expand = keys ? kernels.planes.expand_k : kernels.planes.expand_v;
    expand[open.form.index()](open.bytes.data(), open.form.Shape(dim), all.data());
    for (size_t c = 0; c < dim; ++c) row[c] = all[keys ? c * kPageEntries : c];
    return Encoded(kernels, row.data(), form, keys);
  }
  DecodedEntry EntryIn(const Kernels& kernels, uint32_t i, uint32_t head, uint32_t position,
                       bool sealed) const {
    const size_t at = i * stride() + head * size_t{shape_.head_dim};
    const LayerForms forms = shape_.Forms(shape_.first_layer);
    RowPlane k = Encoded(kernels, &k_[at], forms.k.open, true);
    RowPlane v = Encoded(kernels, &v_[at], forms.v.open, false);
    if (sealed) {
      k = Sealed(kernels, k, forms.k.sealed, true);
      v = Sealed(kernels, v, forms.v.sealed, false);
    }
    PageView page{.k = k.bytes.data(), .v = v.bytes.data(), .live = 1, .base = position};
    page.filled = 1;
    page.k_form = k.form;
    page.v_form = v.form;
    return Decode(kernels, {&page, 1, 1, shape_.head_dim})[0];
  }

  LaneShape shape_;
  uint32_t n_;
  std::vector<float> k_, v_;
};

inline Plan Drop(uint32_t layer, int32_t head, std::vector<uint32_t> indices) {
  return {.drops = {{.layer = layer, .head = head, .indices = std::move(indices)}}};
}

}  // namespace kvasir
