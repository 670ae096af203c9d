// Weights of the softmax as bf16 pairs, and their exact sums.
#include "kernels/simd/pairs.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

namespace {

// 2^x for x <= 0 and -infinity. 2^x = 2^n * 2^f, f = x - floor(x) in [0, 1), by the polynomial of
// degree 3 with the least relative error (8.6e-5) among those that are 1 at 0 (Lawson's iteration
// on 4,001 points): a fortieth of what rounding to bf16 may add.
inline __m512 WeightOf(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.07706719636917114f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22764481604099274f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6951168179512024f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);  // which takes floor(x)
}

// Integers whose sum over multiples of four terms is that of w in units of 2^-22, modulo 2^32: for
// w in [0, 1] those are the low bits of 2 + w, and four times the bits of 2.0 are 2^32.
inline __m512i Units(__m512 w) {
  return _mm512_castps_si512(_mm512_add_ps(w, _mm512_set1_ps(2.0f)));
}

// Weights of 32 slots in the order of the slots; their sums go to `units`.
inline __m512i Weights32(const float* scores, __m512 max, __m512i* units) {
  const __m512 low = WeightOf(_mm512_sub_ps(_mm512_loadu_ps(scores), max));
  const __m512 high = WeightOf(_mm512_sub_ps(_mm512_loadu_ps(scores + 16), max));
  const __m512i words = __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(high, low));
  const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
  const __m512 odd =
      _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
  *units = _mm512_add_epi32(*units, _mm512_add_epi32(Units(even), Units(odd)));
  return words;
}

void Weights(float* scores, size_t stride, size_t n, uint64_t live, const float* max,
             uint64_t* sum) {
  const __m512i low_half = _mm512_set1_epi64(0xffffffff);
  for (size_t r = 0; r < n; ++r, scores += stride, sum += 8) {
    const __m512 shift = _mm512_set1_ps(max[r]);
    __m512i units = _mm512_setzero_si512();
    __m512i a = Weights32(scores, shift, &units);
    __m512i b = Weights32(scores + 32, shift, &units);
    __m512i total = _mm512_loadu_si512(sum);
    total = _mm512_add_epi64(total, _mm512_and_si512(units, low_half));
    total = _mm512_add_epi64(total, _mm512_srli_epi64(units, 32));
    _mm512_storeu_si512(sum, total);
    if (live != ~uint64_t{0}) {  // live ones to the front, zeros behind
      const auto low = static_cast<uint32_t>(live), high = static_cast<uint32_t>(live >> 32);
      uint16_t packed[2 * kPageEntries];
      const int n_low = __builtin_popcount(low);
      _mm512_storeu_si512(packed, _mm512_maskz_compress_epi16(low, a));
      _mm512_storeu_si512(packed + n_low, _mm512_maskz_compress_epi16(high, b));
      _mm512_storeu_si512(packed + n_low + 32, _mm512_setzero_si512());
      a = _mm512_loadu_si512(packed);
      b = _mm512_loadu_si512(packed + 32);
    }
    _mm512_storeu_si512(scores, _mm512_rol_epi32(a, 16));  // the earlier entry into the high half
    _mm512_storeu_si512(scores + 16, _mm512_rol_epi32(b, 16));
  }
}

}  // namespace

void FillPairWeights(PairKernels* table) { table->weights = Weights; }

}  // namespace kvasir::KVASIR_SIMD

#endif
