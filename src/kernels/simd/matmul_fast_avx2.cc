// Fast products on AVX2. A *form* says how 32 steps of 16 outputs ("a part") lie in memory and how
// their integer dot products are taken; Tile() is the loop over parts around it. Few rows read the
// packed records where they are (one pass over memory, weights unpacked in registers). Many rows
// expand a stretch of a group into a form that costs no unpacking, in a tile on the stack that
// stays in L1, and run over it. Integer sums are exact and Tile() folds every form alike, so both
// ways give equal bits.
//
//   nibbles  u4 x s8 by vpmaddubsw, summed in 16 bits: 8 x 2 products stay below
//            8 * 2 * 15 * 127 = 30480.
//   bytes    |w| x sign(a, w) by vpmaddubsw: 2 * 128 * 127 = 32512 fits only once, so every step is
//            widened. For many rows int16 x int16 by vpmaddwd: no sign, half the instructions.
//   6 bits   |q - 32| x sign(a, q - 32): 4 x 2 products stay below 4 * 2 * 32 * 127 = 32512; then
//            times the scale of 16 steps by vpmaddwd. For many rows int16 scale * (q - 32).
//   5 bits   u5 x s8 as nibbles: 4 x 2 products stay below 4 * 2 * 31 * 127 = 31496.
//   table    nibbles are looked up by vpshufb, then as bytes.
//   2 bits   u2 x s8 as nibbles, then times the scale of 16 steps; minima of 16 steps times the
//   sums
//            of 16 activations by vpmaddwd.
//
// GCC would spill the accumulators of the straight-line code: Pin() keeps their order.
#include "kernels/simd/target.h"

#if defined(KVASIR_TARGET_AVX2)

#include <immintrin.h>
#include <string.h>

#include "kernels/simd/matmul.h"

namespace kvasir::KVASIR_SIMD {

namespace {

inline void Pin(__m256i& v) { asm volatile("" : "+x"(v)); }

inline __m256i LoadBytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline __m256i Broadcast(const void* p) {
  int32_t value;
  memcpy(&value, p, sizeof(value));
  return _mm256_set1_epi32(value);
}
inline __m256 LoadHalf(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256 LoadU8AsF32(const uint8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// Activations of the rows at hand, advanced to the first of them.
struct Activations {
  const int8_t* q;  // int16 pairs where the form says so
  size_t q_stride;  // bytes between rows
  const float* scale;
  const float* scaled_sum;
  const int32_t* half_sums;
  size_t blocks;  // scales between rows

  Activations At(size_t row, size_t part) const {
    const size_t at = row * blocks + part;
    return {q + row * q_stride + part * kActBlock,
            q_stride,
            scale + at,
            scaled_sum + at,
            half_sums + at,
            blocks};
  }
};

// ---- forms read in place -----------------------------------------------------------------------

inline __m256i LowNibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline __m256i HighNibbles(__m256i v) { return LowNibbles(_mm256_srli_epi16(v, 4)); }

// sum += dot of unsigned w[v] and the four bytes at `a` of each row, in 16 bits.
template <int kRows>
inline void AddStep(const __m256i (&w)[2], const int8_t* a, size_t stride, bool first,
                    __m256i (&sum)[kRows][2]) {
  for (int r = 0; r < kRows; ++r) {
    const __m256i b = Broadcast(a + r * stride);
    for (int v = 0; v < 2; ++v) {
      const __m256i product = _mm256_maddubs_epi16(w[v], b);
      sum[r][v] = first ? product : _mm256_add_epi16(sum[r][v], product);
      Pin(sum[r][v]);
    }
  }
}

template <int kRows>
inline void Widen(const __m256i (&sum)[kRows][2], __m256i (&dot)[kRows][2]) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < 2; ++v) dot[r][v] = _mm256_madd_epi16(sum[r][v], _mm256_set1_epi16(1));
  }
}

template <int kRows>
inline void DotNibbles(const uint8_t* w, const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) {
  __m256i sum[kRows][2];
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    const __m256i packed[2] = {LoadBytes(w + 64 * s), LoadBytes(w + 64 * s + 32)};
    const __m256i low[2] = {LowNibbles(packed[0]), LowNibbles(packed[1])};
    AddStep<kRows>(low, a + 4 * s, stride, s == 0, sum);
    const __m256i high[2] = {HighNibbles(packed[0]), HighNibbles(packed[1])};
    AddStep<kRows>(high, a + 4 * s + 16, stride, false, sum);
  }
  Widen<kRows>(sum, dot);
}

