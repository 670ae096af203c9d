// How kernels read the planes of each codec (kernels/plane.h): element types, and readers of K and
// V that give eight f32 values at a time. Written once; the kernels on top are templates over them.
#pragma once

#include "kernels/plane.h"
#include "kernels/plane_kernels.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

struct ElementF32 {
  using T = float;
  static F32 Load(const T* p) { return KVASIR_SIMD::Load(p); }
  static void Store(F32 a, T* p) { KVASIR_SIMD::Store(a, p); }
};
struct ElementF16 {
  using T = uint16_t;
  static F32 Load(const T* p) { return LoadF16(p); }
  static void Store(F32 a, T* p) { StoreF16(a, p); }
};
struct ElementBF16 {
  using T = uint16_t;
  static F32 Load(const T* p) { return LoadBF16(p); }
  static void Store(F32 a, T* p) { StoreBF16(a, p); }
};

// Before loops over a register tile: unrolled early, so that its sums become registers. GCC
// otherwise keeps them in memory as well.
#if defined(KVASIR_TARGET_PORTABLE)
#define KVASIR_UNROLL  // loops over lanes inside: left to the vectorizer
#elif defined(__clang__)
#define KVASIR_UNROLL _Pragma("unroll")
#else
#define KVASIR_UNROLL _Pragma("GCC unroll 16")
#endif

// Eight floats of a row of `dim`, `filler` beyond its end.
inline F32 LoadOfRow(const float* row, size_t c, size_t dim, float filler) {
  if (c + kLanes <= dim) return Load(row + c);
  float padded[kLanes];
  Store(Set(filler), padded);
  memcpy(padded, row + c, (dim - c) * sizeof(float));
  return Load(padded);
}

// Prefetches the `kBytes` that step `i` of a walk over the next plane covers. Reading planes at
// memory speed needs this: a tile takes less than a line of each channel, which hides the stream
// from the hardware.
template <size_t kBytes>
inline void PrefetchStep(const uint8_t* next, size_t i) {
  if constexpr (kBytes >= 64) {
    for (size_t b = 0; b < kBytes; b += 64) __builtin_prefetch(next + i * kBytes + b);
  } else {
    if (i % (64 / kBytes) == 0) __builtin_prefetch(next + i * kBytes);
  }
}

// Reader of a K plane. Tile, made for vectors of entries from `e` on, takes the channels one after
// another, all of them. Ahead<V> prefetches what step `i` of a walk by tiles of V vectors covers.
template <typename E>
struct FloatKeys {
  const typename E::T* data;

  FloatKeys(const uint8_t* plane, PlaneShape)
      : data(reinterpret_cast<const typename E::T*>(plane)) {}
  struct Tile {
    const typename E::T* row;
    Tile(const FloatKeys& keys, size_t e) : row(keys.data + e - kPageEntries) {}
    void NextChannel() { row += kPageEntries; }
    F32 Load(int v) const { return E::Load(row + 8 * v); }
  };
  template <int V>
  void Ahead(const uint8_t* next, size_t i) const {
    PrefetchStep<V * kLanes * sizeof(typename E::T)>(next, i);
  }
};

// Reader of a V plane. At(e, c) gives the channels of entry `e` from `c` on, in vectors. A tile of
// four and more vectors starts at a multiple of 32 channels, a smaller one lies inside 32, so that
// a vector's scale is known from c and v.
template <typename E>
struct FloatValues {
  static constexpr bool kScaled = false;
  const typename E::T* data;
  size_t dim;

  FloatValues(const uint8_t* plane, PlaneShape shape)
      : data(reinterpret_cast<const typename E::T*>(plane)), dim(shape.dim) {}
  struct Row {
    const typename E::T* at;
    F32 Load(int v) const { return E::Load(at + 8 * v); }
  };
  Row At(size_t e, size_t c) const { return {data + e * dim + c}; }
  template <int V>
  void Ahead(const uint8_t* next, size_t i) const {
    PrefetchStep<V * kLanes * sizeof(typename E::T)>(next, i);
  }
};

