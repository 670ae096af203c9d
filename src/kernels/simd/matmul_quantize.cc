// Activations to int8, 32 at a time. All targets give the same bits: one product and one rounding
// each. A target provides LargestBits(), ToBytes() and SumsOfBytes() of a block.
#include "kernels/simd/matmul.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Below it 127 / amax would overflow.
constexpr float kSmallestAmax = 7.7037197775489434e-34f;  // 2^-110

struct Scaling {
  float scale, inverse;
};

// From the bits of the largest magnitude: as integers they order like the floats, with NaN on top.
inline Scaling ScalingOf(uint32_t amax_bits) {
  if (amax_bits >= 0x7f800000) return {__builtin_nanf(""), 0.0f};
  float amax;
  memcpy(&amax, &amax_bits, sizeof(amax));
  if (amax < kSmallestAmax) return {0.0f, 0.0f};
  return {amax / 127.0f, 127.0f / amax};
}

inline int32_t Pack(int32_t first, int32_t second) {
  return static_cast<int32_t>((static_cast<uint32_t>(first) & 0xffff) |
                              static_cast<uint32_t>(second) << 16);
}

struct HalfSums {
  int32_t first, second;
};

#if defined(KVASIR_X86)

inline uint32_t LargestLane(__m256i v) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

inline HalfSums SumsOfBytes(const int8_t* q) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  __m256i s = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
  return {_mm_cvtsi128_si32(_mm256_castsi256_si128(s)),
          _mm_cvtsi128_si32(_mm256_extracti128_si256(s, 1))};
}

#endif

#if defined(KVASIR_TARGET_AVX512)

inline uint32_t LargestBits(const float* x) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const auto bits = [&](const float* p) {
    return _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(p)), magnitude);
  };
  const __m512i largest = _mm512_max_epi32(bits(x), bits(x + 16));
  return LargestLane(
      _mm256_max_epi32(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1)));
}

inline void ToBytes(const float* x, float inverse, int8_t* q) {
  for (size_t i = 0; i < kActBlock; i += 16) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i),
                     _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(scaled)));
  }
}

#elif defined(KVASIR_TARGET_AVX2)

inline uint32_t LargestBits(const float* x) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (size_t i = 0; i < kActBlock; i += 8) {
    const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, magnitude));
  }
  return LargestLane(largest);
}