// Unsigned weights(s, v) below 32: sums of four blocks fit into 16 bits.
template <int kRows, typename F>
inline void DotFiveBits(F weights, const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) {
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    __m256i sum[kRows][2], wide[kRows][2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int s = 4 * half + i;
      const __m256i w[2] = {weights(s, 0), weights(s, 1)};
      AddStep<kRows>(w, a + 4 * s, stride, i == 0, sum);
    }
    Widen<kRows>(sum, half == 0 ? dot : wide);
    if (half == 0) continue;
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < 2; ++v) dot[r][v] = _mm256_add_epi32(dot[r][v], wide[r][v]);
    }
  }
}

struct PackedQ4 {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = true;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 1;
  const uint8_t* p;
  PackedQ4(const uint8_t* record, size_t) : p(record) {}
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    DotNibbles<kRows>(p, a, stride, dot);
  }
  __m256 Scale(int v) const { return LoadHalf(p + record::kQ4Scales + 16 * v); }
  __m256 Min(int v) const { return LoadHalf(p + record::kQ4Minima + 16 * v); }
};

struct PackedQ4S {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = false;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 1;
  static constexpr int kOffset = 8;  // weights are nibbles - 8
  const uint8_t* p;
  PackedQ4S(const uint8_t* record, size_t) : p(record) {}
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    DotNibbles<kRows>(p, a, stride, dot);
  }
  __m256 Scale(int v) const { return LoadHalf(p + record::kQ4Scales + 16 * v); }
  __m256 Min(int) const { return _mm256_setzero_ps(); }
};

struct PackedQ4K {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = true;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 8;
  const uint8_t* p;
  const uint8_t* part;
  PackedQ4K(const uint8_t* record, size_t b)
      : p(record), part(record + record::kQ4KParts + b * record::kQ4KPartBytes) {}
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    DotNibbles<kRows>(part, a, stride, dot);
  }
  __m256 Scale(int v) const {
    return _mm256_mul_ps(LoadHalf(p + 16 * v), LoadU8AsF32(part + record::kQ4KScales + 8 * v));
  }
  __m256 Min(int v) const {
    const __m256 min = _mm256_mul_ps(LoadHalf(p + record::kQ4KMinimum + 16 * v),
                                     LoadU8AsF32(part + record::kQ4KMinima + 8 * v));
    return _mm256_xor_ps(min, _mm256_set1_ps(-0.0f));
  }
};

// Form::Weights(s, v): signed weights of block s (four steps) for vector v, none -128 twice in a
// pair.
template <int kRows, typename Form>
inline void DotBytes(const Form& form, const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    __m256i w[2], magnitude[2];
    for (int v = 0; v < 2; ++v) {
      w[v] = form.Weights(s, v);
      magnitude[v] = _mm256_abs_epi8(w[v]);
    }
    for (int r = 0; r < kRows; ++r) {
      const __m256i b = Broadcast(a + r * stride + 4 * s);
      for (int v = 0; v < 2; ++v) {
        const __m256i pairs = _mm256_maddubs_epi16(magnitude[v], _mm256_sign_epi8(b, w[v]));
        const __m256i quads = _mm256_madd_epi16(pairs, ones);
        dot[r][v] = s == 0 ? quads : _mm256_add_epi32(dot[r][v], quads);
        Pin(dot[r][v]);
      }
    }
  }
}

struct PackedQ8 {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = false;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 1;
  const uint8_t* p;
  PackedQ8(const uint8_t* record, size_t) : p(record) {}
  __m256i Weights(int s, int v) const {
    return _mm256_xor_si256(LoadBytes(p + 64 * s + 32 * v), _mm256_set1_epi8(-128));
  }
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    DotBytes<kRows>(*this, a, stride, dot);
  }
  __m256 Scale(int v) const { return LoadHalf(p + record::kQ8Scales + 16 * v); }
  __m256 Min(int) const { return _mm256_setzero_ps(); }
};