// f32 copies of the scales or minima of a V plane, and behind them zeros for a row of no page.
struct BlockFactors {
  static constexpr size_t kZeros = kPageEntries * kMaxHeadDim / kCodecBlock;
  float value[kZeros + kMaxHeadDim / kCodecBlock];

  BlockFactors(const uint8_t* at, size_t blocks) {
    memset(value + kZeros, 0, sizeof(value) - kZeros * sizeof(float));
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(at);
    for (size_t i = 0; i < kPageEntries * blocks; i += kLanes) {
      Store(LoadF16(halves + i), value + i);
    }
  }
};

struct Q8Values {
  static constexpr bool kScaled = true;
  const int8_t* data;
  size_t row, blocks;
  BlockFactors scale;

  Q8Values(const uint8_t* plane, PlaneShape shape)
      : data(reinterpret_cast<const int8_t*>(plane)),
        row(PaddedChannels(shape.dim)),
        blocks(CodecBlocks(shape.dim)),
        scale(plane + ScalesAt(Codec::kQ8, shape.dim), blocks) {}
  struct Row {
    const int8_t* at;
    const float* scale;
    F32 Load(int v) const { return Mul(LoadI8(at + 8 * v), Set(scale[v / 4])); }
  };
  Row At(size_t e, size_t c) const {
    return {data + e * row + c, scale.value + e * blocks + c / kCodecBlock};
  }
  template <int V>
  void Ahead(const uint8_t* next, size_t i) const {
    PrefetchStep<V * kLanes>(next, i);
  }
};

struct Q4Values {
  static constexpr bool kScaled = true;
  const uint8_t* data;
  size_t row, blocks;
  BlockFactors scale, min;

  Q4Values(const uint8_t* plane, PlaneShape shape)
      : data(plane),
        row(PaddedChannels(shape.dim) / 2),
        blocks(CodecBlocks(shape.dim)),
        scale(plane + ScalesAt(Codec::kQ4, shape.dim), blocks),
        min(plane + MinimaAt(shape.dim), blocks) {}
  struct Row {
    const uint8_t* at;
    const float *scale, *min;
    F32 Load(int v) const {
      return MulAdd(ToF32(LoadNibbles(at + 4 * v)), Set(scale[v / 4]), Set(min[v / 4]));
    }
  };
  Row At(size_t e, size_t c) const {
    const size_t block = e * blocks + c / kCodecBlock;
    return {data + e * row + c / 2, scale.value + block, min.value + block};
  }
  template <int V>
  void Ahead(const uint8_t* next, size_t i) const {
    PrefetchStep<V * kLanes / 2>(next, i);
  }
};

// Register tiles of attention kernels: up to kTileRows rows by TileVectors(rows) vectors. Eight
// sums and more hide the latency of MulAdd, and with operands they fit into 16 registers.
#if defined(KVASIR_TARGET_PORTABLE)
inline constexpr int kTileRows = 3;  // beyond, GCC keeps the sums in memory
constexpr int TileVectors(int rows) { return 4; }
#else
inline constexpr int kTileRows = 6;
constexpr int TileVectors(int rows) { return rows == 1 ? 8 : rows <= 3 ? 4 : 2; }
#endif
// Rows of the next tile when `n` are left: tiles of about equal height.
inline size_t NextTile(size_t n) {
  const size_t tiles = (n + kTileRows - 1) / kTileRows;
  return (n + tiles - 1) / tiles;
}

// Prefetches scales and minima, which are read first and whole.
inline void PrefetchScales(Codec codec, const uint8_t* next, size_t dim) {
  for (size_t b = ScalesAt(codec, dim); b < PlaneBytes(codec, dim); b += 64) {
    __builtin_prefetch(next + b);
  }
}

// What each source adds to the table.
void FillQuantized(PlaneKernels* table);
void FillSparse(PlaneKernels* table);
void FillSparsePack(PlaneKernels* table);
void FillScores(PlaneKernels* table);
void FillIntegerScores(PlaneKernels* table);
void FillWeightedSums(PlaneKernels* table);
void FillSoftmax(PlaneKernels* table);

}  // namespace kvasir::KVASIR_SIMD