inline void ToBytes(const float* x, float inverse, int8_t* q) {
  __m256i i32[4];
  for (int i = 0; i < 4; ++i) {
    i32[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse)));
  }
  // The packs work within halves: dwords come out as 0 2 4 6 of each half and are put in order.
  const __m256i bytes =
      _mm256_packs_epi16(_mm256_packs_epi32(i32[0], i32[1]), _mm256_packs_epi32(i32[2], i32[3]));
  _mm256_storeu_si256(
      reinterpret_cast<__m256i*>(q),
      _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

#else

inline uint32_t LargestBits(const float* x) {
  uint32_t largest = 0;
  for (size_t i = 0; i < kActBlock; ++i) {
    uint32_t bits;
    memcpy(&bits, x + i, sizeof(bits));
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

inline void ToBytes(const float* x, float inverse, int8_t* q) {
  const float magic = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer
  for (size_t i = 0; i < kActBlock; ++i) {
    q[i] = static_cast<int8_t>((x[i] * inverse + magic) - magic);
  }
}

inline HalfSums SumsOfBytes(const int8_t* q) {
  HalfSums sums = {0, 0};
  for (size_t i = 0; i < kActBlock / 2; ++i) {
    sums.first += q[i];
    sums.second += q[i + kActBlock / 2];
  }
  return sums;
}

#endif

// Returns the scale.
inline float QuantizeWith(Scaling s, const float* x, int8_t* q, float* scaled_sum,
                          int32_t* half_sums) {
  if (s.inverse != 0.0f) {
    ToBytes(x, s.inverse, q);
  } else {
    memset(q, 0, kActBlock);
  }
  const HalfSums sums = SumsOfBytes(q);
  *scaled_sum = s.scale * static_cast<float>(sums.first + sums.second);
  *half_sums = Pack(sums.first, sums.second);
  return s.scale;
}

inline float QuantizeBlock(const float* x, int8_t* q, float* scaled_sum, int32_t* half_sums) {
  return QuantizeWith(ScalingOf(LargestBits(x)), x, q, scaled_sum, half_sums);
}

#if defined(KVASIR_TARGET_AVX512)

// Sixteen blocks at a time, whose two divisions are one vector each: ScalingOf in lanes.
void QuantizeBlocks(const float* x, const QuantizedRows& row) {
  for (size_t first = 0; first < row.blocks; first += 16) {
    const size_t n = row.blocks - first < 16 ? row.blocks - first : 16;
    alignas(64) uint32_t bits[16] = {};
    alignas(64) float scale[16], inverse[16];
    for (size_t i = 0; i < n; ++i) bits[i] = LargestBits(x + (first + i) * kActBlock);
    const __m512i amax_bits = _mm512_load_si512(bits);
    const __m512 amax = _mm512_castsi512_ps(amax_bits), steps = _mm512_set1_ps(127.0f);
    const __mmask16 finite = _mm512_cmplt_epu32_mask(amax_bits, _mm512_set1_epi32(0x7f800000));
    const __mmask16 counts =
        finite & _mm512_cmp_ps_mask(amax, _mm512_set1_ps(kSmallestAmax), _CMP_GE_OQ);
    _mm512_store_ps(scale, _mm512_mask_mov_ps(_mm512_maskz_div_ps(counts, amax, steps),
                                              static_cast<__mmask16>(~finite),
                                              _mm512_set1_ps(__builtin_nanf(""))));
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(counts, steps, amax));
    for (size_t i = 0; i < n; ++i) {
      const size_t b = first + i;
      row.scale[b] = QuantizeWith({scale[i], inverse[i]}, x + b * kActBlock, row.q + b * kActBlock,
                                  row.scaled_sum + b, row.half_sums + b);
    }
  }
}

#else

void QuantizeBlocks(const float* x, const QuantizedRows& row) {
  for (size_t b = 0; b < row.blocks; ++b) {
    row.scale[b] = QuantizeBlock(x + b * kActBlock, row.q + b * kActBlock, row.scaled_sum + b,
                                 row.half_sums + b);
  }
}

#endif

// The sum of the squares of n floats, in a fixed order.
inline float SumOfSquares(const float* x, size_t n) {
  F32 sum = Zero();
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = Add(sum, Mul(Load(x + i), Load(x + i)));
  if (i < n) {
    float last[kLanes] = {};
    memcpy(last, x + i, (n - i) * sizeof(float));
    sum = Add(sum, Mul(Load(last), Load(last)));
  }
  return SumOfLanes(sum);
}

}  // namespace

void QuantizeRow(const float* x, const QuantizedRows& row) {
  QuantizeBlocks(x, row);
  const float most =
      kRestFactor * SumOfSquares(row.scale, row.blocks) / static_cast<float>(row.blocks);
  uint32_t n = 0;
  for (size_t b = 0; b < row.blocks; ++b) {
    const float scale = row.scale[b];
    if (!(scale * scale > most)) continue;
    float rest[kActBlock];
    for (size_t i = 0; i < kActBlock; i += kLanes) {
      const size_t k = b * kActBlock + i;
      Store(Sub(Load(x + k), Mul(LoadI8(row.q + k), Set(scale))), rest + i);
    }
    row.rest_block[n] = static_cast<uint32_t>(b);
    row.rest_scale[n] = QuantizeBlock(rest, row.rest_q + n * kActBlock, row.rest_scaled_sum + n,
                                      row.rest_half_sums + n);
    ++n;
  }
  *row.n_rests = n;
}

}  // namespace kvasir::KVASIR_SIMD