struct PackedIQ4 {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = false;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 1;
  const uint8_t* p;
  PackedIQ4(const uint8_t* record, size_t) : p(record) {}
  __m256i Weights(int s, int v) const {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kIQ4Table)));
    const __m256i packed = LoadBytes(p + 64 * (s % 4) + 32 * v);
    return _mm256_shuffle_epi8(table, s < 4 ? LowNibbles(packed) : HighNibbles(packed));
  }
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    DotBytes<kRows>(*this, a, stride, dot);
  }
  __m256 Scale(int v) const {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p + record::kIQ4Scales + 32 * v));
  }
  __m256 Min(int) const { return _mm256_setzero_ps(); }
};

struct PackedQ5 {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = true;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 1;
  const uint8_t* p;
  PackedQ5(const uint8_t* record, size_t) : p(record) {}
  // Block s (four steps) for vector v.
  __m256i Weights(int s, int v) const {
    const __m256i packed = LoadBytes(p + 64 * (s % 4) + 32 * v);
    const __m256i high = LoadBytes(p + record::kQ5High + 32 * v);
    const int up = 4 - s;
    const __m256i fifth = up >= 0 ? _mm256_slli_epi16(high, up) : _mm256_srli_epi16(high, -up);
    return _mm256_or_si256(s < 4 ? LowNibbles(packed) : HighNibbles(packed),
                           _mm256_and_si256(fifth, _mm256_set1_epi8(16)));
  }
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    DotFiveBits<kRows>([this](int s, int v) { return Weights(s, v); }, a, stride, dot);
  }
  __m256 Scale(int v) const {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p + record::kQ5Scales + 32 * v));
  }
  __m256 Min(int v) const {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p + record::kQ5Minima + 32 * v));
  }
};

// Scales of 16 steps for the outputs of vector v, each twice as int16.
inline __m256i TwinScales(const uint8_t* scales, int v) {
  const __m256i wide =
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + 8 * v)));
  return _mm256_blend_epi16(_mm256_slli_epi32(wide, 16), wide, 0x55);
}

// q - 32 of block s (four steps) for vector v.
inline __m256i SixBits(const uint8_t* part, int s, int v) {
  const __m256i low = LoadBytes(part + 64 * (s % 4) + 32 * v);
  const __m256i high = LoadBytes(part + record::kQ6KHigh + 64 * (s / 4) + 32 * v);
  const int up = 4 - 2 * (s % 4);
  const __m256i top = up >= 0 ? _mm256_slli_epi16(high, up) : _mm256_srli_epi16(high, -up);
  const __m256i q = _mm256_or_si256(s < 4 ? LowNibbles(low) : HighNibbles(low),
                                    _mm256_and_si256(top, _mm256_set1_epi8(0x30)));
  return _mm256_sub_epi8(q, _mm256_set1_epi8(32));
}

struct PackedQ6K {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = false;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 8;
  const uint8_t* p;
  const uint8_t* part;
  PackedQ6K(const uint8_t* record, size_t b)
      : p(record), part(record + record::kQ6KParts + b * record::kQ6KPartBytes) {}
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m256i sum[kRows][2];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const int s = 4 * half + i;
        for (int v = 0; v < 2; ++v) {
          const __m256i w = SixBits(part, s, v);
          const __m256i magnitude = _mm256_abs_epi8(w);
          for (int r = 0; r < kRows; ++r) {
            const __m256i b = Broadcast(a + r * stride + 4 * s);
            const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(b, w));
            sum[r][v] = i == 0 ? pairs : _mm256_add_epi16(sum[r][v], pairs);
            Pin(sum[r][v]);
          }
        }
      }
      for (int v = 0; v < 2; ++v) {
        const __m256i scale = TwinScales(part + record::kQ6KScales + kGroup * half, v);
        for (int r = 0; r < kRows; ++r) {
          const __m256i scaled = _mm256_madd_epi16(sum[r][v], scale);
          dot[r][v] = half == 0 ? scaled : _mm256_add_epi32(dot[r][v], scaled);
        }
      }
    }
  }
  __m256 Scale(int v) const { return LoadHalf(p + 16 * v); }
  __m256 Min(int) const { return _mm256_setzero_ps(); }
};

