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

  // Row `i` of `head` after its codecs, at `position`.
  DecodedEntry Entry(const Kernels& kernels, uint32_t i, uint32_t head, uint32_t position) const {
    const size_t dim = shape_.head_dim, at = i * stride() + head * dim;
    std::vector<uint8_t> plane_k(PlaneBytes(shape_.k_form, dim) + 64);
    std::vector<uint8_t> plane_v(PlaneBytes(shape_.v_form, dim) + 64);
    kernels.planes.encode_k[shape_.k_form.index()](&k_[at], dim, 1, dim, 0, plane_k.data());
    kernels.planes.encode_v[shape_.v_form.index()](&v_[at], dim, 1, dim, 0, plane_v.data());
    PageView page{.k = plane_k.data(), .v = plane_v.data(), .live = 1, .base = position};
    page.filled = 1;
    page.k_form = shape_.k_form;
    page.v_form = shape_.v_form;
    return Decode(kernels, {&page, 1, 1, shape_.head_dim})[0];
  }

 private:
  LaneShape shape_;
  uint32_t n_;
  std::vector<float> k_, v_;
};

inline Plan Drop(uint32_t layer, int32_t head, std::vector<uint32_t> indices) {
  return {.drops = {{.layer = layer, .head = head, .indices = std::move(indices)}}};
}

}  // namespace kvasir
