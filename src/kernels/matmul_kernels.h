// Per-target pieces of the matrix product; kernels/matmul.h is what callers use.
//
// Weights are repacked at load into groups of 16 output rows ("columns" of the product). A group is one
// sequential stream of records, each holding 32 (K-quants: 256) steps of K for all 16 outputs together
// with their scales: one stream per group is what reaches the read limit with one row, and the same
// records serve many rows with the same arithmetic, hence equal bits [contract: rows.equal].
//
//   kF32, kF16, kBF16  per step of K: 16 elements
//   kQ8    per 32 steps: 8 x 64 B of w + 128 (u8; byte 4c + j of block s = output c, step 4s + j), 16 f16 scales
//   kQ4    per 32 steps: 4 x 64 B of nibbles (low half: block s, high half: block s + 4), 16 f16 scales,
//          16 f16 minima: w = scale * nibble + min
//   kQ4K   per 256 steps: 16 f16 d, 16 f16 dmin, then 8 x (256 B nibbles, 16 u8 scales, 16 u8 minima):
//          w = d * scale * nibble - dmin * min
//   kQ6K   per 256 steps: 16 f16 d, then 8 x (512 B of q (u8, 0..63), 2 x 16 i8 scales, one per 16 steps):
//          w = d * scale * (q - 32)
//
// Q4_0 becomes kQ4 with min = -8 * scale, Q4_1 kQ4, Q8_0 kQ8, Q5_0 kQ8 (w - 16 in -16..15).
//
// Exact arithmetic (--compute f32): weights expanded to f32 as DequantizeRow does, products with f32
// activations summed by FMA in ascending K, one chain per output element.
// Fast arithmetic: activations are int8 per 32 steps (scale = amax / 127); integer sums inside a block are
// exact; blocks are folded with FMA in ascending K. Float weights always take the exact path.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kvasir {

enum class PackedKind : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kQ4K, kQ6K };
inline constexpr int kPackedKinds = 7;
inline constexpr uint32_t kGroup = 16;       // outputs in a group
inline constexpr uint32_t kActBlock = 32;    // steps of K that share one activation scale

struct PackedGroups {  // view of consecutive groups
  const uint8_t* data;
  size_t group_bytes;
  size_t n_groups;
  size_t k;
};

struct QuantizedRows {  // view: int8 activations of `n` rows
  const int8_t* q;        // [n][k], rows `stride` bytes apart (a multiple of 32)
  const float* scale;     // [n][k / 32]
  const int32_t* sum;     // [n][k / 32]: sum of the block's q
  size_t stride, blocks;  // blocks = k / 32
};

struct MatMulKernels {
  // Quantizes one row of k floats (k a multiple of 32).
  void (*quantize_row)(const float* x, size_t k, int8_t* q, float* scale, int32_t* sum);
  // out[r * out_stride + 16 g + c] for rows r < n and all groups; null for float kinds.
  void (*fast[kPackedKinds])(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out,
                             size_t out_stride);
  // The same from f32 rows, `x_stride` floats apart.
  void (*exact[kPackedKinds])(const PackedGroups& w, const float* x, size_t x_stride, size_t n,
                              float* out, size_t out_stride);
};

}  // namespace kvasir
