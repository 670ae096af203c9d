#include "policy/query_window.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace kvasir {

namespace {
Codec ElementsFor(const LaneShape& shape) {
  return shape.k_form.codec == Codec::kF32 ? Codec::kF32 : Codec::kF16;
}
size_t RowBytes(const LaneShape& shape) {
  return PlaneBytes(ElementsFor(shape), shape.head_dim) / kPageEntries;
}
}  // namespace

uint64_t QueryWindow::Bytes(const LaneShape& shape, uint32_t n_heads, uint32_t rows) {
  return uint64_t{shape.n_layers} * n_heads * rows * RowBytes(shape);
}

// Rows are read in whole planes of 64: the last ones may reach that far behind the end.
QueryWindow::QueryWindow(const LaneShape& shape, uint32_t n_heads, uint32_t rows)
    : shape_(shape),
      n_heads_(n_heads),
      capacity_(rows),
      codec_(ElementsFor(shape)),
      layers_(shape.n_layers),
      buffer_(Bytes(shape, n_heads, rows) + PlaneBytes(codec_, shape.head_dim) + 64) {
  CHECK_MSG(n_heads > 0 && n_heads % shape.n_kv_heads == 0, "{} query heads over {} KV heads",
            n_heads, shape.n_kv_heads);
  CHECK(rows > 0);
}

QueryWindow::QueryWindow(const QueryWindow& other)
    : shape_(other.shape_),
      n_heads_(other.n_heads_),
      capacity_(other.capacity_),
      codec_(other.codec_),
      layers_(other.layers_),
      buffer_(other.buffer_.size()) {
  std::memcpy(buffer_.as<uint8_t>(), other.buffer_.as<uint8_t>(), buffer_.size());
}

uint8_t* QueryWindow::At(uint32_t layer, uint32_t query_head, uint32_t slot) const {
  const size_t head = size_t{layer - shape_.first_layer} * n_heads_ + query_head;
  return buffer_.as<uint8_t>() + (head * capacity_ + slot) * RowBytes(shape_);
}

void QueryWindow::Clear() {
  for (Layer& layer : layers_) layer.n = 0;
}

void QueryWindow::Take(const LayerQueries& queries) {
  Layer& layer = layers_.at(queries.layer - shape_.first_layer);
  if (queries.first_position != layer.end) layer.n = 0;
  const auto total = static_cast<uint32_t>(queries.rows.count);
  const uint32_t skip = total - std::min(total, capacity_);
  for (uint32_t r = skip; r < total;) {
    const uint32_t slot = (queries.first_position + r) % capacity_;
    const uint32_t n = std::min({total - r, capacity_ - slot, kPageEntries});
    for (uint32_t h = 0; h < n_heads_; ++h) {
      queries.kernels->planes.encode_v[static_cast<size_t>(codec_)](
          queries.rows.row(r) + size_t{h} * shape_.head_dim, queries.rows.stride, n,
          shape_.head_dim, 0, At(queries.layer, h, slot));
    }
    r += n;
  }
  layer.end = queries.first_position + total;
  layer.n = std::min(layer.n + total, capacity_);
}

void QueryWindow::Read(uint32_t layer, uint32_t head, uint32_t n, float scale,
                       const Kernels& kernels, std::vector<float>* scratch, float* out,
                       size_t stride) const {
  const Layer& held = layers_.at(layer - shape_.first_layer);
  CHECK(n <= held.n);
  const size_t dim = shape_.head_dim;
  scratch->resize(kPageEntries * dim);
  for (uint32_t g = 0; g < group(); ++g) {
    for (uint32_t r = 0; r < n;) {
      const uint32_t slot = (held.end - n + r) % capacity_;
      const uint32_t m = std::min({n - r, capacity_ - slot, kPageEntries});
      kernels.planes.expand_v[static_cast<size_t>(codec_)](At(layer, head * group() + g, slot), dim,
                                                           scratch->data());
      for (uint32_t i = 0; i < m; ++i, ++r) {
        float* const to = out + (size_t{r} * group() + g) * stride;
        for (size_t c = 0; c < dim; ++c) to[c] = (*scratch)[i * dim + c] * scale;
      }
    }
  }
}

}  // namespace kvasir
