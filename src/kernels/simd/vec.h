// F32: eight floats. The few operations kernels are written in, one implementation per target.
//
// On every target a lane-wise operation rounds once per lane; MulAdd is fused on AVX2 and two
// roundings on the portable target, so bits agree within a target, not across targets.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/simd/target.h"

#if defined(KVASIR_X86)
#include <immintrin.h>
#endif

namespace kvasir::KVASIR_SIMD {

inline constexpr size_t kLanes = 8;

#if defined(KVASIR_X86)

struct F32 {
  __m256 v;
};
inline F32 Zero() { return {_mm256_setzero_ps()}; }
inline F32 Set(float x) { return {_mm256_set1_ps(x)}; }
inline F32 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void Store(F32 a, float* p) { _mm256_storeu_ps(p, a.v); }
inline F32 Add(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32 Sub(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32 Mul(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32 Div(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F32 Max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F32 Min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F32 MulAdd(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline float MulAdd1(float a, float b, float c) {
  return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
}
inline F32 Round(F32 a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2^n for integral n in [-126, 127].
inline F32 PowerOfTwo(F32 n) {
  const __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(i, 23))};
}
inline F32 LoadF16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline F32 LoadBF16(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
inline F32 LoadI8(const int8_t* p) {
  return {_mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
inline void StoreF16(F32 a, uint16_t* p) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F32 Abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline F32 Sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
// Round to nearest even; NaN stays NaN (quiet, top payload bits kept).
inline void StoreBF16(F32 a, uint16_t* p) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  const __m256i value = _mm256_blendv_epi8(rounded, quiet, nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(value, value), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
// Eight lanes, each in [-127, 127], rounded to nearest even.
inline void StoreI8(F32 a, int8_t* p) {
  const __m256i wide = _mm256_cvtps_epi32(a.v);
  const __m128i half =
      _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(half, half));
}
// Lanes whose bit in `bits` is set come from a, the others from b.
inline F32 Select(uint8_t bits, F32 a, F32 b) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), bit), bit);
  return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(on))};
}
// t[i] lane j becomes t[j] lane i.
inline void Transpose8(F32 (&t)[8]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(t[2 * i].v, t[2 * i + 1].v);
    a[2 * i + 1] = _mm256_unpackhi_ps(t[2 * i].v, t[2 * i + 1].v);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
    b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    t[i + 4].v = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

// Eight unsigned 32-bit integers: bit fields of packed weights.
struct U32 {
  __m256i v;
};
inline U32 LoadU32(const uint8_t* p) {  // little-endian
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline U32 LoadU8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
inline U32 LoadU16(const uint8_t* p) {  // little-endian
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline U32 LoadNibbles(const uint8_t* p) {  // of four bytes, the low half first
  int32_t bytes;
  memcpy(&bytes, p, sizeof(bytes));
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  const __m256i field = _mm256_srlv_epi32(_mm256_set1_epi32(bytes), shifts);
  return {_mm256_and_si256(field, _mm256_set1_epi32(15))};
}
inline U32 Or(U32 a, U32 b) { return {_mm256_or_si256(a.v, b.v)}; }
// Bits [shift, shift + width) of every lane.
inline U32 Field(U32 a, int shift, int width) {
  return {_mm256_and_si256(_mm256_srli_epi32(a.v, shift), _mm256_set1_epi32((1 << width) - 1))};
}
inline U32 ShiftLeft(U32 a, int shift) { return {_mm256_slli_epi32(a.v, shift)}; }
inline U32 SetU32(uint32_t x) { return {_mm256_set1_epi32(static_cast<int32_t>(x))}; }
inline void StoreU32(U32 a, uint32_t* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}
inline U32 And(U32 a, U32 b) { return {_mm256_and_si256(a.v, b.v)}; }
inline U32 AndNot(U32 a, U32 b) { return {_mm256_andnot_si256(a.v, b.v)}; }  // ~a & b
inline U32 Sub(U32 a, U32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
// Ones in the lanes where a > b; both below 2^31.
inline U32 Greater(U32 a, U32 b) { return {_mm256_cmpgt_epi32(a.v, b.v)}; }
inline uint8_t TopBits(U32 a) {
  return static_cast<uint8_t>(_mm256_movemask_ps(_mm256_castsi256_ps(a.v)));
}
inline F32 AsF32(U32 bits) { return {_mm256_castsi256_ps(bits.v)}; }
inline U32 AsU32(F32 a) { return {_mm256_castps_si256(a.v)}; }
inline F32 ToF32(U32 a) { return {_mm256_cvtepi32_ps(a.v)}; }  // of the bits as a signed integer
inline F32 Lookup(const float* table, U32 index) {
  return {_mm256_i32gather_ps(table, index.v, 4)};
}

#else  // portable: loops over eight lanes, vectorized by the compiler where it can

struct F32 {
  float v[kLanes];
};
#define KVASIR_LANES(expression)        \
  F32 r;                                \
  for (size_t i = 0; i < kLanes; ++i) { \
    r.v[i] = (expression);              \
  }                                     \
  return r
inline F32 Zero() { KVASIR_LANES(0.0f); }
inline F32 Set(float x) { KVASIR_LANES(x); }
inline F32 Load(const float* p) { KVASIR_LANES(p[i]); }
inline void Store(F32 a, float* p) { memcpy(p, a.v, sizeof(a.v)); }
inline F32 Add(F32 a, F32 b) { KVASIR_LANES(a.v[i] + b.v[i]); }
inline F32 Sub(F32 a, F32 b) { KVASIR_LANES(a.v[i] - b.v[i]); }
inline F32 Mul(F32 a, F32 b) { KVASIR_LANES(a.v[i] * b.v[i]); }
inline F32 Div(F32 a, F32 b) { KVASIR_LANES(a.v[i] / b.v[i]); }
inline F32 Max(F32 a, F32 b) { KVASIR_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F32 Min(F32 a, F32 b) { KVASIR_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline float MulAdd1(float a, float b, float c) { return a * b + c; }
inline F32 MulAdd(F32 a, F32 b, F32 c) { KVASIR_LANES(a.v[i] * b.v[i] + c.v[i]); }
inline F32 Round(F32 a) {  // to nearest even, for |a| < 2^22
  const float magic = 12582912.0f;
  KVASIR_LANES((a.v[i] + magic) - magic);
}
inline F32 PowerOfTwo(F32 n) {
  F32 r;
  for (size_t i = 0; i < kLanes; ++i) {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23;
    memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
inline float HalfToFloat(uint16_t h) {  // without branches, so that loops over it vectorize
  uint32_t bits = static_cast<uint32_t>(h & 0x7fff) << 13;
  float value;
  memcpy(&value, &bits, 4);
  value *= 5.192296858534828e33f;  // 2^112: the exponent's bias; subnormals become exact as well
  memcpy(&bits, &value, 4);
  bits |= (h & 0x7fff) >= 0x7c00 ? 0x7f800000u : 0u;  // infinity, NaN
  bits |= static_cast<uint32_t>(h & 0x8000) << 16;
  memcpy(&value, &bits, 4);
  return value;
}
inline uint16_t FloatToHalf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) {
    return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  }
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    float shifted;
    memcpy(&shifted, &magnitude, 4);
    shifted += 0.5f;
    uint32_t shifted_bits;
    memcpy(&shifted_bits, &shifted, 4);
    return static_cast<uint16_t>(sign | (shifted_bits - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}
inline float Brain16ToFloat(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline F32 LoadF16(const uint16_t* p) { KVASIR_LANES(HalfToFloat(p[i])); }
inline F32 LoadBF16(const uint16_t* p) { KVASIR_LANES(Brain16ToFloat(p[i])); }
inline F32 LoadI8(const int8_t* p) { KVASIR_LANES(static_cast<float>(p[i])); }
inline void StoreF16(F32 a, uint16_t* p) {
  for (size_t i = 0; i < kLanes; ++i) p[i] = FloatToHalf(a.v[i]);
}
inline F32 Abs(F32 a) { KVASIR_LANES(__builtin_fabsf(a.v[i])); }
inline F32 Sqrt(F32 a) { KVASIR_LANES(__builtin_sqrtf(a.v[i])); }
inline uint16_t FloatToBrain16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void StoreBF16(F32 a, uint16_t* p) {
  for (size_t i = 0; i < kLanes; ++i) p[i] = FloatToBrain16(a.v[i]);
}
inline void StoreI8(F32 a, int8_t* p) {
  const F32 r = Round(a);
  for (size_t i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(r.v[i]);
}
inline F32 Select(uint8_t bits, F32 a, F32 b) { KVASIR_LANES(bits >> i & 1 ? a.v[i] : b.v[i]); }
inline void Transpose8(F32 (&t)[8]) {
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < i; ++j) {
      const float x = t[i].v[j];
      t[i].v[j] = t[j].v[i];
      t[j].v[i] = x;
    }
  }
}

struct U32 {
  uint32_t v[kLanes];
};
inline U32 LoadU32(const uint8_t* p) {
  U32 r;
  for (size_t i = 0; i < kLanes; ++i) {
    r.v[i] = static_cast<uint32_t>(p[4 * i]) | static_cast<uint32_t>(p[4 * i + 1]) << 8 |
             static_cast<uint32_t>(p[4 * i + 2]) << 16 | static_cast<uint32_t>(p[4 * i + 3]) << 24;
  }
  return r;
}
inline U32 LoadU8(const uint8_t* p) {
  U32 r;
  for (size_t i = 0; i < kLanes; ++i) r.v[i] = p[i];
  return r;
}
inline U32 LoadU16(const uint8_t* p) {
  U32 r;
  for (size_t i = 0; i < kLanes; ++i) {
    r.v[i] = static_cast<uint32_t>(p[2 * i]) | static_cast<uint32_t>(p[2 * i + 1]) << 8;
  }
  return r;
}
inline U32 LoadNibbles(const uint8_t* p) {
  U32 r;
  for (size_t i = 0; i < kLanes; ++i) r.v[i] = static_cast<uint32_t>(p[i / 2]) >> 4 * (i % 2) & 15;
  return r;
}
inline U32 Or(U32 a, U32 b) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] |= b.v[i];
  return a;
}
inline U32 Field(U32 a, int shift, int width) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] = (a.v[i] >> shift) & ((1u << width) - 1);
  return a;
}
inline U32 ShiftLeft(U32 a, int shift) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] <<= shift;
  return a;
}
inline U32 SetU32(uint32_t x) {
  U32 r;
  for (size_t i = 0; i < kLanes; ++i) r.v[i] = x;
  return r;
}
inline void StoreU32(U32 a, uint32_t* p) { memcpy(p, a.v, sizeof(a.v)); }
inline U32 And(U32 a, U32 b) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] &= b.v[i];
  return a;
}
inline U32 AndNot(U32 a, U32 b) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] = ~a.v[i] & b.v[i];
  return a;
}
inline U32 Sub(U32 a, U32 b) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] -= b.v[i];
  return a;
}
inline U32 Greater(U32 a, U32 b) {
  for (size_t i = 0; i < kLanes; ++i) a.v[i] = a.v[i] > b.v[i] ? ~uint32_t{0} : 0;
  return a;
}
inline uint8_t TopBits(U32 a) {
  uint32_t bits = 0;
  for (size_t i = 0; i < kLanes; ++i) bits |= a.v[i] >> 31 << i;
  return static_cast<uint8_t>(bits);
}
inline F32 AsF32(U32 bits) {
  F32 r;
  memcpy(r.v, bits.v, sizeof(r.v));
  return r;
}
inline U32 AsU32(F32 a) {
  U32 r;
  memcpy(r.v, a.v, sizeof(r.v));
  return r;
}
inline F32 ToF32(U32 a) { KVASIR_LANES(static_cast<float>(static_cast<int32_t>(a.v[i]))); }
inline F32 Lookup(const float* table, U32 index) { KVASIR_LANES(table[index.v[i]]); }
#undef KVASIR_LANES

