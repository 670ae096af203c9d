// F32: eight floats. The few operations kernels are written in, one implementation per target.
//
// On every target a lane-wise operation rounds once per lane; MulAdd is fused on AVX2 and two roundings on the
// portable target, so bits agree within a target, not across targets.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/simd/target.h"

#if defined(KVASIR_TARGET_AVX2)
#include <immintrin.h>
#endif

namespace kvasir::KVASIR_SIMD {

inline constexpr size_t kLanes = 8;

#if defined(KVASIR_TARGET_AVX2)

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

#else  // portable: loops over eight lanes, vectorized by the compiler where it can

struct F32 {
  float v[kLanes];
};
#define KVASIR_LANES(expression)            \
  F32 r;                                    \
  for (size_t i = 0; i < kLanes; ++i) {     \
    r.v[i] = (expression);                  \
  }                                         \
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
inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7fff;
  uint32_t bits;
  if (magnitude >= 0x7c00) {
    bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
  } else if (magnitude < 0x400) {
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    memcpy(&bits, &value, 4);
    bits |= sign;
  } else {
    bits = sign | ((magnitude << 13) + 0x38000000);
  }
  float value;
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

// 2^x for x <= 0 (softmax weights) or any |x| < 126; below -126 the result is 0. Relative error < 2e-7: x = n + f with
// |f| <= 1/2, and 2^f by its Taylor polynomial of degree 7.
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
#if defined(KVASIR_TARGET_AVX2)
  return {_mm256_and_ps(value.v, _mm256_cmp_ps(x.v, _mm256_set1_ps(-126.0f), _CMP_GE_OQ))};
#else
  F32 r;
  for (size_t i = 0; i < kLanes; ++i) r.v[i] = x.v[i] >= -126.0f ? value.v[i] : 0.0f;
  return r;
#endif
}

}  // namespace kvasir::KVASIR_SIMD
