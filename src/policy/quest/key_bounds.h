// Bounds of the keys of a sequence: for every part of so many consecutive entries of a lane and
// every channel the largest and the smallest key, as the keys lie in the lane.
//
// For a query q no key of a part gives more than u = sum over channels c of max(q_c m_c, q_c M_c)
// with m the smallest and M the largest (Quest, arXiv 2406.10774, section 3.3).
//
// Layout   A part is one column of 2 x head_dim channels, M before m, in planes of 64 columns laid
//          out like K planes: u is then one product of those columns with (max(q, 0), min(q, 0)),
//          by the kernel that attention has for keys.
// Exact    f32, f16 and bf16 keys have bounds of their own codec. Those of q8 and q4 keys are f16
//          and moved outward by what rounding to f16 may lose. Keys that change later have none.
// Cost     Two elements per channel and part: with 16 entries an eighth of f16 keys.
// Threads  Lanes may be extended and asked in parallel, each by one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/table.h"
#include "kv/store.h"
#include "tensor/view.h"

namespace kvasir {

class KeyBounds {
 public:
  // `part`: entries that share bounds, a power of two up to 64; of layers from `skip` on.
  KeyBounds(const LaneShape& shape, uint32_t part, uint32_t skip);
  // Of such bounds for `tokens` positions.
  static uint64_t Bytes(const LaneShape& shape, uint32_t part, uint32_t skip, uint64_t tokens);

  // Whole parts that have bounds; the same for all lanes.
  uint32_t n_parts() const { return n_parts_; }
  uint32_t first_layer() const { return shape_.first_layer + skip_; }
  // Memory for the whole parts of so many positions; the lanes must be extended next.
  void Grow(uint32_t positions);
  // Adds the parts of a lane that were grown for. It holds every position: nothing was dropped.
  void Extend(uint32_t layer, uint32_t head, const LaneView& lane, uint32_t from_part,
              const Kernels& kernels);

  struct Scratch {
    std::vector<float> queries, products;
  };
  // bounds[i] = the largest u of part i over the rows of `queries`, for the first `n` parts. Never
  // below the exact maximum of products with keys of the part, up to the rounding of a product.
  void Upper(uint32_t layer, uint32_t head, Rows queries, uint32_t n, const Kernels& kernels,
             Scratch* scratch, float* bounds) const;
  uint64_t part_bytes(uint32_t layer) const { return plane_bytes(layer) / kPageEntries; }

 private:
  size_t Lane(uint32_t layer, uint32_t head) const {
    return size_t{layer - first_layer()} * shape_.n_kv_heads + head;
  }
  Codec codec(uint32_t layer) const { return CodecOf(shape_, layer); }
  static Codec CodecOf(const LaneShape& shape, uint32_t layer);
  static size_t PlaneBytesOf(const LaneShape& shape, uint32_t layer) {
    return PlaneBytes(CodecOf(shape, layer), size_t{2} * shape.head_dim);
  }
  size_t plane_bytes(uint32_t layer) const { return PlaneBytesOf(shape_, layer); }
  const uint8_t* Plane(size_t lane, uint32_t i) const { return lanes_[lane][i][0].bytes; }

  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  using Plane64 = std::vector<Line>;  // a plane, and a line that kernels may read behind it

  LaneShape shape_;
  uint32_t part_, skip_;
  uint32_t n_parts_ = 0;
  std::vector<std::vector<Plane64>> lanes_;
};

}  // namespace kvasir
