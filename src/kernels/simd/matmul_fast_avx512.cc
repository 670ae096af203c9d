// Fast products on AVX-512 with VNNI. A *form* says how 32 steps of a group's 16 outputs ("a part")
// become eight vectors of unsigned bytes, byte 4c + j of vector s for output c, step 4s + j: what
// vpdpbusd multiplies with four activations that are broadcast to all outputs. A form whose bytes
// are w + kOffset starts its integer sums at -kOffset * the sum of the activations (128 is at
// hand); sums of 32 steps are exact, and Tile() folds all forms alike.
//
// Records are read where they are, whatever the number of rows: the weights of a part are unpacked
// in registers once for a tile of up to six rows by two groups, whose sums fill the 32 registers.
// GCC would spill them: Pin() keeps their order.
#include "kernels/simd/target.h"

#if defined(KVASIR_TARGET_AVX512)

#include <immintrin.h>
#include <string.h>

#include "kernels/simd/matmul.h"

namespace kvasir::KVASIR_SIMD {

namespace {

inline void Pin(__m512i& v) { asm volatile("" : "+v"(v)); }

inline __m512i LoadBytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline __m512i Broadcast(const void* p) {
  int32_t value;
  memcpy(&value, p, sizeof(value));
  return _mm512_set1_epi32(value);
}
inline __m512 LoadHalves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 LoadFloats(const uint8_t* p) { return _mm512_loadu_ps(p); }
inline __m512i LoadU8(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m512 Negative(__m512 v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }
inline __m512i LowNibbles(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
// Block s of eight, whose nibbles lie as in kQ4.
inline __m512i Nibbles(const uint8_t* p, int s) {
  const __m512i packed = LoadBytes(p + 64 * (s % 4));
  return LowNibbles(s < 4 ? packed : _mm512_srli_epi16(packed, 4));
}

// ---- forms -------------------------------------------------------------------------------------
//
// kHalves: each half of a part has an integer factor of its own, Factor(half) in f32.

struct FormOfBlocks {
  static constexpr size_t kPartsOfRecord = 1;
  static constexpr int kOffset = 0;
  static constexpr bool kMinima = false, kHalves = false, kHalfMinima = false;
  const uint8_t* p;
  void Set(const uint8_t* record, size_t) { p = record; }
  __m512 Min() const { return _mm512_setzero_ps(); }
  __m512 Factor(int) const { return _mm512_setzero_ps(); }
};

struct FormQ8 : FormOfBlocks {
  static constexpr int kOffset = 128;
  __m512i Weights(int s) const { return LoadBytes(p + 64 * s); }
  __m512 Scale() const { return LoadHalves(p + record::kQ8Scales); }
};

// Sixteen times the weights, whose scales are sixteen times smaller: their offset is 128.
struct FormQ4S : FormOfBlocks {
  static constexpr int kOffset = 128;
  __m512i Weights(int s) const {
    const __m512i packed = LoadBytes(p + 64 * (s % 4));
    return _mm512_and_si512(s < 4 ? _mm512_slli_epi16(packed, 4) : packed,
                            _mm512_set1_epi8(static_cast<char>(0xf0)));
  }
  __m512 Scale() const {
    return _mm512_mul_ps(LoadHalves(p + record::kQ4Scales), _mm512_set1_ps(1.0f / 16));
  }
};

struct FormQ4 : FormOfBlocks {
  static constexpr bool kMinima = true;
  __m512i Weights(int s) const { return Nibbles(p, s); }
  __m512 Scale() const { return LoadHalves(p + record::kQ4Scales); }
  __m512 Min() const { return LoadHalves(p + record::kQ4Minima); }
};

struct FormQ5 : FormOfBlocks {
  static constexpr bool kMinima = true;
  __m512i Weights(int s) const {
    const __m512i high = LoadBytes(p + record::kQ5High);
    const __m512i fifth = s <= 4 ? _mm512_slli_epi16(high, 4 - s) : _mm512_srli_epi16(high, s - 4);
    // (fifth & 16) | nibbles
    return _mm512_ternarylogic_epi32(Nibbles(p, s), fifth, _mm512_set1_epi8(16), 0xf8);
  }
  __m512 Scale() const { return LoadFloats(p + record::kQ5Scales); }
  __m512 Min() const { return LoadFloats(p + record::kQ5Minima); }
};

struct FormIQ4 : FormOfBlocks {
  static constexpr int kOffset = 128;
  __m512i Weights(int s) const {
    const __m128i table = _mm_xor_si128(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIQ4Table)), _mm_set1_epi8(-128));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), Nibbles(p, s));
  }
  __m512 Scale() const { return LoadFloats(p + record::kIQ4Scales); }
};

