// Rows of q8 and q4 V planes as bf16 pairs (kernels/pair_kernels.h): their values rounded.
#pragma once

#include "kernels/simd/pairs.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

// Live rows of a plane with their scales and minima. Rows that are not in `seen` are zeros.
template <Codec kCodec>
struct QuantizedPlane {
  static constexpr size_t kBits = kCodec == Codec::kQ8 ? 8 : 4;
  static void PrefetchRest(const uint8_t* next, size_t dim) { PrefetchScales(kCodec, next, dim); }

  const uint8_t* row[kPageEntries + 1];
  size_t block[kPageEntries + 1];  // the first of the row's in `scale` and `min`
  size_t n_pairs;
  BlockFactors scale, min;

  QuantizedPlane(const uint8_t* plane, PlaneShape shape, uint64_t live, uint64_t seen)
      : scale(plane + ScalesAt(kCodec, shape.dim), CodecBlocks(shape.dim)),
        min(plane + MinimaAt(shape.dim), kCodec == Codec::kQ4 ? CodecBlocks(shape.dim) : 0) {
    const size_t dim = shape.dim;
    const size_t bytes = PaddedChannels(dim) * kBits / 8, blocks = CodecBlocks(dim);
    size_t n = 0;
    if ((live & seen) == ~uint64_t{0}) {
      for (; n < kPageEntries; ++n) {
        row[n] = plane + n * bytes;
        block[n] = n * blocks;
      }
    } else {
      for (uint64_t left = live; left != 0; left &= left - 1) {
        const size_t slot = static_cast<size_t>(__builtin_ctzll(left));
        const bool read = seen >> slot & 1;
        row[n] = read ? plane + slot * bytes : kZeroRow;
        block[n++] = read ? slot * blocks : BlockFactors::kZeros;
      }
    }
    row[n] = kZeroRow;
    block[n] = BlockFactors::kZeros;
    n_pairs = (n + 1) / 2;
  }
  template <int V>
  void Ahead(const uint8_t* next, size_t c, size_t i) const {
    next += c * kPageEntries * kBits / 8;
    PrefetchBytes(next, i, 2 * V * kPairLanes * kBits / 8);
  }
};

struct PairedQ8 : QuantizedPlane<Codec::kQ8> {
  static constexpr bool kInPlace = true;
  using QuantizedPlane::QuantizedPlane;

  Pairs Load(size_t i, size_t c, size_t v, uint16_t lanes) const {
    const size_t at = c + kPairLanes * v, of_row = c / kCodecBlock + v / 2;
    return RoundToPairs(Values(2 * i, at, of_row, lanes), Values(2 * i + 1, at, of_row, lanes));
  }

 private:
  __m512 Values(size_t r, size_t at, size_t of_row, uint16_t lanes) const {
    const __m512i q = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, row[r] + at));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(scale.value[block[r] + of_row]));
  }
};

// The sixteen values of a row's block, rounded, are a table; nibbles are looked up.
struct PairedQ4 : QuantizedPlane<Codec::kQ4> {
  static constexpr bool kInPlace = true;
  using QuantizedPlane::QuantizedPlane;

  Pairs Load(size_t i, size_t c, size_t v, uint16_t lanes) const {
    const size_t of_row = c / kCodecBlock + v / 2;
    const __m512i table = __builtin_bit_cast(
        __m512i, _mm512_cvtne2ps_pbh(Levels(2 * i, of_row), Levels(2 * i + 1, of_row)));
    const size_t at = (c + kPairLanes * v) / 2;
    const auto nibbles = [&](size_t r) {
      return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row[r] + at));
    };
    const __m512i packed =
        _mm512_castsi128_si512(_mm_unpacklo_epi64(nibbles(2 * i + 1), nibbles(2 * i)));
    // Lane j: byte j / 2 of the second row in its low word, of the first row in its high word.
    const __m512i order =
        _mm512_set_epi32(0x000f0007, 0x000f0007, 0x000e0006, 0x000e0006, 0x000d0005, 0x000d0005,
                         0x000c0004, 0x000c0004, 0x000b0003, 0x000b0003, 0x000a0002, 0x000a0002,
                         0x00090001, 0x00090001, 0x00080000, 0x00080000);
    const __m512i bytes = _mm512_permutexvar_epi8(order, packed);
    const __m512i shifted = _mm512_srlv_epi16(bytes, _mm512_set1_epi64(0x0004000400000000));
    // The first row's levels are the upper half of the table: (a & b) | c.
    const __m512i index = _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(0x000f000f),
                                                    _mm512_set1_epi32(0x00100000), 0xea);
    return {_mm512_maskz_mov_epi32(lanes, _mm512_permutexvar_epi16(index, table))};
  }

 private:
  __m512 Levels(size_t r, size_t of_row) const {
    const __m512 q = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const size_t at = block[r] + of_row;
    return _mm512_fmadd_ps(q, _mm512_set1_ps(scale.value[at]), _mm512_set1_ps(min.value[at]));
  }
};

}  // namespace kvasir::KVASIR_SIMD

#endif
