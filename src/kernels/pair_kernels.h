// Attention over operands rounded to bf16, for targets whose dot product takes pairs of them.
//
// A pair is 32 bits: the first of two neighbours in the high half, the second in the low half. One
// dot product adds first * first, then second * second to an f32 sum, each as an FMA (with
// denormals as zeros), so a chain of them over ascending pairs has the bits of one FMA chain over
// ascending single terms, however the terms are paired. Neighbours are channels c, c + 1 of q and K
// and entries next to each other among the live ones of a page in weights and V; a missing second
// is 0.
//
//   queries       [rows][ceil(dim / 2)] pairs, scaled before they are rounded
//   K, expanded   [ceil(dim / 2)][64] pairs
//   V, expanded   [ceil(live / 2)][padded dim] pairs of the live entries only
//   weights       [rows][32] pairs of the live entries, packed to the front
//
// "In place" kernels read a plane as it lies and round on the way (fastest for few rows), the
// others read an expanded one; both give equal bits. Tables are indexed by Codec; null where a
// codec has no such kernel: its planes are first expanded to f32.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/plane.h"

namespace kvasir {

inline constexpr size_t kPairLanes = 16;
constexpr size_t PairedDim(size_t dim) { return (dim + 1) / 2; }
constexpr size_t PaddedDim(size_t dim) { return (dim + kPairLanes - 1) / kPairLanes * kPairLanes; }

struct PairKernels {
  // False: the target has none of these.
  explicit operator bool() const { return scores != nullptr; }

  // out[i] = pairs of q * scale for a row of dim floats.
  void (*pair_queries)(const float* q, float scale, size_t dim, uint32_t* out) = nullptr;
  // A plane as pairs. Of V, entries of `live` that are not in `seen` become zeros; false if a value
  // is not finite after rounding. Here and below `next` is a plane of the same size that will be
  // read soon, prefetched along the way; may be null.
  void (*expand_k[kCodecs])(const uint8_t* plane, PlaneShape shape, const uint8_t* next,
                            uint32_t* out) = {};
  bool (*expand_v[kCodecs])(const uint8_t* plane, PlaneShape shape, uint64_t live, uint64_t seen,
                            const uint8_t* next, uint32_t* out) = {};

  // 64 scores of each of n rows; strides in elements.
  void (*scores)(const uint32_t* q, size_t q_stride, size_t n, const uint32_t* k, size_t dim,
                 float* scores, size_t stride) = nullptr;
  void (*scores_in_place[kCodecs])(const uint32_t* q, size_t q_stride, size_t n,
                                   const uint8_t* plane, PlaneShape shape, const uint8_t* next,
                                   float* scores, size_t stride) = {};

  // 64 scores of each of n rows become the packed weights 2^(score - max[r]) of the entries in
  // `live`, rounded to bf16 (2^x itself with a relative error below 1e-4). What was rounded is
  // added, in units of 2^-22, to the eight integers at sum + 8 r: exact, so in any order.
  void (*weights)(float* scores, size_t stride, size_t n, uint64_t live, const float* max,
                  uint64_t* sum) = nullptr;

  // out[r][c] += sum over `n_pairs` pairs of weights and V; out rows are padded as V is.
  void (*sums)(const uint32_t* p, size_t p_stride, size_t n, const uint32_t* v, size_t n_pairs,
               size_t dim, float* out, size_t out_stride) = nullptr;
  // The same over the entries in `live`, of which those not in `seen` are not read.
  void (*sums_in_place[kCodecs])(const uint32_t* p, size_t p_stride, size_t n, const uint8_t* plane,
                                 PlaneShape shape, uint64_t live, uint64_t seen,
                                 const uint8_t* next, float* out, size_t out_stride) = {};
};

// Units of the sums of weights.
inline constexpr float kPairSumUnit = 1.0f / (1 << 22);

}  // namespace kvasir