struct FormOfParts {
  static constexpr size_t kPartsOfRecord = 8;
  static constexpr int kOffset = 0;
  static constexpr bool kMinima = false, kHalves = false, kHalfMinima = false;
  const uint8_t* p;
  const uint8_t* part;
  __m512 Min() const { return _mm512_setzero_ps(); }
  __m512 Factor(int) const { return _mm512_setzero_ps(); }
};

struct FormQ4K : FormOfParts {
  static constexpr bool kMinima = true;
  void Set(const uint8_t* record, size_t b) {
    p = record;
    part = record + record::kQ4KParts + b * record::kQ4KPartBytes;
  }
  __m512i Weights(int s) const { return Nibbles(part, s); }
  __m512 Scale() const {
    return _mm512_mul_ps(LoadHalves(p), _mm512_cvtepi32_ps(LoadU8(part + record::kQ4KScales)));
  }
  __m512 Min() const {
    return Negative(_mm512_mul_ps(LoadHalves(p + record::kQ4KMinimum),
                                  _mm512_cvtepi32_ps(LoadU8(part + record::kQ4KMinima))));
  }
};

struct FormQ6K : FormOfParts {
  static constexpr int kOffset = 32;
  static constexpr bool kHalves = true;
  void Set(const uint8_t* record, size_t b) {
    p = record;
    part = record + record::kQ6KParts + b * record::kQ6KPartBytes;
  }
  __m512i Weights(int s) const {
    const __m512i high = LoadBytes(part + record::kQ6KHigh + 64 * (s / 4));
    const int up = 4 - 2 * (s % 4);
    const __m512i top = up >= 0 ? _mm512_slli_epi16(high, up) : _mm512_srli_epi16(high, -up);
    // (top & 0x30) | nibbles
    return _mm512_ternarylogic_epi32(Nibbles(part, s), top, _mm512_set1_epi8(0x30), 0xf8);
  }
  __m512 Scale() const { return LoadHalves(p); }
  __m512 Factor(int half) const {
    const uint8_t* scales = part + record::kQ6KScales + kGroup * static_cast<size_t>(half);
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))));
  }
};

struct FormQ2K : FormOfParts {
  static constexpr bool kHalves = true, kHalfMinima = true;
  void Set(const uint8_t* record, size_t b) {
    p = record;
    part = record + record::kQ2KParts + b * record::kQ2KPartBytes;
  }
  __m512i Weights(int s) const {
    const __m512i packed = LoadBytes(part + 64 * (s / 4));
    return _mm512_and_si512(_mm512_srli_epi16(packed, 2 * (s % 4)), _mm512_set1_epi8(3));
  }
  __m512i Factors(int half) const {
    return LoadU8(part + record::kQ2KFactors + kGroup * static_cast<size_t>(half));
  }
  __m512 Scale() const { return LoadHalves(p); }
  __m512 Min() const { return Negative(LoadHalves(p + record::kQ2KMinimum)); }
  __m512 Factor(int half) const {
    return _mm512_cvtepi32_ps(_mm512_and_si512(Factors(half), _mm512_set1_epi32(15)));
  }
  // Minima of both halves, as two int16 in every lane.
  __m512i HalfMinima() const {
    return _mm512_or_si512(_mm512_srli_epi32(Factors(0), 4),
                           _mm512_slli_epi32(_mm512_srli_epi32(Factors(1), 4), 16));
  }
};

// ---- loops -------------------------------------------------------------------------------------

// Int8 activations of one block, of the first row of a tile; its other rows lie `blocks` further
// on.
struct Activations {
  const int8_t* q;
  const float* scale;
  const float* scaled_sum;
  const int32_t* half_sums;
  const int32_t* starts;
  size_t blocks;
};

// dot += blocks [kFirst, kFirst + kCount) of four steps.
template <int kFirst, int kCount, typename Form, int R, int G>
inline void AddBlocks(const Form (&form)[G], const int8_t* q, size_t stride, __m512i (&dot)[R][G]) {
#pragma GCC unroll 8
  for (int s = kFirst; s < kFirst + kCount; ++s) {
    __m512i w[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) w[g] = form[g].Weights(s);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512i a = Broadcast(q + static_cast<size_t>(r) * stride + 4 * s);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        dot[r][g] = _mm512_dpbusd_epi32(dot[r][g], w[g], a);
        Pin(dot[r][g]);
      }
    }
  }
}

