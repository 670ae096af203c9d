// Planes and queries as bf16 pairs.
#include "kernels/simd/pairs_quantized.h"

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

// Prefetches what pair `i` of rows covers in the next plane, if there is one.
template <size_t kBits>
inline void PrefetchPair(const uint8_t* next, size_t i, size_t row) {
  if (next == nullptr) return;
  const size_t bytes = 2 * row * kBits / 8;
  for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + i * bytes + b);
}

template <typename E>
void ExpandK(const uint8_t* plane, PlaneShape shape, const uint8_t* next, uint32_t* out) {
  const size_t dim = shape.dim;
  const PlaneKeys<E> keys(plane, dim);
  for (size_t i = 0; i < PairedDim(dim); ++i) {
    PrefetchPair<8 * sizeof(typename E::T)>(next, i, kPageEntries);
    KVASIR_UNROLL
    for (size_t e = 0; e < kPageEntries; e += kPairLanes) {
      Store(keys.Load(i, e), out + i * kPageEntries + e);
    }
  }
}

template <typename Values>
bool ExpandV(const uint8_t* plane, PlaneShape shape, uint64_t live, uint64_t seen,
             const uint8_t* next, uint32_t* out) {
  const size_t dim = shape.dim;
  const Values values(plane, dim, live, seen);
  if (next != nullptr) Values::PrefetchRest(next, dim);
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i largest = _mm512_setzero_si512();
  const auto put = [&](Pairs pairs) {
    Store(pairs, out);
    out += kPairLanes;
    largest = _mm512_max_epu16(largest, _mm512_and_si512(pairs.v, magnitude));
  };
  for (size_t i = 0; i < values.n_pairs; ++i) {
    PrefetchPair<Values::kBits>(next, i, dim);
    size_t c = 0;
    for (; c + kPairLanes <= dim; c += kPairLanes) put(values.Load(i, c, 0, kAllLanes));
    if (c < dim) put(values.Load(i, c, 0, LanesAt(c, dim)));
  }
  const __m512i infinity = _mm512_set1_epi16(0x7f80);  // NaNs are above
  return _mm512_cmpge_epu16_mask(largest, infinity) == 0;
}

}  // namespace

void FillPairExpand(PairKernels* table) {
  table->pair_queries = PairQueries;
  constexpr int kF32 = static_cast<int>(Codec::kF32), kF16 = static_cast<int>(Codec::kF16);
  constexpr int kBF16 = static_cast<int>(Codec::kBF16);
  table->expand_k[kF32] = ExpandK<PairsF32>;
  table->expand_k[kF16] = ExpandK<PairsF16>;
  table->expand_k[kBF16] = ExpandK<PairsBF16>;
  table->expand_v[kF32] = ExpandV<PlaneValues<PairsF32>>;
  table->expand_v[kF16] = ExpandV<PlaneValues<PairsF16>>;
  table->expand_v[kBF16] = ExpandV<PlaneValues<PairsBF16>>;
  table->expand_v[static_cast<int>(Codec::kQ8)] = ExpandV<PairedQ8>;
  table->expand_v[static_cast<int>(Codec::kQ4)] = ExpandV<PairedQ4>;
}

}  // namespace kvasir::KVASIR_SIMD

#endif
