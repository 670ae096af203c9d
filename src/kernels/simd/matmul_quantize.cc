// Activations to int8, 32 at a time. All targets give the same bits: one product and one rounding
// each. A target quantizes kBlocksAtOnce blocks at a time.
#include "kernels/simd/matmul.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Below it 127 / amax would overflow.
constexpr float kSmallestAmax = 7.7037197775489434e-34f;  // 2^-110

// Where the results of consecutive blocks go.
struct Quantized {
  int8_t* q;
  float* scale;
  float* scaled_sum;
  int32_t* half_sums;
  int32_t* starts;
};

#if defined(KVASIR_TARGET_AVX512)

constexpr size_t kBlocksAtOnce = 16;

// Lane i is the largest of the lanes of v[i].
inline __m512i LargestLanes(__m512i (&v)[16]) {
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; ++i) {
    v[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(v[i], v[i + 8], 0x44),
                            _mm512_shuffle_i32x4(v[i], v[i + 8], 0xee));
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; ++i) {
    v[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(v[i], v[i + 4], 0x88),
                            _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd));
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 2; ++i) {
    v[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(v[i], v[i + 2]),
                            _mm512_unpackhi_epi64(v[i], v[i + 2]));
  }
  const __m512 a = _mm512_castsi512_ps(v[0]), b = _mm512_castsi512_ps(v[1]);
  const __m512i last = _mm512_max_epi32(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                                        _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  return _mm512_permutexvar_epi32(order, last);
}

// The half sums of sixteen blocks from the sums of four bytes each, two blocks to a vector.
inline __m512i HalfSumsOf(const __m512i (&fours)[8]) {
  const __m512i ones = _mm512_set1_epi16(1);
  const auto halve = [&](__m512i a, __m512i b) {
    return _mm512_madd_epi16(_mm512_packs_epi32(a, b), ones);
  };
  const __m512i low = halve(halve(fours[0], fours[1]), halve(fours[2], fours[3]));
  const __m512i high = halve(halve(fours[4], fours[5]), halve(fours[6], fours[7]));
  // Quarter l of the pack has half l % 2 of blocks 2 j + l / 2 for j < 8.
  const __m512i order = _mm512_set_epi16(31, 23, 15, 7, 30, 22, 14, 6, 29, 21, 13, 5, 28, 20, 12, 4,
                                         27, 19, 11, 3, 26, 18, 10, 2, 25, 17, 9, 1, 24, 16, 8, 0);
  return _mm512_permutexvar_epi16(order, _mm512_packs_epi32(low, high));
}

