// Planes and queries as bf16 pairs.
#include "kernels/simd/pairs_quantized.h"
#include "kernels/simd/pairs_sparse.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

namespace {

// Even and odd elements of 32 floats, rounded to pairs.
inline Pairs Deinterleaved(__m512 low, __m512 high) {
  const __m512i natural = __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(high, low));
  return {_mm512_rol_epi32(natural, 16)};
}

void PairQueries(const float* q, float scale, size_t dim, uint32_t* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (size_t c = 0; c < dim; c += 2 * kPairLanes) {
    const size_t left = dim - c;
    const uint16_t low = LanesAt(c, dim);
    const uint16_t high = left > kPairLanes ? LanesAt(c + kPairLanes, dim) : uint16_t{0};
    const Pairs pairs =
        Deinterleaved(_mm512_mul_ps(_mm512_maskz_loadu_ps(low, q + c), factor),
                      _mm512_mul_ps(_mm512_maskz_loadu_ps(high, q + c + kPairLanes), factor));
    const size_t n = (left + 1) / 2;
    _mm512_mask_storeu_epi32(out + c / 2, LanesAt(0, n), pairs.v);
  }
}

template <typename Keys>
void ExpandK(const uint8_t* plane, PlaneShape shape, const uint8_t* next, uint32_t* out) {
  const Keys keys(plane, shape);
  typename Keys::template Tile<4> tile{keys, 0};
  for (size_t i = 0; i < PairedDim(shape.dim); ++i) {
    keys.template Ahead<4>(next == nullptr ? plane : next, i);
    Pairs k[4];
    tile.Load(i, k);
    KVASIR_UNROLL
    for (int v = 0; v < 4; ++v, out += kPairLanes) Store(k[v], out);
  }
}

// Writes V vectors of pair `i` from channel `c` on; the larger of `largest` and their magnitudes.
template <int V, typename Values>
inline __m512i ExpandVectors(const Values& values, size_t i, size_t c, size_t dim, __m512i largest,
                             uint32_t* out) {
  Pairs x[V];
  LoadVectors(values, i, c, dim, x);
  KVASIR_UNROLL
  for (int v = 0; v < V; ++v) {
    Store(x[v], out + kPairLanes * static_cast<size_t>(v));
    const __m512i magnitude = _mm512_and_si512(x[v].v, _mm512_set1_epi16(0x7fff));
    largest = _mm512_max_epu16(largest, magnitude);
  }
  return largest;
}

template <typename Values>
bool ExpandV(const uint8_t* plane, PlaneShape shape, uint64_t live, uint64_t seen,
             const uint8_t* next, uint32_t* out) {
  const size_t dim = shape.dim, padded = PaddedDim(dim);
  const Values values(plane, shape, live, seen);
  if (next != nullptr) Values::PrefetchRest(next, dim);
  if (next == nullptr) next = plane;
  __m512i largest = _mm512_setzero_si512();
  for (size_t i = 0; i < values.n_pairs; ++i, out += padded) {
    size_t c = 0;
    for (; c + 4 * kPairLanes <= padded; c += 4 * kPairLanes) {
      values.template Ahead<4>(next, c, i);
      largest = ExpandVectors<4>(values, i, c, dim, largest, out + c);
    }
    for (; c < padded; c += kPairLanes) {
      values.template Ahead<1>(next, c, i);
      largest = ExpandVectors<1>(values, i, c, dim, largest, out + c);
    }
  }
  const __m512i infinity = _mm512_set1_epi16(0x7f80);  // NaNs are above
  return _mm512_cmpge_epu16_mask(largest, infinity) == 0;
}

}  // namespace

void FillPairExpand(PairKernels* table) {
  table->pair_queries = PairQueries;
  constexpr int kF32 = static_cast<int>(Codec::kF32), kF16 = static_cast<int>(Codec::kF16);
  constexpr int kBF16 = static_cast<int>(Codec::kBF16);
  constexpr int kSparseF16 = static_cast<int>(Codec::kSparseF16);
  constexpr int kSparseBF16 = static_cast<int>(Codec::kSparseBF16);
  table->expand_k[kF32] = ExpandK<PlaneKeys<PairsF32>>;
  table->expand_k[kF16] = ExpandK<PlaneKeys<PairsF16>>;
  table->expand_k[kBF16] = ExpandK<PlaneKeys<PairsBF16>>;
  table->expand_k[kSparseF16] = ExpandK<SparsePairKeys<SparseF16>>;
  table->expand_k[kSparseBF16] = ExpandK<SparsePairKeys<SparseBF16>>;
  table->expand_v[kF32] = ExpandV<PlaneValues<PairsF32>>;
  table->expand_v[kF16] = ExpandV<PlaneValues<PairsF16>>;
  table->expand_v[kBF16] = ExpandV<PlaneValues<PairsBF16>>;
  table->expand_v[static_cast<int>(Codec::kQ8)] = ExpandV<PairedQ8>;
  table->expand_v[static_cast<int>(Codec::kQ4)] = ExpandV<PairedQ4>;
  table->expand_v[kSparseF16] = ExpandV<SparsePairValues<SparseF16>>;
  table->expand_v[kSparseBF16] = ExpandV<SparsePairValues<SparseBF16>>;
  table->expand_v[static_cast<int>(Codec::kSparseI8)] = ExpandV<SparsePairValues<SparseI8>>;
}

}  // namespace kvasir::KVASIR_SIMD

#endif
