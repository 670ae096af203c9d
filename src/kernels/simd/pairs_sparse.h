// Sparse planes as bf16 pairs (kernels/pair_kernels.h): readers that move kept values to their
// lanes, 32 at a time (64 of int8). Where the values of a channel or of a word begin is a count of
// bits.
#pragma once

#include "kernels/simd/pairs.h"
#include "kernels/simd/sparse_lanes.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

// 32 values from `at` on as bf16.
inline __m512i Load32(const SparseBF16&, const uint16_t* at) { return _mm512_loadu_si512(at); }
inline __m512i Load32(const SparseF16&, const uint16_t* at) {
  const auto half = [&](const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  };
  return __builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(half(at + 16), half(at)));
}

template <typename E>
inline __m512i Expand32(const uint16_t* at, uint32_t bits) {
  return _mm512_maskz_expand_epi16(bits, Load32(E(), at));
}

// Pairs of the lanes of two vectors: the first sixteen and the others.
inline Pairs LowPairs(__m512i first, __m512i second) {
  const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  return {_mm512_permutex2var_epi16(second, order, first)};
}
inline Pairs HighPairs(__m512i first, __m512i second) {
  const __m512i order =
      _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55, 23, 54,
                       22, 53, 21, 52, 20, 51, 19, 50, 18, 49, 17, 48, 16);
  return {_mm512_permutex2var_epi16(second, order, first)};
}

inline size_t CountBits(uint64_t bits) { return static_cast<size_t>(__builtin_popcountll(bits)); }

// V vectors of pairs from two rows whose values begin at `first` and `second`.
template <typename E, int V>
inline void ExpandPairs(const uint16_t* first, uint64_t first_bits, const uint16_t* second,
                        uint64_t second_bits, Pairs (&out)[V]) {
  KVASIR_UNROLL
  for (int v = 0; v < V; v += 2) {
    uint32_t a_bits = static_cast<uint32_t>(first_bits >> 16 * v);
    uint32_t b_bits = static_cast<uint32_t>(second_bits >> 16 * v);
    if (v + 1 == V) {
      a_bits &= 0xffff;
      b_bits &= 0xffff;
    }
    const __m512i a = Expand32<E>(first, a_bits), b = Expand32<E>(second, b_bits);
    first += __builtin_popcount(a_bits);
    second += __builtin_popcount(b_bits);
    out[v] = LowPairs(a, b);
    if (v + 1 < V) out[v + 1] = HighPairs(a, b);
  }
}

// A K plane as it lies (as PlaneKeys).
template <typename E>
struct SparsePairKeys {
  static constexpr bool kInPlace = true;
  const uint16_t* values;
  const uint8_t* bitmaps;
  size_t dim, step_bytes;  // of a pair of channels in a plane, on the average

  SparsePairKeys(const uint8_t* plane, PlaneShape shape)
      : values(reinterpret_cast<const uint16_t*>(plane)), dim(shape.dim) {
    const PlaneForm form(E::kCodec, static_cast<uint16_t>(shape.keep));
    bitmaps = plane + SparseBitmapsAt(form);
    step_bytes = (PlaneBytes(form, dim) + PairedDim(dim) - 1) / PairedDim(dim);
  }
  template <int V>
  struct Tile {
    const SparsePairKeys& keys;
    const size_t e;
    const uint16_t* at;  // the values of the next channel

    Tile(const SparsePairKeys& keys, size_t e) : keys(keys), e(e), at(keys.values) {}
    void Load(size_t i, Pairs (&k)[V]) {
      const uint64_t first = WordAt(keys.bitmaps + 16 * i);
      const uint64_t second = 2 * i + 1 < keys.dim ? WordAt(keys.bitmaps + 16 * i + 8) : 0;
      const uint16_t* const second_at = at + CountBits(first);
      const uint64_t before = (uint64_t{1} << e) - 1;  // entries of other tiles
      ExpandPairs<E>(at + CountBits(first & before), first >> e,
                     second_at + CountBits(second & before), second >> e, k);
      at = second_at + CountBits(second);
    }
  };
  template <int V>
  void Ahead(const uint8_t* next, size_t step) const {
    PrefetchBytes(next, step, (step_bytes * V + 3) / 4);
  }
};

// The live rows of a V plane as it lies (as PlaneValues); those that are not in `seen` keep
// nothing.
template <typename E>
struct SparsePairValues {
  static constexpr bool kInPlace = true;
  static void PrefetchRest(const uint8_t*, size_t) {}
  using T = typename E::T;
  const T* row[kPageEntries + 1];
  const uint8_t* bitmap[kPageEntries + 1];
  float scale[kPageEntries + 1];  // of int8
  size_t n_pairs;
  size_t vector_bytes;  // of sixteen channels of a pair in a plane, on the average