// The integer sums of all 32 steps of R rows, as floats; of halves with their factors.
template <typename Form, int R, int G>
inline void Dots(const Form (&form)[G], const Activations& x, __m512 (&product)[R][G]) {
  const size_t stride = x.blocks * kActBlock;
  __m512i dot[R][G];
  if constexpr (!Form::kHalves) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      __m512i start = _mm512_setzero_si512();
      if constexpr (Form::kOffset != 0) {
        static_assert(Form::kOffset == 128);
        start = Broadcast(x.starts + static_cast<size_t>(r) * x.blocks);
      }
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) dot[r][g] = start;
    }
    AddBlocks<0, 8>(form, x.q, stride, dot);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) product[r][g] = _mm512_cvtepi32_ps(dot[r][g]);
    }
  } else {
#pragma GCC unroll 4
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        __m512i start = _mm512_setzero_si512();
        if constexpr (Form::kOffset != 0) {
          const int32_t factor = half == 0 ? -Form::kOffset & 0xffff : -Form::kOffset * 65536;
          start = _mm512_madd_epi16(Broadcast(x.half_sums + static_cast<size_t>(r) * x.blocks),
                                    _mm512_set1_epi32(factor));
        }
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) dot[r][g] = start;
      }
      if (half == 0) {
        AddBlocks<0, 4>(form, x.q, stride, dot);
      } else {
        AddBlocks<4, 4>(form, x.q, stride, dot);
      }
      __m512 factor[G];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) factor[g] = form[g].Factor(half);
      // All of it below 2^24: exact in f32.
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
          const __m512 d = _mm512_cvtepi32_ps(dot[r][g]);
          product[r][g] = half == 0 ? _mm512_mul_ps(d, factor[g])
                                    : _mm512_fmadd_ps(d, factor[g], product[r][g]);
        }
      }
    }
  }
}

// What a block adds to the chains of R rows.
template <typename Form, int R, int G>
inline void AddPart(const Form (&form)[G], const Activations& x, __m512 (&sum)[R][G]) {
  __m512 product[R][G];
  Dots<Form, R, G>(form, x, product);
  __m512 scale[G];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) scale[g] = form[g].Scale();
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const __m512 a_scale = _mm512_set1_ps(x.scale[static_cast<size_t>(r) * x.blocks]);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      sum[r][g] = _mm512_fmadd_ps(product[r][g], _mm512_mul_ps(scale[g], a_scale), sum[r][g]);
    }
  }
  if constexpr (Form::kMinima) {
    __m512 min[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) min[g] = form[g].Min();
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512 scaled_sum = _mm512_set1_ps(x.scaled_sum[static_cast<size_t>(r) * x.blocks]);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) sum[r][g] = _mm512_fmadd_ps(min[g], scaled_sum, sum[r][g]);
    }
  }
  if constexpr (Form::kHalfMinima) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const __m512i minima = form[g].HalfMinima();
      const __m512 min = form[g].Min();
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const size_t at = static_cast<size_t>(r) * x.blocks;
        const __m512 dot =
            _mm512_cvtepi32_ps(_mm512_madd_epi16(minima, Broadcast(x.half_sums + at)));
        const __m512 factor = _mm512_mul_ps(min, _mm512_set1_ps(x.scale[at]));
        sum[r][g] = _mm512_fmadd_ps(dot, factor, sum[r][g]);
      }
    }
  }
}

// G consecutive groups of packed weights.
struct Weights {
  const uint8_t* data;
  size_t group_bytes, record_bytes;
};

template <typename Form, int G>
inline void FormsOf(const Weights& w, size_t b, Form (&form)[G]) {
  const uint8_t* record = w.data + b / Form::kPartsOfRecord * w.record_bytes;
  for (size_t g = 0; g < G; ++g) form[g].Set(record + g * w.group_bytes, b % Form::kPartsOfRecord);
}

// How far ahead of a single stream.
constexpr size_t kAheadBytes = 6144;