struct PackedQ2K {
  static constexpr int kMostRows = 3;
  static constexpr bool kMinima = false;  // those of Tile(): here they have two to a part
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 8;
  const uint8_t* p;
  const uint8_t* part;
  PackedQ2K(const uint8_t* record, size_t b)
      : p(record), part(record + record::kQ2KParts + b * record::kQ2KPartBytes) {}
  __m256i Factors(int half, int v) const {
    const uint8_t* factors = part + record::kQ2KFactors + kGroup * half + 8 * v;
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(factors)));
  }
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i packed[2] = {LoadBytes(part + 64 * half), LoadBytes(part + 64 * half + 32)};
      __m256i sum[kRows][2];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        __m256i w[2];
        for (int v = 0; v < 2; ++v) {
          w[v] = _mm256_and_si256(_mm256_srli_epi16(packed[v], 2 * i), _mm256_set1_epi8(3));
        }
        AddStep<kRows>(w, a + 16 * half + 4 * i, stride, i == 0, sum);
      }
      for (int v = 0; v < 2; ++v) {
        const __m256i once = _mm256_and_si256(Factors(half, v), _mm256_set1_epi32(15));
        const __m256i scale = _mm256_or_si256(once, _mm256_slli_epi32(once, 16));
        for (int r = 0; r < kRows; ++r) {
          const __m256i scaled = _mm256_madd_epi16(sum[r][v], scale);
          dot[r][v] = half == 0 ? scaled : _mm256_add_epi32(dot[r][v], scaled);
        }
      }
    }
  }
  // The integer product of the minima of both halves and the sums of activations.
  __m256i DotMinima(__m256i half_sums, int v) const {
    const __m256i minima =
        _mm256_or_si256(_mm256_srli_epi32(Factors(0, v), 4),
                        _mm256_slli_epi32(_mm256_srli_epi32(Factors(1, v), 4), 16));
    return _mm256_madd_epi16(minima, half_sums);
  }
  __m256 Scale(int v) const { return LoadHalf(p + 16 * v); }
  __m256 Min(int v) const {
    return _mm256_xor_ps(LoadHalf(p + record::kQ2KMinimum + 16 * v), _mm256_set1_ps(-0.0f));
  }
};

// ---- expanded forms ----------------------------------------------------------------------------

// Unsigned weights as bytes: 8 x 64 B, then f32 scales and minima. kBits: those of a weight.
template <int kBits>
struct UnsignedTile {
  static constexpr int kMostRows = 6;
  static constexpr size_t kFewestRows = 12;  // from which expanding pays
  static constexpr bool kMinima = true;
  static constexpr bool kWideActivations = false;
  static constexpr size_t kPartsOfRecord = 1;
  static constexpr size_t kBytes = 512 + 128;
  const uint8_t* p;
  UnsignedTile(const uint8_t* tile, size_t) : p(tile) {}
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
    if constexpr (kBits == 5) {
      const auto weights = [this](int s, int v) { return LoadBytes(p + 64 * s + 32 * v); };
      return DotFiveBits<kRows>(weights, a, stride, dot);
    }
    __m256i sum[kRows][2];
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      const __m256i w[2] = {LoadBytes(p + 64 * s), LoadBytes(p + 64 * s + 32)};
      AddStep<kRows>(w, a + 4 * s, stride, s == 0, sum);
    }
    Widen<kRows>(sum, dot);
  }
  __m256 Scale(int v) const {
    return _mm256_load_ps(reinterpret_cast<const float*>(p + 512 + 32 * v));
  }
  __m256 Min(int v) const {
    return _mm256_load_ps(reinterpret_cast<const float*>(p + 576 + 32 * v));
  }

  template <typename Packed>
  static void Expand(const Packed& from, const uint8_t* nibbles, uint8_t* to) {
    for (int s = 0; s < 4; ++s) {
      for (int v = 0; v < 2; ++v) {
        const __m256i packed = LoadBytes(nibbles + 64 * s + 32 * v);
        StoreBytes(LowNibbles(packed), to + 64 * s + 32 * v);
        StoreBytes(HighNibbles(packed), to + 64 * (s + 4) + 32 * v);
      }
    }
    StoreFactors(from, to);
  }
  static void Expand(const PackedQ4& from, uint8_t* to) { Expand(from, from.p, to); }
  static void Expand(const PackedQ4S& from, uint8_t* to) { Expand(from, from.p, to); }
  static void Expand(const PackedQ4K& from, uint8_t* to) { Expand(from, from.part, to); }
  static void Expand(const PackedQ5& from, uint8_t* to) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      for (int v = 0; v < 2; ++v) StoreBytes(from.Weights(s, v), to + 64 * s + 32 * v);
    }
    StoreFactors(from, to);
  }

 private:
  template <typename Packed>
  static void StoreFactors(const Packed& from, uint8_t* to) {
    for (int v = 0; v < 2; ++v) {
      _mm256_store_ps(reinterpret_cast<float*>(to + 512 + 32 * v), from.Scale(v));
      _mm256_store_ps(reinterpret_cast<float*>(to + 576 + 32 * v), from.Min(v));
    }
  }
  static void StoreBytes(__m256i v, uint8_t* p) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(p), v);
  }
};

