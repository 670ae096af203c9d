// The last query rows of a sequence, for all layers: the evidence of every method that looks at
// attention.
//
// Rows are kept as attention uses them (after RoPE), f16, or f32 beside f32 lanes:
// rows x n_heads x head_dim x n_layers elements. A row that is taken replaces the oldest one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "policy/evidence.h"
#include "tensor/view.h"

namespace kvasir {

class QueryWindow final : public Evidence {
 public:
  QueryWindow(const LaneShape& shape, uint32_t n_heads, uint32_t rows);
  QueryWindow(const QueryWindow& other);

  static uint64_t Bytes(const LaneShape& shape, uint32_t n_heads, uint32_t rows);

  uint32_t QueryRows(uint32_t rows) const override { return std::min(rows, capacity_); }
  void Take(const LayerQueries& queries) override;
  std::unique_ptr<Evidence> Fork() const override { return std::make_unique<QueryWindow>(*this); }

  uint32_t capacity() const { return capacity_; }
  uint32_t group() const { return n_heads_ / shape_.n_kv_heads; }
  uint32_t head_dim() const { return shape_.head_dim; }
  // Rows held of a layer; they end with position end(layer) - 1.
  uint32_t n_rows(uint32_t layer) const { return layers_[layer - shape_.first_layer].n; }
  uint32_t end(uint32_t layer) const { return layers_[layer - shape_.first_layer].end; }
  // Of all layers.
  void Clear();

  // The last `n` rows of the query heads that share KV head `head`, times `scale`, oldest first:
  // head g of row r at out + (r * group() + g) * stride. `scratch` grows as needed.
  void Read(uint32_t layer, uint32_t head, uint32_t n, float scale, const Kernels& kernels,
            std::vector<float>* scratch, float* out, size_t stride) const;

 private:
  struct Layer {
    uint32_t end = 0, n = 0;
  };
  // Row slot of a query head; slots of a head lie one after another.
  uint8_t* At(uint32_t layer, uint32_t query_head, uint32_t slot) const;

  const LaneShape shape_;
  const uint32_t n_heads_, capacity_;
  const Codec codec_;
  std::vector<Layer> layers_;
  AlignedBuffer buffer_;
};

}  // namespace kvasir
