// Lanes of sparse rows: what bits of a bitmap and the values behind them stand for, and the readers
// of sparse planes that kernels over f32 values use (simd/plane_codecs.h).
#pragma once

#include "kernels/simd/plane_codecs.h"

namespace kvasir::KVASIR_SIMD {

inline uint64_t WordAt(const uint8_t* at) {
  uint64_t word;
  memcpy(&word, at, sizeof(word));
  return word;
}

// Per byte of a word the bits in the bytes up to and including it.
inline uint64_t BitsUpTo(uint64_t word) {
  word -= word >> 1 & 0x5555555555555555;
  word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
  word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
  word += word << 8;  // shifts and sums, which are vectors where a product is not
  word += word << 16;
  return word + (word << 32);
}

#if defined(KVASIR_X86)

// Per mask of eight lanes and byte of their values, kWidth each, which byte of the values goes
// there; 0x80: none. (Straight to 32-bit lanes would be a shuffle less and tables that fill a
// quarter of the L1 cache.)
template <size_t kWidth>
struct ExpandTable {
  alignas(16) uint8_t shuffle[256][8 * kWidth];

  constexpr ExpandTable() : shuffle{} {
    for (size_t mask = 0; mask < 256; ++mask) {
      uint8_t from = 0;
      for (size_t i = 0; i < 8 * kWidth; ++i) {
        shuffle[mask][i] = (mask >> i / kWidth & 1) != 0 ? from++ : uint8_t{0x80};
      }
    }
  }
};
inline constexpr ExpandTable<2> kExpandWords;
inline constexpr ExpandTable<1> kExpandBytes;

// Values move to the lanes whose bits are set in `mask`, the others become 0. Sixteen bytes (eight
// of int8) are read, whatever the mask.
inline __m128i Expand8(const uint16_t* values, uint8_t mask) {
  return _mm_shuffle_epi8(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(values)),
      _mm_load_si128(reinterpret_cast<const __m128i*>(kExpandWords.shuffle[mask])));
}
inline __m128i Expand8(const int8_t* values, uint8_t mask) {
  return _mm_shuffle_epi8(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(values)),
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kExpandBytes.shuffle[mask])));
}

#endif

// Values move to the lanes of `lanes` whose bits are set, the other lanes become 0. Returns where
// the values behind them begin. Up to 64 bytes are read, and 64 lanes written.
#if defined(KVASIR_TARGET_AVX512)
inline const uint16_t* Scatter(const uint16_t* values, uint64_t bits, uint16_t* lanes) {
  for (size_t i = 0; i < 64; i += 32, bits >>= 32) {
    const auto half = static_cast<uint32_t>(bits);
    const __m512i words = _mm512_maskz_expand_epi16(half, _mm512_loadu_si512(values));
    _mm512_storeu_si512(lanes + i, words);
    values += __builtin_popcount(half);
  }
  return values;
}
inline const int8_t* Scatter(const int8_t* values, uint64_t bits, int8_t* lanes) {
  _mm512_storeu_si512(lanes, _mm512_maskz_expand_epi8(bits, _mm512_loadu_si512(values)));
  return values + __builtin_popcountll(bits);
}
#elif defined(KVASIR_TARGET_AVX2)
template <typename T>
inline const T* Scatter(const T* values, uint64_t bits, T* lanes) {
  const uint64_t up_to = BitsUpTo(bits), before = up_to << 8;
  for (size_t i = 0; i < 64; i += 8) {
    const __m128i x = Expand8(values + (before >> i & 0xff), static_cast<uint8_t>(bits >> i));
    memcpy(lanes + i, &x, 8 * sizeof(T));
  }
  return values + (up_to >> 56);
}
#else
template <typename T>
inline const T* Scatter(const T* values, uint64_t bits, T* lanes) {
  memset(lanes, 0, 64 * sizeof(T));
  for (; bits != 0; bits &= bits - 1) lanes[__builtin_ctzll(bits)] = *values++;
  return values;
}
#endif

// Elements of sparse planes: the codec, the type of a value, eight lanes of them.
struct SparseBF16 : ElementBF16 {
  static constexpr Codec kCodec = Codec::kSparseBF16;
};
struct SparseF16 : ElementF16 {
  static constexpr Codec kCodec = Codec::kSparseF16;
};
struct SparseI8 {
  using T = int8_t;
  static constexpr Codec kCodec = Codec::kSparseI8;
  static F32 Load(const T* lanes) { return LoadI8(lanes); }
};

#if defined(KVASIR_X86)  // elsewhere lanes are slow, and planes expanded once for all rows

