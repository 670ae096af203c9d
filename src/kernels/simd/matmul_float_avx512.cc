// Fast products of bf16 weights on AVX-512 with BF16: activations are rounded to bf16, two steps of
// K at a time. vdpbf16ps adds the product of the high halves, then that of the low ones, each
// rounded to f32; the step that comes first lies in the high half, so an element is one MulAdd
// chain in ascending K over rounded activations (products of two bf16 are exact; subnormals count
// as zero).
#include "kernels/simd/target.h"

#if defined(KVASIR_TARGET_AVX512)

#include <immintrin.h>
#include <string.h>

#include "kernels/simd/matmul.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Activations that are converted at once: 64 KiB on the stack. Many rows take a stretch of K at a
// time; few take all of it where they can, so that weights are read in one stream.
constexpr size_t kTileFloats = 32768, kTileRows = 64;
constexpr int kMostRows = 8;
constexpr size_t kAheadBytes = 4096;

inline void Pin(__m512& v) { asm volatile("" : "+v"(v)); }

// `n` floats as pairs of bf16, zeros behind them.
void ToPairs(const float* x, size_t n, uint32_t* pairs) {
  for (size_t i = 0; i < n; i += 32) {
    const size_t left = n - i;
    const auto mask = [&](size_t from) -> __mmask16 {
      if (left <= from) return 0;
      return left - from >= 16 ? 0xffff : static_cast<__mmask16>((1u << (left - from)) - 1);
    };
    const __m512 low = _mm512_maskz_loadu_ps(mask(0), x + i);
    const __m512 high = _mm512_maskz_loadu_ps(mask(16), x + i + 16);
    const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
    __m512i bits;
    memcpy(&bits, &rounded, sizeof(bits));
    _mm512_store_si512(pairs + i / 2, _mm512_rol_epi32(bits, 16));
  }
}

inline __m512bh Weights(const uint8_t* p) {
  const __m512i bits = _mm512_loadu_si512(p);
  __m512bh w;
  memcpy(&w, &bits, sizeof(w));
  return w;
}

struct Stretch {  // of K, for one or two groups
  const uint8_t* w;
  size_t group_bytes, pairs;
  size_t stride;  // pairs between rows of activations
  bool first;     // otherwise sums go on from `out`
};

// R rows of G groups. kAhead: prefetches the weights that come.
template <int R, int G, bool kAhead>
void Tile(const Stretch& s, const uint32_t* x, float* out, size_t out_stride) {
  __m512 sum[R][G];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      sum[r][g] = s.first ? _mm512_setzero_ps()
                          : _mm512_loadu_ps(out + static_cast<size_t>(r) * out_stride + kGroup * g);
    }
  }
  for (size_t i = 0; i < s.pairs; ++i) {
    __m512bh weights[G];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      const uint8_t* p = s.w + static_cast<size_t>(g) * s.group_bytes + i * 64;
      if constexpr (kAhead) __builtin_prefetch(p + kAheadBytes);
      weights[g] = Weights(p);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i pair =
          _mm512_set1_epi32(static_cast<int>(x[static_cast<size_t>(r) * s.stride + i]));
      __m512bh a;
      memcpy(&a, &pair, sizeof(a));
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) {
        sum[r][g] = _mm512_dpbf16_ps(sum[r][g], weights[g], a);
        Pin(sum[r][g]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      _mm512_storeu_ps(out + static_cast<size_t>(r) * out_stride + kGroup * g, sum[r][g]);
    }
  }
}

template <int G, bool kAhead, int R>
void RowsUpTo(const Stretch& s, const uint32_t* x, size_t n, float* out, size_t out_stride) {
  if (n == R) return Tile<R, G, kAhead>(s, x, out, out_stride);
  if constexpr (R > 1) RowsUpTo<G, kAhead, R - 1>(s, x, n, out, out_stride);
}

// Tiles of about equal height.
template <int G>
void AllRows(const Stretch& s, const uint32_t* x, size_t n, float* out, size_t out_stride) {
  for (size_t r = 0; r < n;) {
    const size_t tiles = (n - r + kMostRows - 1) / kMostRows;
    const size_t rows = (n - r + tiles - 1) / tiles;
    const auto tile = r == 0 ? RowsUpTo<G, true, kMostRows> : RowsUpTo<G, false, kMostRows>;
    tile(s, x + r * s.stride, rows, out + r * out_stride, out_stride);
    r += rows;
  }
}

void FastBF16(const PackedGroups& w, const float* x, size_t x_stride, size_t n, float* out,
              size_t out_stride) {
  alignas(64) uint32_t pairs[kTileFloats / 2];
  for (size_t row = 0; row < n; row += kTileRows) {
    const size_t rows = n - row < kTileRows ? n - row : kTileRows;
    const size_t most = kTileFloats / rows / 32 * 32;
    for (size_t k = 0; k < w.k; k += most) {
      const size_t steps = w.k - k < most ? w.k - k : most;
      Stretch s = {nullptr, w.group_bytes, (steps + 1) / 2, most / 2, k == 0};
      for (size_t r = 0; r < rows; ++r) {
        ToPairs(x + (row + r) * x_stride + k, steps, pairs + r * s.stride);
      }
      float* to = out + row * out_stride;
      const uint8_t* from = w.data + k / 2 * 64;
      size_t g = 0;
      for (; g + 2 <= w.n_groups; g += 2) {
        s.w = from + g * w.group_bytes;
        AllRows<2>(s, pairs, rows, to + g * kGroup, out_stride);
      }
      for (; g < w.n_groups; ++g) {
        s.w = from + g * w.group_bytes;
        AllRows<1>(s, pairs, rows, to + g * kGroup, out_stride);
      }
    }
  }
}

}  // namespace

void FillFastFloat(kvasir::MatMulKernels* table) {
  table->fast_float[static_cast<int>(PackedKind::kBF16)] = FastBF16;
}

}  // namespace kvasir::KVASIR_SIMD

#endif