// Nibbles - 8.
struct OffsetTile : UnsignedTile<4> {
  using UnsignedTile::UnsignedTile;
  static constexpr bool kMinima = false;
  static constexpr int kOffset = 8;
};

// int16 weights, two steps of eight outputs to a vector: 16 x 64 B, then f32 scales. Activations
// are int16.
struct WideTile {
  static constexpr int kMostRows = 6;
  static constexpr size_t kFewestRows = 16;  // from which expanding pays
  static constexpr bool kMinima = false;
  static constexpr bool kWideActivations = true;
  static constexpr size_t kPartsOfRecord = 1;
  static constexpr size_t kBytes = 1024 + 64;
  const uint8_t* p;
  WideTile(const uint8_t* tile, size_t) : p(tile) {}
  template <int kRows>
  void Dot(const int8_t* a, size_t stride, __m256i (&dot)[kRows][2]) const {
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) {
      const __m256i w[2] = {LoadBytes(p + 64 * s), LoadBytes(p + 64 * s + 32)};
      for (int r = 0; r < kRows; ++r) {
        const __m256i b = Broadcast(a + r * stride + 4 * s);
        for (int v = 0; v < 2; ++v) {
          const __m256i product = _mm256_madd_epi16(w[v], b);
          dot[r][v] = s == 0 ? product : _mm256_add_epi32(dot[r][v], product);
          Pin(dot[r][v]);
        }
      }
    }
  }
  __m256 Scale(int v) const {
    return _mm256_load_ps(reinterpret_cast<const float*>(p + 1024 + 32 * v));
  }
  __m256 Min(int) const { return _mm256_setzero_ps(); }

  // Four steps of eight outputs, int8, times `scale`: steps 0, 1 and steps 2, 3 to a vector each.
  static void Store(__m256i w, __m256i scale, int s, int v, uint8_t* to) {
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);  // steps 0 and 2
    const __m256i odd = _mm256_srai_epi16(w, 8);
    const __m256i first = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
    const __m256i second = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
    uint8_t* out = to + 128 * s + 32 * v;
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_mullo_epi16(first, scale));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + 64), _mm256_mullo_epi16(second, scale));
  }
  static void StoreScale(__m256 scale, int v, uint8_t* to) {
    _mm256_store_ps(reinterpret_cast<float*>(to + 1024 + 32 * v), scale);
  }
  template <typename Packed>  // PackedQ8, PackedIQ4
  static void Expand(const Packed& from, uint8_t* to) {
    for (int v = 0; v < 2; ++v) {
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s) Store(from.Weights(s, v), _mm256_set1_epi16(1), s, v, to);
      StoreScale(from.Scale(v), v, to);
    }
  }
  static void Expand(const PackedQ6K& from, uint8_t* to) {
    for (int v = 0; v < 2; ++v) {
#pragma GCC unroll 8
      for (int s = 0; s < 8; ++s) {
        const __m256i scale = TwinScales(from.part + record::kQ6KScales + kGroup * (s / 4), v);
        Store(SixBits(from.part, s, v), scale, s, v, to);
      }
      StoreScale(from.Scale(v), v, to);
    }
  }
};

// ---- loops -------------------------------------------------------------------------------------

