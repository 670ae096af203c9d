// Per-target pieces of the KV codecs and of attention; kernels/attention.h and kv/ are what callers
// use. Tables of function pointers are indexed by Codec.
//
// For every codec an element has one f32 value (q8, sparse i8: f32(q) * f32(scale); q4: that,
// exact, plus f32(min), rounded once; +0 what a sparse plane does not keep), and a kernel of a
// codec gives the bits of the f32 kernel on the expanded plane: callers choose by speed alone.
// Scores of integer keys by integer products are another sum with its own rule (integer_scores).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/pair_kernels.h"
#include "kernels/plane.h"

namespace kvasir {

// View: query rows as 16-bit integers. scale = amax / 32767 of the row, q = x * (32767 / amax)
// rounded to nearest even. A row whose amax is below 2^-110 counts as zero (scale 0); one with an
// infinity or a NaN has scale NaN and q 0, so that its scores are NaN.
struct QuantizedQueries {
  const int16_t* q;    // rows `stride` apart, zeros from dim on
  const float* scale;  // [n]
  const float* sums;   // [n][blocks]: of q over 32 channels, exact
  size_t stride;       // a multiple of 32
  size_t blocks;       // stride / 32
};

struct PlaneKernels {
  // Writes `n` rows of `dim` floats, `stride` floats apart, into slots [slot, slot + n) of a plane.
  // Null for sparse codecs.
  void (*encode_k[kCodecs])(const float* rows, size_t stride, size_t n, size_t dim, size_t slot,
                            uint8_t* plane);
  void (*encode_v[kCodecs])(const float* rows, size_t stride, size_t n, size_t dim, size_t slot,
                            uint8_t* plane);
  // A whole plane as f32: K to [dim][64], V to [64][dim].
  void (*expand_k[kCodecs])(const uint8_t* plane, PlaneShape shape, float* out);
  void (*expand_v[kCodecs])(const uint8_t* plane, PlaneShape shape, float* out);

  // Packs a full dense plane (bf16 for sparse bf16 and i8, f16 for sparse f16) into a sparse one;
  // null for dense codecs. Of each row the shape.keep channels with the largest magnitude of what
  // is stored stay, NaN counting as largest, among equals those of the lowest channels; with
  // `weights` ([dim], not negative) magnitudes are those of f32(|x|) * weight. Values stay as they
  // are; i8 takes scale = amax / 127 rounded upward to f16, q = x / scale rounded to nearest even
  // (0 for a row of zeros), and scale = NaN, q = 0 for a row that holds an infinity or a NaN or
  // whose scale is beyond f16. Returns how many rows those were.
  size_t (*pack_k[kCodecs])(const uint8_t* dense, PlaneShape shape, const float* weights,
                            uint8_t* plane);
  size_t (*pack_v[kCodecs])(const uint8_t* dense, PlaneShape shape, const float* weights,
                            uint8_t* plane);

  // Makes a sparse K plane of rows of others, at most 64 of them, in slots 0, 1, ...: values move
  // as they are. The slots behind become rows of zeros. Null for dense codecs.
  void (*take_k[kCodecs])(const SparseRows* from, size_t n, PlaneShape shape, uint8_t* plane);

  // scores[r * stride + e] = sum over ascending channels c of q[r * q_stride + c] * K[c][e], one
  // FMA chain, for r < n rows and all 64 slots e (dead ones receive anything). `next`: a plane of
  // the same size that will be read soon, prefetched along the way; may be null. Where a codec has
  // none, expand its planes first.
  void (*scores[kCodecs])(const float* q, size_t q_stride, size_t n, const uint8_t* plane,
                          PlaneShape shape, const uint8_t* next, float* scores, size_t stride);
  // Scores of integer keys: the products of 32 channels (sparse i8: of all) are summed in integers,
  // exactly, and join the chain of the score in ascending order of blocks b,
  //   s = MulAdd(float(dot of q and the keys' integers), scale[b][e], s)
  //   s = MulAdd(min[b][e], sums[b], s)    q4 alone
  // and the score is s * (the row's scale).
  void (*integer_scores[kCodecs])(const QuantizedQueries& q, size_t n, const uint8_t* plane,
                                  PlaneShape shape, const uint8_t* next, float* scores,
                                  size_t stride);
  // One row of QuantizedQueries.
  void (*quantize_query)(const float* q, size_t dim, int16_t* out, float* sums, float* scale);
  // out[r * out_stride + c] += sum over ascending slots e in [begin, end) of p[r * p_stride + e] *
  // V[e][c], one FMA chain per element starting from out; slots whose bit in `live` is clear are
  // not read. out rows are padded to 8 floats. Where a codec has none, expand its planes first.
  void (*weighted_sum[kCodecs])(const float* p, size_t p_stride, size_t n, const uint8_t* plane,
                                PlaneShape shape, size_t begin, size_t end, uint64_t live,
                                const uint8_t* next, float* out, size_t out_stride);

  // Softmax over rows of scores in base 2.
  // 64 scores of each of n rows: those whose bit in visible[r] is clear become -infinity (visible
  // null: all count), and the sixteen floats at max + 16 r take the largest of lane e mod 16 seen
  // so far. NaN never counts.
  void (*mask_max)(float* scores, size_t stride, size_t n, const uint64_t* visible, float* max);
  // scores[r][e] = 2^(scores[r][e] - max[r]) for e < slots (a multiple of 8), and sum[r] += each of
  // them, entry after entry. A weight of 0 leaves the sum's bits alone, so masked entries do not
  // count.
  void (*exp_weights)(float* scores, size_t stride, size_t n, size_t slots, const float* max,
                      float* sum);
  // Adds the softmax record of a part to a running one: n records `stride` floats apart, each
  // [max, sum, 6 unused, dim channels, a multiple of 8]. A record with max -infinity is empty.
  void (*merge)(float* to, const float* part, size_t n, size_t stride, size_t dim);

  // Key geometry, on a K plane expanded to f32 [dim][64] (for policies that score keys):
  // inverse norms of the 64 keys, 0 for a zero key; `live` clear gives 0.
  void (*key_inverse_norms)(const float* k, size_t dim, uint64_t live, float* inverse);
  // anchor[c] += sum over the live slots, ascending, of k[c][e] * weight[e].
  void (*key_weighted_sum)(const float* k, size_t dim, const float* weight, uint64_t live,
                           float* anchor);
  // dots[e] = sum over ascending channels of k[c][e] * x[c], all 64 slots.
  void (*key_dots)(const float* k, size_t dim, const float* x, float* dots);

  PairKernels pairs;
};

}  // namespace kvasir