  SparsePairValues(const uint8_t* plane, PlaneShape shape, uint64_t live, uint64_t seen) {
    const PlaneForm form(E::kCodec, static_cast<uint16_t>(shape.keep));
    const T* values = reinterpret_cast<const T*>(plane);
    const uint8_t* bitmaps = plane + SparseBitmapsAt(form);
    const size_t bitmap_bytes = BitmapWords(shape.dim) * 8;
    float scales[kPageEntries];
    if constexpr (E::kCodec == Codec::kSparseI8) {
      const uint16_t* halves = reinterpret_cast<const uint16_t*>(plane + SparseScalesAt(form));
      for (size_t e = 0; e < kPageEntries; e += kLanes) Store(LoadF16(halves + e), scales + e);
    }
    size_t n = 0;
    for (uint64_t left = live; left != 0; left &= left - 1, ++n) {
      const size_t e = static_cast<size_t>(__builtin_ctzll(left));
      const bool read = seen >> e & 1;
      row[n] = values + e * shape.keep;
      bitmap[n] = read ? bitmaps + e * bitmap_bytes : kZeroRow;
      if constexpr (E::kCodec == Codec::kSparseI8) scale[n] = read ? scales[e] : 0;
    }
    row[n] = values;
    bitmap[n] = kZeroRow;
    scale[n] = 0;
    n_pairs = (n + 1) / 2;
    const size_t vectors = n_pairs * PaddedDim(shape.dim) / kPairLanes;
    vector_bytes = (PlaneBytes(form, shape.dim) + vectors - 1) / vectors;
  }
  template <int V>
  void Ahead(const uint8_t* next, size_t c, size_t i) const {
    next += c / kPairLanes * n_pairs * vector_bytes;
    PrefetchBytes(next, i, V * vector_bytes);
  }
};

// Where a row's values from channel `c` on begin, and their bits: those of one word.
template <typename T>
struct SparseSlice {
  const T* values;
  uint64_t bits;

  SparseSlice(const T* row, const uint8_t* bitmap, size_t c) : values(row) {
    for (size_t i = 0; i < c / 64; ++i) values += CountBits(WordAt(bitmap + 8 * i));
    const uint64_t word = WordAt(bitmap + 8 * (c / 64));
    values += CountBits(word & ((uint64_t{1} << c % 64) - 1));
    bits = word >> c % 64;
  }
};

template <int V, typename E>
inline void LoadVectors(const SparsePairValues<E>& values, size_t i, size_t c, size_t,
                        Pairs (&x)[V]) {
  const SparseSlice first(values.row[2 * i], values.bitmap[2 * i], c);
  const SparseSlice second(values.row[2 * i + 1], values.bitmap[2 * i + 1], c);
  ExpandPairs<E>(first.values, first.bits, second.values, second.bits, x);
}

// V vectors of floats of an int8 row.
template <int V>
inline void ExpandI8(const SparseSlice<int8_t>& slice, float scale, __m512 (&x)[V]) {
  const __m512i q = _mm512_maskz_expand_epi8(slice.bits, _mm512_loadu_si512(slice.values));
  KVASIR_UNROLL
  for (int v = 0; v < V; ++v) {
    // Masks of ones: of the plain conversions GCC 12 says that their operand is undefined.
    const __m128i bytes = v == 0   ? _mm512_castsi512_si128(q)
                          : v == 1 ? _mm512_maskz_extracti32x4_epi32(0xf, q, 1)
                          : v == 2 ? _mm512_maskz_extracti32x4_epi32(0xf, q, 2)
                                   : _mm512_maskz_extracti32x4_epi32(0xf, q, 3);
    const __m512i wide = _mm512_maskz_cvtepi8_epi32(kAllLanes, bytes);
    x[v] = _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(kAllLanes, wide), _mm512_set1_ps(scale));
  }
}

template <int V>
inline void LoadVectors(const SparsePairValues<SparseI8>& values, size_t i, size_t c, size_t,
                        Pairs (&x)[V]) {
  __m512 first[V], second[V];
  ExpandI8({values.row[2 * i], values.bitmap[2 * i], c}, values.scale[2 * i], first);
  ExpandI8({values.row[2 * i + 1], values.bitmap[2 * i + 1], c}, values.scale[2 * i + 1], second);
  KVASIR_UNROLL
  for (int v = 0; v < V; ++v) x[v] = RoundToPairs(first[v], second[v]);
}

}  // namespace kvasir::KVASIR_SIMD

#endif