// kRows rows of one group: `n_parts` parts from `part` on of the records at `w`, which are
// `record_bytes` apart; x is that of the first of them.
template <typename Form, int kRows>
inline void Tile(const uint8_t* w, size_t record_bytes, size_t part, size_t n_parts,
                 const Activations& x, float* out, size_t out_stride, bool first) {
  __m256 sum[kRows][2];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < 2; ++v) {
      sum[r][v] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + r * out_stride + 8 * v);
    }
  }
  constexpr size_t kBytesOfBlock = Form::kWideActivations ? 2 * kActBlock : kActBlock;
  for (size_t b = 0; b < n_parts; ++b) {
    const Form form(w + (part + b) / Form::kPartsOfRecord * record_bytes,
                    (part + b) % Form::kPartsOfRecord);
    __m256i dot[kRows][2];
    form.template Dot<kRows>(x.q + b * kBytesOfBlock, x.q_stride, dot);
    if constexpr (requires { Form::kOffset; }) {
      for (int r = 0; r < kRows; ++r) {
        const __m256i start = _mm256_madd_epi16(Broadcast(x.half_sums + r * x.blocks + b),
                                                _mm256_set1_epi16(-Form::kOffset));
        for (int v = 0; v < 2; ++v) dot[r][v] = _mm256_add_epi32(dot[r][v], start);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const __m256 scale = _mm256_broadcast_ss(x.scale + r * x.blocks + b);
      for (int v = 0; v < 2; ++v) {
        sum[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][v]),
                                    _mm256_mul_ps(form.Scale(v), scale), sum[r][v]);
      }
      if constexpr (Form::kMinima) {
        const __m256 scaled_sum = _mm256_broadcast_ss(x.scaled_sum + r * x.blocks + b);
        for (int v = 0; v < 2; ++v) sum[r][v] = _mm256_fmadd_ps(form.Min(v), scaled_sum, sum[r][v]);
      }
      if constexpr (requires { &Form::DotMinima; }) {
        const __m256i half_sums = Broadcast(x.half_sums + r * x.blocks + b);
        for (int v = 0; v < 2; ++v) {
          sum[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(form.DotMinima(half_sums, v)),
                                      _mm256_mul_ps(form.Min(v), scale), sum[r][v]);
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < 2; ++v) _mm256_storeu_ps(out + r * out_stride + 8 * v, sum[r][v]);
  }
}

template <typename Form>
void AllRows(const uint8_t* w, size_t record_bytes, size_t n_parts, const Activations& x, size_t n,
             float* out, size_t out_stride, bool first) {
  size_t r = 0;
  const auto tiles = [&]<int kRows>() {
    for (; n - r >= kRows; r += kRows) {
      Tile<Form, kRows>(w, record_bytes, 0, n_parts, x.At(r, 0), out + r * out_stride, out_stride,
                        first);
    }
  };
  if constexpr (Form::kMostRows > 3) tiles.template operator()<Form::kMostRows>();
  tiles.template operator()<3>();
  tiles.template operator()<2>();
  tiles.template operator()<1>();
}

// Parts expanded at once: 11 or 19 KiB of L1.
constexpr size_t kTileParts = 18;
// Rows for which they are expanded once: 37 or 74 KiB of activations.
constexpr size_t kRowBlock = 66;

void WidenActivations(const QuantizedRows& x, size_t row, size_t n, size_t first, size_t n_parts,
                      int16_t* out) {
  for (size_t r = 0; r < n; ++r) {
    const int8_t* from = x.q + ((row + r) * x.blocks + first) * kActBlock;
    int16_t* to = out + r * kTileParts * kActBlock;
    for (size_t i = 0; i < n_parts * kActBlock; i += 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepi8_epi16(bytes));
    }
  }
}

inline Activations View(const QuantizedRows& x) {
  return {x.q, x.blocks * kActBlock, x.scale, x.scaled_sum, x.half_sums, x.blocks};
}

// Continues the chains of n rows with their rests.
template <typename Packed>
void AddRests(const uint8_t* w, size_t record_bytes, const QuantizedRows& x, size_t n, float* out,
              size_t out_stride) {
  for (size_t r = 0; r < n; ++r) {
    const QuantizedRows row = x.From(r);
    for (size_t i = 0; i < *row.n_rests; ++i) {
      const Activations rest = {row.rest_q + i * kActBlock, 0,
                                row.rest_scale + i,         row.rest_scaled_sum + i,
                                row.rest_half_sums + i,     row.blocks};
      Tile<Packed, 1>(w, record_bytes, row.rest_block[i], 1, rest, out + r * out_stride, out_stride,
                      false);
    }
  }
}

