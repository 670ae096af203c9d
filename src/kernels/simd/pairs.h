// Vectors of bf16 pairs on AVX-512, and readers of planes that give them (kernels/pair_kernels.h).
#pragma once

#include "kernels/pair_kernels.h"
#include "kernels/simd/plane_codecs.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

// Sixteen pairs.
struct Pairs {
  __m512i v;
};

inline Pairs LoadPairs(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Pairs SetPair(uint32_t pair) { return {_mm512_set1_epi32(static_cast<int32_t>(pair))}; }
inline void Store(Pairs a, uint32_t* p) { _mm512_storeu_si512(p, a.v); }
inline __m512 Dot(__m512 sum, Pairs a, Pairs b) {
  return _mm512_dpbf16_ps(sum, __builtin_bit_cast(__m512bh, a.v),
                          __builtin_bit_cast(__m512bh, b.v));
}

// From sixteen seconds in the low half of the words and sixteen firsts above them.
inline Pairs Interleave(__m512i words) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutexvar_epi16(order, words)};
}
inline Pairs RoundToPairs(__m512 first, __m512 second) {
  return Interleave(__builtin_bit_cast(__m512i, _mm512_cvtne2ps_pbh(first, second)));
}

// Sixteen elements of each of two rows of a plane; those whose bit in `lanes` is clear are not read
// and become 0.
struct PairsF32 {
  using T = float;
  static Pairs Load(const T* first, const T* second, uint16_t lanes) {
    return RoundToPairs(_mm512_maskz_loadu_ps(lanes, first), _mm512_maskz_loadu_ps(lanes, second));
  }
};
struct PairsF16 {
  using T = uint16_t;
  static Pairs Load(const T* first, const T* second, uint16_t lanes) {
    return RoundToPairs(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, first)),
                        _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, second)));
  }
};
struct PairsBF16 {
  using T = uint16_t;
  static Pairs Load(const T* first, const T* second, uint16_t lanes) {
    const __m512i low = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(lanes, second));
    return Interleave(_mm512_inserti64x4(low, _mm256_maskz_loadu_epi16(lanes, first), 1));
  }
};

inline constexpr uint16_t kAllLanes = 0xffff;
alignas(64) inline constexpr uint8_t kZeroRow[kMaxHeadDim * sizeof(float)] = {};

// Lanes of the vector at channel c that hold channels.
inline uint16_t LanesAt(size_t c, size_t dim) {
  return dim - c >= kPairLanes ? kAllLanes : static_cast<uint16_t>((1u << (dim - c)) - 1);
}

// Prefetches the `bytes` that step `i` of a walk covers in the next plane.
inline void PrefetchBytes(const uint8_t* next, size_t i, size_t bytes) {
  for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + i * bytes + b);
}

// V vectors of entries from `e` on, of keys whose Load gives one of them.
template <typename Keys, int V>
struct VectorTile {
  const Keys& keys;
  size_t e;
  void Load(size_t i, Pairs (&k)[V]) const {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) k[v] = keys.Load(i, e + kPairLanes * static_cast<size_t>(v));
  }
};

// A K plane as it lies. Tile<V> takes V vectors of entries from `e` on through all pairs of
// channels in ascending order; Ahead<V> prefetches what its step covers in the next plane.
template <typename E>
struct PlaneKeys {
  using T = typename E::T;
  static constexpr bool kInPlace = true;
  const T* data;
  size_t dim;

  PlaneKeys(const uint8_t* plane, PlaneShape shape)
      : data(reinterpret_cast<const T*>(plane)), dim(shape.dim) {}
  // Channels 2 i and 2 i + 1 of the sixteen entries from `e`.
  Pairs Load(size_t i, size_t e) const {
    const T* first = data + 2 * i * kPageEntries + e;
    const T* second =
        2 * i + 1 < dim ? first + kPageEntries : reinterpret_cast<const T*>(kZeroRow) + e;
    return E::Load(first, second, kAllLanes);
  }
  template <int V>
  using Tile = VectorTile<PlaneKeys, V>;
  template <int V>
  void Ahead(const uint8_t* next, size_t step) const {
    PrefetchBytes(next, step, 2 * kPageEntries * sizeof(T) * V / 4);
  }
};

// Rows of a V plane as it lies, of its live entries.
template <typename E>
struct PlaneValues {
  using T = typename E::T;
  static constexpr bool kInPlace = true;
  static void PrefetchRest(const uint8_t*, size_t) {}  // what no walk over rows covers
  const T* row[kPageEntries + 1];
  size_t n_pairs;

  PlaneValues(const uint8_t* plane, PlaneShape shape, uint64_t live, uint64_t seen) {
    const size_t dim = shape.dim;
    const T* data = reinterpret_cast<const T*>(plane);
    const T* zeros = reinterpret_cast<const T*>(kZeroRow);
    size_t n = 0;
    if ((live & seen) == ~uint64_t{0}) {
      for (; n < kPageEntries; ++n) row[n] = data + n * dim;
    } else {
      for (uint64_t left = live; left != 0; left &= left - 1) {
        const size_t slot = static_cast<size_t>(__builtin_ctzll(left));
        row[n++] = seen >> slot & 1 ? data + slot * dim : zeros;
      }
      row[n] = zeros;
    }
    n_pairs = (n + 1) / 2;
  }
  // Pair i, vector v of the channels from `c`. A tile of two and more vectors starts at a multiple
  // of 32 channels, so that a vector's block is known from c and v.
  Pairs Load(size_t i, size_t c, size_t v, uint16_t lanes) const {
    const size_t at = c + kPairLanes * v;
    return E::Load(row[2 * i] + at, row[2 * i + 1] + at, lanes);
  }
  // Prefetches what V vectors of pair `i` from channel `c` on cover in the next plane.
  template <int V>
  void Ahead(const uint8_t* next, size_t c, size_t i) const {
    next += c * kPageEntries * sizeof(T);
    PrefetchBytes(next, i, 2 * V * kPairLanes * sizeof(T));
  }
};

// V vectors of pair i from channel `c` on; lanes beyond the last channel are zeros.
template <int V, typename Values>
inline void LoadVectors(const Values& values, size_t i, size_t c, size_t dim, Pairs (&x)[V]) {
  const uint16_t last = LanesAt(c + kPairLanes * (V - 1), dim);
  KVASIR_UNROLL
  for (int v = 0; v < V; ++v) {
    x[v] = values.Load(i, c, static_cast<size_t>(v), v == V - 1 ? last : kAllLanes);
  }
}

// What each source adds to the table.
void FillPairExpand(PairKernels* table);
void FillPairScores(PairKernels* table);
void FillPairWeights(PairKernels* table);
void FillPairSums(PairKernels* table);

}  // namespace kvasir::KVASIR_SIMD

#endif