// Up to sixteen blocks: what is said of one block of 32 floats in QuantizedRows, a lane for each.
inline void QuantizeSome(const float* x, size_t n, const Quantized& out) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest[kBlocksAtOnce];
  for (size_t i = 0; i < kBlocksAtOnce; ++i) {
    if (i >= n) {
      largest[i] = _mm512_setzero_si512();
      continue;
    }
    const float* block = x + i * kActBlock;
    const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(block), magnitude);
    largest[i] =
        _mm512_max_epi32(bits, _mm512_and_si512(_mm512_loadu_si512(block + 16), magnitude));
  }
  // As integers, magnitudes order like the floats, with NaN on top.
  const __m512i amax_bits = LargestLanes(largest);
  const __m512 amax = _mm512_castsi512_ps(amax_bits), steps = _mm512_set1_ps(127.0f);
  const __mmask16 wild = _mm512_cmpge_epu32_mask(amax_bits, _mm512_set1_epi32(0x7f800000));
  const __mmask16 counts =
      _mm512_cmp_ps_mask(amax, _mm512_set1_ps(kSmallestAmax), _CMP_GE_OQ) & ~wild;
  const __m512 scale = _mm512_mask_mov_ps(_mm512_maskz_div_ps(counts, amax, steps), wild,
                                          _mm512_set1_ps(__builtin_nanf("")));
  alignas(64) float inverse[kBlocksAtOnce];
  _mm512_store_ps(inverse, _mm512_maskz_div_ps(counts, steps, amax));

  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i fours[kBlocksAtOnce / 2];
  for (size_t i = 0; i < kBlocksAtOnce; i += 2) {
    if (i >= n) {
      fours[i / 2] = _mm512_setzero_si512();
      continue;
    }
    const bool both = i + 1 < n;
    const auto words = [&](size_t block) {
      const float* p = x + block * kActBlock;
      const __m512 factor = _mm512_set1_ps(inverse[block]);
      return _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(p), factor)),
                                _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(p + 16), factor)));
    };
    const __m512i bytes = _mm512_permutexvar_epi32(
        order, _mm512_packs_epi16(words(i), both ? words(i + 1) : _mm512_setzero_si512()));
    int8_t* q = out.q + i * kActBlock;
    if (both) {
      _mm512_storeu_si512(q, bytes);
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm512_castsi512_si256(bytes));
    }
    fours[i / 2] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
  }
  const __m512i half_sums = HalfSumsOf(fours);
  const __m512i sum = _mm512_madd_epi16(half_sums, _mm512_set1_epi16(1));
  const auto used = static_cast<__mmask16>((1u << n) - 1);
  _mm512_mask_storeu_ps(out.scale, used, scale);
  _mm512_mask_storeu_ps(out.scaled_sum, used, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
  _mm512_mask_storeu_epi32(out.half_sums, used, half_sums);
  _mm512_mask_storeu_epi32(out.starts, used, _mm512_madd_epi16(half_sums, _mm512_set1_epi16(-128)));
  for (uint32_t left = wild; left != 0; left &= left - 1) {
    const auto i = static_cast<size_t>(__builtin_ctz(left));
    memset(out.q + i * kActBlock, 0, kActBlock);
    out.half_sums[i] = 0;
    out.starts[i] = 0;
  }
}

#else

constexpr size_t kBlocksAtOnce = 1;

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

#if defined(KVASIR_TARGET_AVX2)

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

inline void QuantizeSome(const float* x, size_t, const Quantized& out) {
  const Scaling s = ScalingOf(LargestBits(x));
  if (s.inverse != 0.0f) {
    ToBytes(x, s.inverse, out.q);
  } else {
    memset(out.q, 0, kActBlock);
  }
  const HalfSums sums = SumsOfBytes(out.q);
  *out.scale = s.scale;
  *out.scaled_sum = s.scale * static_cast<float>(sums.first + sums.second);
  *out.half_sums = Pack(sums.first, sums.second);
  *out.starts = -128 * (sums.first + sums.second);
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
  for (size_t b = 0; b < row.blocks; b += kBlocksAtOnce) {
    const size_t n = row.blocks - b < kBlocksAtOnce ? row.blocks - b : kBlocksAtOnce;
    QuantizeSome(x + b * kActBlock, n,
                 {row.q + b * kActBlock, row.scale + b, row.scaled_sum + b, row.half_sums + b,
                  row.starts + b});
  }
  const float most =
      kRestFactor * SumOfSquares(row.scale, row.blocks) / static_cast<float>(row.blocks);
  float rests[kBlocksAtOnce * kActBlock];
  uint32_t n = 0, done = 0;
  const auto quantize_rests = [&] {
    QuantizeSome(rests, n - done,
                 {row.rest_q + done * kActBlock, row.rest_scale + done, row.rest_scaled_sum + done,
                  row.rest_half_sums + done, row.rest_starts + done});
    done = n;
  };
  for (size_t b = 0; b < row.blocks; ++b) {
    const float scale = row.scale[b];
    if (!(scale * scale > most)) continue;
    float* rest = rests + (n - done) * kActBlock;
    for (size_t i = 0; i < kActBlock; i += kLanes) {
      const size_t k = b * kActBlock + i;
      Store(Sub(Load(x + k), Mul(LoadI8(row.q + k), Set(scale))), rest + i);
    }
    row.rest_block[n++] = static_cast<uint32_t>(b);
    if (n - done == kBlocksAtOnce) quantize_rests();
  }
  if (n > done) quantize_rests();
  *row.n_rests = n;
}

}  // namespace kvasir::KVASIR_SIMD
