#include "policy/quest/key_bounds.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"

namespace kvasir {

namespace {

// At least one unit of f16 further out, so that rounding to f16 does not come back.
float Outward(float x, float direction) {
  return x + direction * std::max(std::abs(x) * 0x1p-10f, 0x1p-24f);
}

}  // namespace

KeyBounds::KeyBounds(const LaneShape& shape, uint32_t part, uint32_t skip)
    : shape_(shape),
      part_(part),
      skip_(skip),
      lanes_(size_t{shape.n_layers - skip} * shape.n_kv_heads) {
  CHECK(part > 0 && kPageEntries % part == 0 && skip < shape.n_layers);
}

uint64_t KeyBounds::Bytes(const LaneShape& shape, uint32_t part, uint32_t skip, uint64_t tokens) {
  const uint64_t planes = DivideUp(tokens / part, uint64_t{kPageEntries});
  uint64_t bytes = 0;
  for (uint32_t l = skip; l < shape.n_layers; ++l) {
    bytes += shape.n_kv_heads * planes * PlaneBytesOf(shape, shape.first_layer + l);
  }
  return bytes;
}

Codec KeyBounds::CodecOf(const LaneShape& shape, uint32_t layer) {
  const Codec keys = shape.Forms(layer).k.open.codec;
  return IsInteger(keys) ? Codec::kF16 : keys;
}

void KeyBounds::Grow(uint32_t positions) {
  n_parts_ = std::max(n_parts_, positions / part_);
  for (size_t lane = 0; lane < lanes_.size(); ++lane) {
    const auto layer = first_layer() + static_cast<uint32_t>(lane / shape_.n_kv_heads);
    const size_t lines = DivideUp(plane_bytes(layer), sizeof(Line)) + 1;
    std::vector<Plane64>& planes = lanes_[lane];
    while (planes.size() * kPageEntries < n_parts_) planes.emplace_back(lines);
  }
}

void KeyBounds::Extend(uint32_t layer, uint32_t head, const LaneView& lane, uint32_t from_part,
                       const Kernels& kernels) {
  const size_t dim = shape_.head_dim, per_page = kPageEntries / part_;
  const bool rounds = IsInteger(shape_.Forms(layer).k.open.codec);
  std::vector<float> keys(dim * kPageEntries), columns(per_page * 2 * dim);
  for (uint32_t p = from_part; p < n_parts_;) {
    const PageView& page = lane.pages[p / per_page];
    CHECK_MSG(page.positions == nullptr && page.base / part_ == p / per_page * per_page,
              "bounds of a lane that was packed");
    kernels.planes.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim), keys.data());
    const size_t begin = p % per_page;
    const size_t n = std::min<size_t>(per_page - begin, n_parts_ - p);
    for (size_t i = 0; i < n; ++i) {
      float* const most = columns.data() + i * 2 * dim;
      float* const least = most + dim;
      for (size_t c = 0; c < dim; ++c) {
        const float* const k = keys.data() + c * kPageEntries + (begin + i) * part_;
        most[c] = *std::max_element(k, k + part_);
        least[c] = *std::min_element(k, k + part_);
        if (!rounds) continue;
        most[c] = Outward(most[c], 1);
        least[c] = Outward(least[c], -1);
      }
    }
    kernels.planes.encode_k[static_cast<size_t>(codec(layer))](
        columns.data(), 2 * dim, n, 2 * dim, p % kPageEntries,
        lanes_[Lane(layer, head)][p / kPageEntries][0].bytes);
    p += static_cast<uint32_t>(n);
  }
}

void KeyBounds::Upper(uint32_t layer, uint32_t head, Rows queries, uint32_t n,
                      const Kernels& kernels, Scratch* scratch, float* bounds) const {
  CHECK(n <= n_parts_);
  const size_t dim = shape_.head_dim, lane = Lane(layer, head);
  scratch->queries.resize(queries.count * 2 * dim);
  for (size_t r = 0; r < queries.count; ++r) {
    float* const to = scratch->queries.data() + r * 2 * dim;
    for (size_t c = 0; c < dim; ++c) {
      to[c] = std::max(queries.row(r)[c], 0.0f);
      to[dim + c] = std::min(queries.row(r)[c], 0.0f);
    }
  }
  scratch->products.resize(queries.count * kPageEntries);
  for (uint32_t first = 0; first < n; first += kPageEntries) {
    const uint32_t plane = first / kPageEntries, m = std::min(kPageEntries, n - first);
    const uint8_t* const next = first + m < n ? Plane(lane, plane + 1) : nullptr;
    kernels.planes.scores[static_cast<size_t>(codec(layer))](
        scratch->queries.data(), 2 * dim, queries.count, Plane(lane, plane), 2 * dim, next,
        scratch->products.data(), kPageEntries);
    std::copy_n(scratch->products.data(), m, bounds + first);
    for (size_t r = 1; r < queries.count; ++r) {
      const float* const of_row = scratch->products.data() + r * kPageEntries;
      for (uint32_t i = 0; i < m; ++i) bounds[first + i] = std::max(bounds[first + i], of_row[i]);
    }
  }
}

}  // namespace kvasir