inline F32 Floats(SparseBF16, __m128i lanes) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(lanes), 16))};
}
inline F32 Floats(SparseF16, __m128i lanes) { return {_mm256_cvtph_ps(lanes)}; }
inline F32 Floats(SparseI8, __m128i lanes) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(lanes))};
}

// A sparse plane, and where the values of each byte of its bitmaps begin. Words of bitmaps lie as
// in the plane: K [dim], V [64][words].
template <typename E>
struct SparsePlane {
  using T = typename E::T;
  static constexpr bool kScaled = E::kCodec == Codec::kSparseI8;
  const T* values;
  const uint8_t* bitmaps;
  size_t vector_bytes;                      // of eight lanes, on the average
  float scale[kScaled ? kPageEntries : 1];  // per entry
  uint16_t start[kMaxHeadDim];              // per word, of its values among all
  uint64_t before[kMaxHeadDim];             // per word, byte by byte: bits in the bytes before

  SparsePlane(const uint8_t* plane, PlaneShape shape, size_t n_words)
      : values(reinterpret_cast<const T*>(plane)) {
    const PlaneForm form(E::kCodec, static_cast<uint16_t>(shape.keep));
    const size_t vectors = kPageEntries * ((shape.dim + kLanes - 1) / kLanes);
    vector_bytes = (PlaneBytes(form, shape.dim) + vectors - 1) / vectors;
    bitmaps = plane + SparseBitmapsAt(form);
    if constexpr (kScaled) {
      const uint16_t* halves = reinterpret_cast<const uint16_t*>(plane + SparseScalesAt(form));
      for (size_t e = 0; e < kPageEntries; e += kLanes) Store(LoadF16(halves + e), scale + e);
    }
    for (size_t i = 0; i < n_words; ++i) before[i] = BitsUpTo(WordAt(bitmaps + 8 * i));
    size_t n = 0;
    for (size_t i = 0; i < n_words; ++i) {
      start[i] = static_cast<uint16_t>(n);
      n += before[i] >> 56;
      before[i] <<= 8;
    }
  }

  // Lanes [8 i, 8 i + 8) of the words, as if they were one row; of_word: the values of their word.
  __m128i Lanes(size_t i, const T* of_word) const {
    return Expand8(of_word + reinterpret_cast<const uint8_t*>(before)[i], bitmaps[i]);
  }
  // Prefetches what step `i` of a walk by V vectors covers in the next plane.
  template <int V>
  void Ahead(const uint8_t* next, size_t i) const {
    const size_t bytes = V * vector_bytes;
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + i * bytes + b);
  }
};

// A K plane, read channel after channel (as FloatKeys).
template <typename E>
struct SparseKeys : SparsePlane<E> {
  SparseKeys(const uint8_t* plane, PlaneShape shape) : SparsePlane<E>(plane, shape, shape.dim) {}

  struct Tile {
    const SparseKeys& keys;
    const size_t e;
    size_t channel = ~size_t{0};
    const typename E::T* of_channel = nullptr;

    Tile(const SparseKeys& keys, size_t e) : keys(keys), e(e) {}
    void NextChannel() { of_channel = keys.values + keys.start[++channel]; }
    F32 Load(int v) const {
      const size_t byte = 8 * channel + e / kLanes + static_cast<size_t>(v);
      const F32 x = Floats(E(), keys.Lanes(byte, of_channel));
      if constexpr (!SparseKeys::kScaled) return x;
      return Mul(x, KVASIR_SIMD::Load(keys.scale + e + 8 * v));
    }
  };
};

// A V plane, read row after row (as FloatValues).
template <typename E>
struct SparseValues : SparsePlane<E> {
  const size_t words;
  SparseValues(const uint8_t* plane, PlaneShape shape)
      : SparsePlane<E>(plane, shape, kPageEntries * BitmapWords(shape.dim)),
        words(BitmapWords(shape.dim)) {}

  struct Row {
    const SparseValues& plane;
    size_t byte;  // of the bitmaps
    const typename E::T* of_word;
    float scale;
    F32 Load(int v) const {
      const F32 x = Floats(E(), plane.Lanes(byte + static_cast<size_t>(v), of_word));
      if constexpr (!SparseValues::kScaled) return x;
      return Mul(x, Set(scale));
    }
  };
  // Up to the end of the 64 channels of `c`.
  Row At(size_t e, size_t c) const {
    const size_t word = e * words + c / 64;
    return {*this, 8 * word + c % 64 / kLanes, this->values + this->start[word],
            SparseValues::kScaled ? this->scale[e] : 1};
  }
};

#endif

}  // namespace kvasir::KVASIR_SIMD