template <PackedKind kKind, typename Packed, typename Expanded>
void ManyRows(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out,
              size_t out_stride) {
  constexpr size_t kRecordBytes = Record(kKind).bytes;
  constexpr size_t kWide = Expanded::kWideActivations ? kRowBlock * kTileParts * kActBlock : 16;
  alignas(64) uint8_t tile[kTileParts * Expanded::kBytes];
  alignas(64) int16_t wide[kWide];
  const size_t blocks = w.k / kActBlock;
  const size_t n_tiles = (blocks + kTileParts - 1) / kTileParts;
  const size_t step = (blocks + n_tiles - 1) / n_tiles;  // tiles of equal size: no short last one
  for (size_t row = 0; row < n; row += kRowBlock) {
    const size_t rows = n - row < kRowBlock ? n - row : kRowBlock;
    for (size_t first = 0; first < blocks; first += step) {
      const size_t parts = blocks - first < step ? blocks - first : step;
      Activations a = View(x).At(row, first);
      if constexpr (Expanded::kWideActivations) {
        WidenActivations(x, row, rows, first, parts, wide);
        a.q = reinterpret_cast<const int8_t*>(wide);
        a.q_stride = kTileParts * kActBlock * sizeof(int16_t);
      }
      for (size_t g = 0; g < w.n_groups; ++g) {
        for (size_t i = 0; i < parts; ++i) {
          const size_t b = first + i;
          const uint8_t* record =
              w.data + g * w.group_bytes + b / Packed::kPartsOfRecord * kRecordBytes;
          Expanded::Expand(Packed(record, b % Packed::kPartsOfRecord), tile + i * Expanded::kBytes);
        }
        AllRows<Expanded>(tile, Expanded::kBytes, parts, a, rows,
                          out + row * out_stride + g * kGroup, out_stride, first == 0);
      }
    }
  }
}

// `Expanded` is the form for many rows; void: the packed one serves any number.
template <PackedKind kKind, typename Packed, typename Expanded>
void Fast(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out, size_t out_stride) {
  constexpr size_t kRecordBytes = Record(kKind).bytes;
  if constexpr (requires { Expanded::kFewestRows; }) {
    if (n >= Expanded::kFewestRows) {
      ManyRows<kKind, Packed, Expanded>(w, x, n, out, out_stride);
      for (size_t g = 0; g < w.n_groups; ++g) {
        AddRests<Packed>(w.data + g * w.group_bytes, kRecordBytes, x, n, out + g * kGroup,
                         out_stride);
      }
      return;
    }
  }
  for (size_t g = 0; g < w.n_groups; ++g) {
    const uint8_t* group = w.data + g * w.group_bytes;
    AllRows<Packed>(group, kRecordBytes, w.k / kActBlock, View(x), n, out + g * kGroup, out_stride,
                    true);
    AddRests<Packed>(group, kRecordBytes, x, n, out + g * kGroup, out_stride);
  }
}

}  // namespace

void FillFast(kvasir::MatMulKernels* table) {
  const auto set = [table](PackedKind kind, auto* f) { table->fast[static_cast<int>(kind)] = f; };
  set(PackedKind::kQ8, Fast<PackedKind::kQ8, PackedQ8, WideTile>);
  set(PackedKind::kQ4, Fast<PackedKind::kQ4, PackedQ4, UnsignedTile<4>>);
  set(PackedKind::kQ4S, Fast<PackedKind::kQ4S, PackedQ4S, OffsetTile>);
  set(PackedKind::kQ4K, Fast<PackedKind::kQ4K, PackedQ4K, UnsignedTile<4>>);
  set(PackedKind::kQ6K, Fast<PackedKind::kQ6K, PackedQ6K, WideTile>);
  set(PackedKind::kQ5, Fast<PackedKind::kQ5, PackedQ5, UnsignedTile<5>>);
  set(PackedKind::kIQ4, Fast<PackedKind::kIQ4, PackedIQ4, WideTile>);
  set(PackedKind::kQ2K, Fast<PackedKind::kQ2K, PackedQ2K, void>);
}

}  // namespace kvasir::KVASIR_SIMD

#endif
