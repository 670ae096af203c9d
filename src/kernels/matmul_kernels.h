// Per-target pieces of the matrix product; kernels/matmul.h is what callers use.
//
// Weights are repacked at load into groups of 16 output rows ("columns" of the product). A group is
// one sequential stream of records, each holding 32 (K-quants: 256) steps of K for all 16 outputs
// together with their scales: one stream per group is what reaches the read limit with one row, and
// the same records serve many rows with the same arithmetic, hence equal bits [contract:
// rows.equal].
//
//   kF32, kF16
//          per step: 16 elements
//   kBF16  per two steps: 16 pairs, each a u32 whose high half is the first step's element and
//          whose low half the second's (0 behind the last step)
//   kQ8    per 32 steps: 8 x 64 B of w + 128 (u8; byte 4c + j of block s is output c, step 4s + j),
//          16 f16 scales
//   kQ4    per 32 steps: 4 x 64 B of nibbles (low half: block s, high half: block s + 4),
//          16 f16 scales, 16 f16 minima: w = scale * nibble + min
//   kQ4S   per 32 steps: 4 x 64 B of nibbles as in kQ4, 16 f16 scales: w = scale * (nibble - 8)
//   kQ5    per 32 steps: 4 x 64 B of nibbles as in kQ4, 64 B of fifth bits (bit s of byte 4c + j:
//          output c, step 4s + j), 16 f32 scales, 16 f32 minima: w = scale * q + min
//   kIQ4   per 32 steps: 4 x 64 B of nibbles as in kQ4, 16 f32 scales:
//          w = scale * kIQ4Table[nibble]
//   kQ2K   per 256 steps: 16 f16 d, 16 f16 dmin, then 8 parts of 2 x 64 B of q (bits 2i and 2i + 1
//          of byte 4c + j of half h: output c, step 4 (4h + i) + j) and 2 x 16 u8 (one per 16
//          steps: scale, minimum << 4): w = d * scale * q - dmin * minimum
//   kQ4K   per 256 steps: 16 f16 d, 16 f16 dmin, then 8 parts of 256 B of nibbles, 16 u8 scales,
//          16 u8 minima: w = d * scale * nibble - dmin * min
//   kQ6K   per 256 steps: 16 f16 d, then 8 parts of 256 B of low nibbles as in kQ4, 2 x 64 B of
//          high bits, 2 x 16 i8 scales (one per 16 steps): w = d * scale * (q - 32). Bits 2i and
//          2i + 1 of byte 4c + j of high half h belong to output c, step 4 (4h + i) + j.
//
// Q4_0 becomes kQ4S, Q4_1 kQ4, Q8_0 kQ8, Q5_0 kQ8 (w in -16..15), Q5_1 and Q5_K kQ5, IQ4_NL and
// IQ4_XS kIQ4 (the products d * scale of K blocks are exact in f32), Q3_K kQ6K (w in -4..3).
// Outputs beyond the last one are zeros.
//
// Exact arithmetic (--compute f32): weights expanded to f32 as ggml's types define them (equal
// values; a zero may differ in sign), times f32 activations, one MulAdd chain per output element in
// ascending K.
//
// Fast arithmetic: activations are int8 per 32 steps, and a block adds to the element's chain
//   sum = MulAdd(float(dot), scale * a_scale, sum)    dot of integer weights and activations, exact
//   sum = MulAdd(min, a_scaled_sum, sum)              for kQ4, kQ4K and kQ5
// in ascending order, first for all blocks, then once more, in ascending order, for the *rest* of
// those blocks where rounding shows: int8 of what the first term rounded away. A block has a rest
// when the square of its scale exceeds kRestFactor times the mean of the squares in its row: the
// error of a product is that of the few blocks with outliers. (On smollm2, 4,764 tokens of prose,
// against f32: without rests the most likely token changes in 3.8 % of places, with the rests of
// 5 % of the blocks in 2.1 %, of 11 % in 1.8 %, of all in 0.1 %.)
//
// kQ4K: scale = d * scale, min = -(dmin * min). kQ6K: the integer weights are
// scale * (q - 32), and scale = d; still |dot| < 2^24. kQ2K: the integer weights are scale * q, and
//   sum = MulAdd(float(dot of minima and activations), -dmin * a_scale, sum)
// follows, exact as well. Float weights take the exact path, but for bf16 on avx512: one MulAdd
// chain in ascending K over activations rounded to bf16.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kvasir {

enum class PackedKind : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kQ4K, kQ6K, kQ5, kIQ4, kQ2K, kQ4S };
inline constexpr int kPackedKinds = 11;
inline constexpr uint32_t kGroup = 16;     // outputs in a group
inline constexpr uint32_t kActBlock = 32;  // steps of K that share one activation scale