#endif

// Sum of the lanes in a fixed tree: ((0+4)+(2+6)) + ((1+5)+(3+7)).
inline float SumOfLanes(F32 a) {
  float x[kLanes];
  Store(a, x);
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}
inline float MaxOfLanes(F32 a) {
  float x[kLanes];
  Store(a, x);
  float m = x[0];
  for (size_t i = 1; i < kLanes; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

// 2^x for x <= 0 (softmax weights) or any |x| < 126; below -126 the result is 0. Relative error <
// 2e-7: x = n + f with |f| <= 1/2, and 2^f by its Taylor polynomial of degree 7.
inline F32 Exp2(F32 x) {
  const F32 clamped = Max(x, Set(-126.0f));
  const F32 n = Round(clamped);
  const F32 f = Sub(clamped, n);
  F32 p = Set(1.5252733804059841e-5f);
  p = MulAdd(p, f, Set(1.5403530393381608e-4f));
  p = MulAdd(p, f, Set(1.3333558146428443e-3f));
  p = MulAdd(p, f, Set(9.6181291076284772e-3f));
  p = MulAdd(p, f, Set(5.5504108664821580e-2f));
  p = MulAdd(p, f, Set(2.4022650695910072e-1f));
  p = MulAdd(p, f, Set(6.9314718055994531e-1f));
  p = MulAdd(p, f, Set(1.0f));
  const F32 value = Mul(p, PowerOfTwo(n));
#if defined(KVASIR_X86)
  return {_mm256_and_ps(value.v, _mm256_cmp_ps(x.v, _mm256_set1_ps(-126.0f), _CMP_GE_OQ))};
#else
  F32 r;
  for (size_t i = 0; i < kLanes; ++i) r.v[i] = x.v[i] >= -126.0f ? value.v[i] : 0.0f;
  return r;
#endif
}

// e^x with a relative error below 3e-7 for x in [-87.3, 88.3]; 0 below, the value at 88.3 above,
// NaN for NaN. x = n ln 2 + r: n times the first part of ln 2 is exact, so r keeps its bits; e^r by
// its Taylor polynomial.
inline F32 Exp(F32 x) {
  const F32 clamped = Max(Min(x, Set(88.3f)), Set(-87.3f));  // NaN becomes 88.3
  const F32 n = Round(Mul(clamped, Set(1.44269504f)));
  F32 r = Sub(clamped, Mul(n, Set(0.693359375f)));
  r = Add(r, Mul(n, Set(2.12194440e-4f)));
  F32 p = Set(1.9841270e-4f);
  p = MulAdd(p, r, Set(1.3888889e-3f));
  p = MulAdd(p, r, Set(8.3333333e-3f));
  p = MulAdd(p, r, Set(4.1666667e-2f));
  p = MulAdd(p, r, Set(1.6666667e-1f));
  p = MulAdd(p, r, Set(0.5f));
  p = MulAdd(p, r, Set(1.0f));
  p = MulAdd(p, r, Set(1.0f));
  const F32 value = Mul(p, PowerOfTwo(n));
#if defined(KVASIR_X86)
  const __m256 large = _mm256_cmp_ps(x.v, _mm256_set1_ps(-87.3f), _CMP_GE_OQ);
  const __m256 nan = _mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q);
  return {_mm256_or_ps(_mm256_and_ps(value.v, large), _mm256_and_ps(x.v, nan))};
#else
  F32 result;
  for (size_t i = 0; i < kLanes; ++i) {
    result.v[i] = x.v[i] >= -87.3f ? value.v[i] : x.v[i] < -87.3f ? 0.0f : x.v[i];
  }
  return result;
#endif
}

}  // namespace kvasir::KVASIR_SIMD