// R rows of G groups over all parts. kAhead: prefetches the groups behind them.
template <typename Form, int R, int G, bool kAhead>
void Tile(const Weights& w, const QuantizedRows& x, float* out, size_t out_stride) {
  __m512 sum[R][G];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) sum[r][g] = _mm512_setzero_ps();
  }
  for (size_t b = 0; b < x.blocks; ++b) {
    if constexpr (kAhead) {
      const size_t step = w.record_bytes / Form::kPartsOfRecord;
      const uint8_t* ahead = w.data + b * step + (G > 1 ? G * w.group_bytes : kAheadBytes);
      for (size_t g = 0; g < G; ++g, ahead += w.group_bytes) {
        for (size_t i = 0; i < step; i += 64) __builtin_prefetch(ahead + i);
      }
    }
    Form form[G];
    FormsOf(w, b, form);
    AddPart<Form, R, G>(form,
                        {x.q + b * kActBlock, x.scale + b, x.scaled_sum + b, x.half_sums + b,
                         x.starts + b, x.blocks},
                        sum);
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      _mm512_storeu_ps(out + static_cast<size_t>(r) * out_stride + kGroup * g, sum[r][g]);
    }
  }
}

// Rests of some rows in ascending order of blocks: outliers keep to their channels, so that the
// rows of a block go in tiles, beside each other in memory.
class RestList {
 public:
  // Takes rests of rows from *row on, first that with the number *rest, until the list is full or
  // no row is left; moves both on.
  void Take(const QuantizedRows& x, size_t rows, size_t* row, size_t* rest) {
    n_ = 0;
    for (; *row < rows; ++*row, *rest = 0) {
      for (; *rest < x.n_rests[*row]; ++*rest) {
        if (n_ == kMost) return Gather(x);
        const size_t at = *row * x.blocks + *rest;
        entries_[n_++] = {static_cast<uint32_t>(*row), x.rest_block[at], static_cast<uint32_t>(at)};
      }
    }
    Gather(x);
  }

  size_t n() const { return n_; }
  size_t row(size_t i) const { return entries_[i].row; }
  size_t block(size_t i) const { return entries_[i].block; }
  Activations From(size_t i) const {
    return {q_ + i * kActBlock, scale_ + i, scaled_sum_ + i, half_sums_ + i, starts_ + i, 1};
  }

 private:
  static constexpr size_t kMost = 512;
  struct Entry {
    uint32_t row, block, at;  // at: place among all rests
  };

  void Gather(const QuantizedRows& x) {
    if (n_ > 0 && entries_[n_ - 1].row != entries_[0].row) SortByBlock(x.blocks);
    for (size_t i = 0; i < n_; ++i) {
      const size_t at = entries_[i].at;
      memcpy(q_ + i * kActBlock, x.rest_q + at * kActBlock, kActBlock);
      scale_[i] = x.rest_scale[at];
      scaled_sum_[i] = x.rest_scaled_sum[at];
      half_sums_[i] = x.rest_half_sums[at];
      starts_[i] = x.rest_starts[at];
    }
  }

  // By counting, eight bits at a time; a row's rests keep their order, as they ascend.
  void SortByBlock(size_t blocks) {
    Entry sorted[kMost];
    for (int shift = 0; (blocks - 1) >> shift != 0; shift += 8) {
      uint32_t begin[257] = {};
      for (size_t i = 0; i < n_; ++i) ++begin[(entries_[i].block >> shift & 255) + 1];
      for (size_t i = 0; i < 256; ++i) begin[i + 1] += begin[i];
      for (size_t i = 0; i < n_; ++i) {
        sorted[begin[entries_[i].block >> shift & 255]++] = entries_[i];
      }
      memcpy(entries_, sorted, n_ * sizeof(Entry));
    }
  }

  alignas(64) int8_t q_[kMost * kActBlock];
  float scale_[kMost], scaled_sum_[kMost];
  int32_t half_sums_[kMost], starts_[kMost];
  Entry entries_[kMost];
  size_t n_ = 0;
};

// Continues the chains of R listed rows in G groups by the rests from `i` on, of one block.
template <typename Form, int R, int G>
inline void AddRests(const Weights& w, const RestList& list, size_t i, float* out,
                     size_t out_stride) {
  Form form[G];
  FormsOf(w, list.block(i), form);
  __m512 sum[R][G];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const float* from = out + list.row(i + static_cast<size_t>(r)) * out_stride;
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) sum[r][g] = _mm512_loadu_ps(from + kGroup * g);
  }
  AddPart<Form, R, G>(form, list.From(i), sum);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    float* to = out + list.row(i + static_cast<size_t>(r)) * out_stride;
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) _mm512_storeu_ps(to + kGroup * g, sum[r][g]);
  }
}

