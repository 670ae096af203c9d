// Attention over lanes: softmax(q K^T * scale) V for tiles of query rows, streaming over pages.
//
// The order of sums is a contract [contract: sum.order], so that decode and prefill, any block
// size, any packing of the pages and any number of threads give equal bits:
//   - A query at position p sees entries at positions <= p. They are cut into parts by position:
//     part i covers [i * w, (i + 1) * w) with w = 512 * 2^k, the smallest k with p / w <= 64.
//   - A score is one FMA chain over ascending channels of (q * scale * log2 e) and K, in f32. Over
//     integer keys Compute::kFast rounds q to 16 bits with one scale per row, and the chain is one
//     over blocks of channels (32 of q8 and q4, all of sparse int8), whose products are summed in
//     integers (PlaneKernels::integer_scores). Codec and compute decide this, never the number of
//     rows.
//   - Inside a part: m = the exact maximum of its visible scores; weights 2^(s - m); their sum and
//     the weighted rows of V are added entry after entry in ascending position. Entries that are
//     dead, hidden, later or behind the window are skipped. An empty part is skipped.
//   - Compute::kFast on a target with bf16 dot products (kernels/pair_kernels.h) rounds the
//     operands of these chains to bf16 where a plane is not f32: q and K, weights and V. The sum
//     then adds the rounded weights in units of 2^-22, exactly. Codec, target and compute decide
//     this, never the number of rows.
//   - Parts are merged in ascending order.
// Threads split by lanes, tiles of query rows and parts; none of it changes a result. A row that
// sees no entry yields zeros. Entries without keys (V-only pages) have no score and are skipped.
//
// Cost     Each page is expanded once per tile of many rows, for all query heads of its group. Wide
//          parts make tiles of fewer rows; a part with more visible pages than the scratch holds
//          scores for (contexts from about 260,000 positions on, or lanes of nearly empty pages)
//          has its scores computed twice. Scratch is bounded by AttentionScratch's constructor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/workers.h"
#include "kernels/matmul.h"
#include "kernels/plane.h"
#include "kernels/table.h"
#include "tensor/view.h"

namespace kvasir {

// Query rows of one sequence against one KV head's lane.
struct AttentionJob {
  LaneView lane;
  const float* q = nullptr;  // row r, query head g of the group: q + r * row_stride + g * head_dim
  float* out = nullptr;      // the same shape and strides
  size_t row_stride = 0;     // floats
  uint32_t rows = 0;
  uint32_t group = 1;           // query heads that share this KV head
  uint32_t first_position = 0;  // row r sits at position first_position + r
  // A row at position p sees positions above p - window only; 0: all up to its own.
  uint32_t window = 0;
  float scale = 1;  // 1 / sqrt(head_dim)
};

// Binary logarithm of the width of the parts that a query at `position` sums by.
uint32_t PartShift(uint32_t position);

class AttentionScratch {
 public:
  AttentionScratch(size_t n_workers, uint32_t max_group, uint32_t head_dim,
                   Compute compute = Compute::kFast);
  ~AttentionScratch();
  AttentionScratch(AttentionScratch&&) noexcept;
  AttentionScratch& operator=(AttentionScratch&&) noexcept;
  size_t bytes() const;

 private:
  friend void Attention(const Kernels&, Workers&, std::span<const AttentionJob>, AttentionScratch&);
  struct Plan;  // how the jobs of one call are cut into tasks

  std::unique_ptr<Plan> plan_;
  AlignedBuffer buffer_;
  size_t n_workers_ = 0;
  uint32_t max_group_ = 0, head_dim_ = 0;
  Compute compute_ = Compute::kFast;
};

// Runs all jobs of a layer in one fork-join.
void Attention(const Kernels& kernels, Workers& workers, std::span<const AttentionJob> jobs,
               AttentionScratch& scratch);

}  // namespace kvasir