// A record: `steps` of K for the 16 outputs of a group.
struct RecordLayout {
  uint32_t steps, bytes;
};
constexpr RecordLayout Record(PackedKind kind) {
  switch (kind) {
    case PackedKind::kF32:
      return {1, 64};
    case PackedKind::kF16:
      return {1, 32};
    case PackedKind::kBF16:
      return {2, 64};
    case PackedKind::kQ8:
      return {32, 512 + 32};
    case PackedKind::kQ4:
      return {32, 256 + 2 * 32};
    case PackedKind::kQ4K:
      return {256, 2 * 32 + 8 * (256 + 2 * 16)};
    case PackedKind::kQ6K:
      return {256, 32 + 8 * (256 + 128 + 2 * 16)};
    case PackedKind::kQ5:
      return {32, 256 + 64 + 2 * 64};
    case PackedKind::kIQ4:
      return {32, 256 + 64};
    case PackedKind::kQ4S:
      return {32, 256 + 32};
    case PackedKind::kQ2K:
      break;
  }
  return {256, 2 * 32 + 8 * (128 + 2 * 16)};
}
// Offsets in a record, and for K-quants in a part of 32 steps.
namespace record {
inline constexpr size_t kQ8Scales = 512;
inline constexpr size_t kQ4Scales = 256, kQ4Minima = 288;
inline constexpr size_t kQ4KMinimum = 32, kQ4KParts = 64, kQ4KPartBytes = 288;
inline constexpr size_t kQ4KScales = 256, kQ4KMinima = 272;
inline constexpr size_t kQ6KParts = 32, kQ6KPartBytes = 416;
inline constexpr size_t kQ6KHigh = 256, kQ6KScales = 384;
inline constexpr size_t kQ5High = 256, kQ5Scales = 320, kQ5Minima = 384;
inline constexpr size_t kIQ4Scales = 256;
inline constexpr size_t kQ2KMinimum = 32, kQ2KParts = 64, kQ2KPartBytes = 160, kQ2KFactors = 128;
}  // namespace record

inline constexpr int8_t kIQ4Table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

struct PackedGroups {  // view of consecutive groups
  const uint8_t* data;
  size_t group_bytes;
  size_t n_groups;
  size_t k;
};

// View: int8 activations, and the rests of some blocks. scale = amax / 127 of the block, q = x *
// (127 / amax) rounded to nearest even, in -127..127. A block whose amax is below 2^-110 counts as
// zero (scale 0); one with an infinity or a NaN has scale NaN and q 0, so that the outputs become
// NaN.
struct QuantizedRows {
  size_t blocks;      // of a row: k / 32
  int8_t* q;          // [n][k]
  float* scale;       // [n][blocks]
  float* scaled_sum;  // [n][blocks]: scale * the sum of the block's q
  // [n][blocks]: the sums of q over the first and the second 16 steps, as int16 in the low and the
  // high half.
  int32_t* half_sums;
  int32_t* starts;  // [n][blocks]: -128 * the sum of q, where dots with bytes w + 128 start
  // Rests: of row r the first n_rests[r] places of [n][blocks], ascending in rest_block.
  uint32_t* n_rests;     // [n]
  uint32_t* rest_block;  // the rest's block
  int8_t* rest_q;        // 32 each
  float* rest_scale;
  float* rest_scaled_sum;
  int32_t* rest_half_sums;
  int32_t* rest_starts;

  QuantizedRows From(size_t row) const {
    const size_t at = row * blocks;
    return {blocks,          q + at * kActBlock,   scale + at,
            scaled_sum + at, half_sums + at,       starts + at,
            n_rests + row,   rest_block + at,      rest_q + at * kActBlock,
            rest_scale + at, rest_scaled_sum + at, rest_half_sums + at,
            rest_starts + at};
  }
};

inline constexpr float kRestFactor = 4;

struct MatMulKernels {
  // Quantizes 32 * row.blocks floats into the first row of `row`.
  void (*quantize_row)(const float* x, const QuantizedRows& row);
  // out[r * out_stride + 16 g + c] for rows r < n and all groups; null for float kinds.
  void (*fast[kPackedKinds])(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out,
                             size_t out_stride);
  // Float kinds whose fast arithmetic is not the exact one; null for the others.
  void (*fast_float[kPackedKinds])(const PackedGroups& w, const float* x, size_t x_stride, size_t n,
                                   float* out, size_t out_stride);
  // The same from f32 rows, `x_stride` floats apart.
  void (*exact[kPackedKinds])(const PackedGroups& w, const float* x, size_t x_stride, size_t n,
                              float* out, size_t out_stride);
};

}  // namespace kvasir