template <typename Form, int G>
void AddRestsToGroups(const Weights& w, const RestList& list, float* out, size_t out_stride) {
  constexpr int kRows = G > 2 ? 1 : G > 1 ? 4 : 6;
  for (size_t i = 0; i < list.n();) {
    size_t n = 1;
    while (n < kRows && i + n < list.n() && list.block(i + n) == list.block(i)) ++n;
    if (n == kRows) {
      AddRests<Form, kRows, G>(w, list, i, out, out_stride);
      i += n;
    } else {
      for (; n > 0; --n) AddRests<Form, 1, G>(w, list, i++, out, out_stride);
    }
  }
}

template <typename Form>
void AddRestsToAll(const PackedGroups& w, size_t record_bytes, const QuantizedRows& x, size_t n,
                   float* out, size_t out_stride) {
  RestList list;
  for (size_t row = 0, rest = 0; row < n;) {
    list.Take(x, n, &row, &rest);
    Weights groups = {w.data, w.group_bytes, record_bytes};
    size_t g = 0;
    for (; n == 1 && g + 4 <= w.n_groups; g += 4, groups.data += 4 * w.group_bytes) {
      AddRestsToGroups<Form, 4>(groups, list, out + g * kGroup, out_stride);
    }
    for (; g + 2 <= w.n_groups; g += 2, groups.data += 2 * w.group_bytes) {
      AddRestsToGroups<Form, 2>(groups, list, out + g * kGroup, out_stride);
    }
    for (; g < w.n_groups; ++g, groups.data += w.group_bytes) {
      AddRestsToGroups<Form, 1>(groups, list, out + g * kGroup, out_stride);
    }
  }
}

// Halves need a second set of sums.
template <typename Form, int G>
constexpr size_t kMostRows = (Form::kHalves ? 8 : 12) / G;

template <typename Form, int G, bool kAhead, int R>
void RowsUpTo(const Weights& w, const QuantizedRows& x, size_t n, float* out, size_t out_stride) {
  if (n == R) return Tile<Form, R, G, kAhead>(w, x, out, out_stride);
  if constexpr (R > 1) RowsUpTo<Form, G, kAhead, R - 1>(w, x, n, out, out_stride);
}

// All rows of G groups, in tiles of about equal height.
template <typename Form, int G>
void AllRows(const Weights& w, const QuantizedRows& x, size_t n, float* out, size_t out_stride) {
  constexpr size_t kMost = kMostRows<Form, G>;
  for (size_t r = 0; r < n;) {
    const size_t tiles = (n - r + kMost - 1) / kMost;
    const size_t rows = (n - r + tiles - 1) / tiles;
    const auto tile = r == 0 ? RowsUpTo<Form, G, true, static_cast<int>(kMost)>
                             : RowsUpTo<Form, G, false, static_cast<int>(kMost)>;
    tile(w, x.From(r), rows, out + r * out_stride, out_stride);
    r += rows;
  }
}

template <PackedKind kKind, typename Form>
void Fast(const PackedGroups& w, const QuantizedRows& x, size_t n, float* out, size_t out_stride) {
  Weights groups = {w.data, w.group_bytes, Record(kKind).bytes};
  size_t g = 0;
  for (; n > kMostRows<Form, 1> && g + 2 <= w.n_groups; g += 2) {
    AllRows<Form, 2>(groups, x, n, out + g * kGroup, out_stride);
    groups.data += 2 * w.group_bytes;
  }
  for (; g < w.n_groups; ++g) {
    AllRows<Form, 1>(groups, x, n, out + g * kGroup, out_stride);
    groups.data += w.group_bytes;
  }
  AddRestsToAll<Form>(w, Record(kKind).bytes, x, n, out, out_stride);
}

}  // namespace

void FillFast(kvasir::MatMulKernels* table) {
  const auto set = [table](PackedKind kind, auto* f) { table->fast[static_cast<int>(kind)] = f; };
  set(PackedKind::kQ8, Fast<PackedKind::kQ8, FormQ8>);
  set(PackedKind::kQ4, Fast<PackedKind::kQ4, FormQ4>);
  set(PackedKind::kQ4S, Fast<PackedKind::kQ4S, FormQ4S>);
  set(PackedKind::kQ4K, Fast<PackedKind::kQ4K, FormQ4K>);
  set(PackedKind::kQ6K, Fast<PackedKind::kQ6K, FormQ6K>);
  set(PackedKind::kQ5, Fast<PackedKind::kQ5, FormQ5>);
  set(PackedKind::kIQ4, Fast<PackedKind::kIQ4, FormIQ4>);
  set(PackedKind::kQ2K, Fast<PackedKind::kQ2K, FormQ2K>);
}

}  // namespace kvasir::KVASIR_SIMD

#endif
