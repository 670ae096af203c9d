// Sums of products of 16-bit pairs: as many 32-bit lanes as a register of the target holds, each
// the sum over pairs of two entries' channels. Integers are exact, so targets differ in nothing
// but the rounding of MulAdd (simd/vec.h).
#pragma once

#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

#if defined(KVASIR_TARGET_AVX512)

inline constexpr size_t kInts = 16;
struct Shorts {  // two int16 per lane
  __m512i v;
};
struct Ints {
  __m512i v;
};
struct Wide {  // kInts floats
  __m512 v;
};
inline Shorts LoadShorts(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline Shorts SignedBytes(const uint8_t* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Shorts UnsignedBytes(const uint8_t* p) {
  return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Shorts LowHalf(Shorts bytes) { return {_mm512_and_si512(bytes.v, _mm512_set1_epi16(15))}; }
inline Shorts HighHalf(Shorts bytes) { return {_mm512_srli_epi16(bytes.v, 4)}; }
inline Shorts SetShorts(const int16_t* p) {
  int32_t pair;
  memcpy(&pair, p, sizeof(pair));
  return {_mm512_set1_epi32(pair)};
}
inline void StoreShorts(Shorts a, int16_t* p) { _mm512_storeu_si512(p, a.v); }
inline Ints NoInts() { return {_mm512_setzero_si512()}; }
inline Ints AddDot(Ints sum, Shorts a, Shorts b) { return {_mm512_dpwssd_epi32(sum.v, a.v, b.v)}; }
// Conversions with a mask of ones: of the plain ones GCC 12 says that their operand is undefined.
inline Wide ToWide(Ints a) { return {_mm512_maskz_cvtepi32_ps(0xffff, a.v)}; }
inline Wide LoadWide(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void StoreWide(Wide a, float* p) { _mm512_storeu_ps(p, a.v); }
inline Wide LoadHalves(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Wide SetWide(float x) { return {_mm512_set1_ps(x)}; }
inline Wide Mul(Wide a, Wide b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Wide MulAdd(Wide a, Wide b, Wide c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

// Keeps the order of straight-line code, where GCC would spill sums.
inline void Pin(Ints& a) { asm volatile("" : "+v"(a.v)); }

#else

inline constexpr size_t kInts = kLanes;
using Wide = F32;
inline Wide LoadWide(const float* p) { return Load(p); }
inline void StoreWide(Wide a, float* p) { Store(a, p); }
inline Wide LoadHalves(const uint16_t* p) { return LoadF16(p); }
inline Wide SetWide(float x) { return Set(x); }

#if defined(KVASIR_X86)

struct Shorts {
  __m256i v;
};
struct Ints {
  __m256i v;
};
inline Shorts LoadShorts(const int16_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline Shorts SignedBytes(const uint8_t* p) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Shorts UnsignedBytes(const uint8_t* p) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Shorts LowHalf(Shorts bytes) { return {_mm256_and_si256(bytes.v, _mm256_set1_epi16(15))}; }
inline Shorts HighHalf(Shorts bytes) { return {_mm256_srli_epi16(bytes.v, 4)}; }
inline Shorts SetShorts(const int16_t* p) {
  int32_t pair;
  memcpy(&pair, p, sizeof(pair));
  return {_mm256_set1_epi32(pair)};
}
inline void StoreShorts(Shorts a, int16_t* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}
inline Ints NoInts() { return {_mm256_setzero_si256()}; }
inline Ints AddDot(Ints sum, Shorts a, Shorts b) {
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a.v, b.v))};
}
inline Wide ToWide(Ints a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline void Pin(Ints& a) { asm volatile("" : "+x"(a.v)); }

#else

struct Shorts {
  int16_t v[2 * kInts];
};
struct Ints {
  int32_t v[kInts];
};
inline Shorts LoadShorts(const int16_t* p) {
  Shorts r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline Shorts SignedBytes(const uint8_t* p) {
  Shorts r;
  for (size_t i = 0; i < 2 * kInts; ++i) r.v[i] = static_cast<int8_t>(p[i]);
  return r;
}
inline Shorts UnsignedBytes(const uint8_t* p) {
  Shorts r;
  for (size_t i = 0; i < 2 * kInts; ++i) r.v[i] = p[i];
  return r;
}
inline Shorts LowHalf(Shorts bytes) {
  for (size_t i = 0; i < 2 * kInts; ++i) bytes.v[i] &= 15;
  return bytes;
}
inline Shorts HighHalf(Shorts bytes) {
  for (size_t i = 0; i < 2 * kInts; ++i) bytes.v[i] = static_cast<int16_t>(bytes.v[i] >> 4);
  return bytes;
}
inline Shorts SetShorts(const int16_t* p) {
  Shorts r;
  for (size_t i = 0; i < 2 * kInts; ++i) r.v[i] = p[i % 2];
  return r;
}
inline void StoreShorts(Shorts a, int16_t* p) { memcpy(p, a.v, sizeof(a.v)); }
inline Ints NoInts() { return {}; }
inline Ints AddDot(Ints sum, Shorts a, Shorts b) {
  for (size_t i = 0; i < kInts; ++i) {
    sum.v[i] += a.v[2 * i] * b.v[2 * i] + a.v[2 * i + 1] * b.v[2 * i + 1];
  }
  return sum;
}
inline Wide ToWide(Ints a) {
  Wide r;
  for (size_t i = 0; i < kInts; ++i) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
inline void Pin(Ints&) {}

#endif
#endif

}  // namespace kvasir::KVASIR_SIMD
