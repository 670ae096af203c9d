// Scores of query rows against keys by integer products (PlaneKernels::integer_scores).
// Lanes are entries; a register tile of R rows by V vectors of entries takes the keys pair of
// channels after pair. Integer sums are exact and every tile folds blocks alike, so neither the
// shape of a tile nor the number of rows touches a bit. For many rows the keys are widened once for
// all of them. Sparse keys first become pairs of bytes as q8 has them.
#include "kernels/simd/integer_lanes.h"
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Vectors of entries beside R rows, and the rows up to which every tile widens keys as it reads
// them.
#if defined(KVASIR_TARGET_AVX512)
constexpr int KeyVectors(int) { return 4; }  // all 64 entries: planes are read in order
constexpr size_t kWidenAbove = 2 * kTileRows;
#else
constexpr int KeyVectors(int rows) { return TileVectors(rows); }
constexpr size_t kWidenAbove = kTileRows;
#endif

// Readers of keys: Load() gives kPairs pairs of channels of the entries from `e`, Pair() one of
// them. kBlock channels share a scale.
struct Q8Pairs {
  static constexpr Codec kCodec = Codec::kQ8;
  static constexpr size_t kBlock = kCodecBlock;
  static constexpr size_t kPairs = 1;
  static constexpr size_t kBytes = 2;  // of an entry in a step
  const uint8_t* data;
  Shorts Load(size_t step, size_t e) const {
    return SignedBytes(data + (step * kPageEntries + e) * 2);
  }
  static Shorts Pair(Shorts loaded, size_t) { return loaded; }
};
struct Q4Pairs {
  static constexpr Codec kCodec = Codec::kQ4;
  static constexpr size_t kBlock = kCodecBlock;
  static constexpr size_t kPairs = 2;
  static constexpr size_t kBytes = 2;
  const uint8_t* data;
  Shorts Load(size_t step, size_t e) const {
    return UnsignedBytes(data + (step * kPageEntries + e) * 2);
  }
  static Shorts Pair(Shorts loaded, size_t p) {
    return p == 0 ? LowHalf(loaded) : HighHalf(loaded);
  }
};
// Sparse keys expanded to bytes, [pairs][64][2].
struct ExpandedPairs : Q8Pairs {
  static constexpr Codec kCodec = Codec::kSparseI8;
  static constexpr size_t kBlock = kMaxHeadDim;
};
// Keys of any codec, widened to [pairs][64][2].
template <typename Keys>
struct WidePairs {
  static constexpr Codec kCodec = Keys::kCodec;
  static constexpr size_t kBlock = Keys::kBlock;
  static constexpr size_t kPairs = 1;
  static constexpr size_t kBytes = 4;
  const int16_t* data;
  Shorts Load(size_t step, size_t e) const {
    return LoadShorts(data + (step * kPageEntries + e) * 2);
  }
  static Shorts Pair(Shorts loaded, size_t) { return loaded; }
};

template <typename Keys>
struct Page {
  Keys keys;
  size_t steps, blocks;    // of all channels
  const uint16_t* scales;  // then minima

  Page(const Keys& keys, size_t dim, const uint8_t* scales)
      : keys(keys),
        steps(PaddedChannels(dim) / (2 * Keys::kPairs)),
        blocks((dim + Keys::kBlock - 1) / Keys::kBlock),
        scales(reinterpret_cast<const uint16_t*>(scales)) {}
  Wide Scale(size_t block, size_t e) const { return LoadHalves(scales + block * kPageEntries + e); }
  Wide Min(size_t block, size_t e) const { return Scale(blocks + block, e); }
};

// R rows from `row` on against the V vectors from entry `e`. The chains wait in `scores` while a
// block is summed: the registers are full of integers.
template <bool kAhead, typename Keys, int R, int V>
inline void ScoreTile(const QuantizedQueries& q, size_t row, const Page<Keys>& page, size_t e,
                      const uint8_t* next, float* scores, size_t stride) {
  constexpr size_t kSteps = Keys::kBlock / (2 * Keys::kPairs);
  const int16_t* rows = q.q + row * q.stride;
  for (size_t b = 0; b < page.blocks; ++b) {
    Ints sum[R][V];
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      KVASIR_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = NoInts();
    }
    const size_t end = (b + 1) * kSteps < page.steps ? (b + 1) * kSteps : page.steps;
    for (size_t step = b * kSteps; step < end; ++step) {
      if constexpr (kAhead) {
        constexpr size_t kBytes = V * kInts * Keys::kBytes;
        PrefetchStep<kBytes>(next, e / (V * kInts) * page.steps + step);
      }
      Shorts loaded[V];
      KVASIR_UNROLL
      for (int v = 0; v < V; ++v) {
        loaded[v] = page.keys.Load(step, e + static_cast<size_t>(v) * kInts);
      }
      KVASIR_UNROLL
      for (size_t p = 0; p < Keys::kPairs; ++p) {
        Shorts k[V];
        KVASIR_UNROLL
        for (int v = 0; v < V; ++v) k[v] = Keys::Pair(loaded[v], p);
        KVASIR_UNROLL
        for (int r = 0; r < R; ++r) {
          const size_t c = 2 * (step * Keys::kPairs + p);
          const Shorts x = SetShorts(rows + static_cast<size_t>(r) * q.stride + c);
          KVASIR_UNROLL
          for (int v = 0; v < V; ++v) {
            sum[r][v] = AddDot(sum[r][v], k[v], x);
            Pin(sum[r][v]);
          }
        }
      }
    }
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) {
      const size_t at = e + static_cast<size_t>(v) * kInts;
      const Wide scale = page.Scale(b, at);
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const size_t i = static_cast<size_t>(r);
        float* to = scores + (row + i) * stride + at;
        Wide s = MulAdd(ToWide(sum[r][v]), scale, b == 0 ? SetWide(0) : LoadWide(to));
        if constexpr (Keys::kCodec == Codec::kQ4) {
          s = MulAdd(page.Min(b, at), SetWide(q.sums[(row + i) * q.blocks + b]), s);
        }
        if (b + 1 == page.blocks) s = Mul(s, SetWide(q.scale[row + i]));
        StoreWide(s, to);
      }
    }
  }
}

// n in [1, R] rows.
template <int R, bool kAhead, typename Keys>
void ScoreUpTo(const QuantizedQueries& q, size_t row, size_t n, const Page<Keys>& page,
               const uint8_t* next, float* scores, size_t stride) {
  if (n == R) {
    constexpr int V = KeyVectors(R);
    for (size_t e = 0; e < kPageEntries; e += V * kInts) {
      ScoreTile<kAhead, Keys, R, V>(q, row, page, e, next, scores, stride);
    }
  } else if constexpr (R > 1) {
    ScoreUpTo<R - 1, kAhead, Keys>(q, row, n, page, next, scores, stride);
  }
}

template <typename Keys>
void Widen(const Page<Keys>& page, const uint8_t* next, int16_t* out) {
  for (size_t step = 0; step < page.steps; ++step) {
    if (next != nullptr) PrefetchStep<kPageEntries * Keys::kBytes>(next, step);
    for (size_t e = 0; e < kPageEntries; e += kInts) {
      const Shorts loaded = page.keys.Load(step, e);
      for (size_t p = 0; p < Keys::kPairs; ++p) {
        StoreShorts(Keys::Pair(loaded, p),
                    out + ((step * Keys::kPairs + p) * kPageEntries + e) * 2);
      }
    }
  }
}

// Rows in tiles of about equal height; the first one prefetches.
template <typename Keys>
void ScoreTiles(const QuantizedQueries& q, size_t n, const Page<Keys>& page, const uint8_t* next,
                float* scores, size_t stride) {
  for (size_t r = 0; r < n;) {
    const size_t rows = NextTile(n - r);
    const auto score = next != nullptr && r == 0 ? ScoreUpTo<kTileRows, true, Keys>
                                                 : ScoreUpTo<kTileRows, false, Keys>;
    score(q, r, rows, page, next, scores, stride);
    r += rows;
  }
}

// All rows; `scales` of the keys follow each other in memory.
template <typename Keys>
void ScorePage(const QuantizedQueries& q, size_t n, const Keys& keys, size_t dim,
               const uint8_t* scales, const uint8_t* next, float* scores, size_t stride) {
  const Page<Keys> page(keys, dim, scales);
  if (n <= kWidenAbove) return ScoreTiles(q, n, page, next, scores, stride);
  alignas(64) int16_t wide[kPageEntries * kMaxHeadDim];
  Widen(page, next, wide);
  ScoreTiles(q, n, Page<WidePairs<Keys>>({wide}, dim, scales), nullptr, scores, stride);
}

template <typename Keys>
void IntegerScores(const QuantizedQueries& q, size_t n, const uint8_t* plane, PlaneShape shape,
                   const uint8_t* next, float* scores, size_t stride) {
  if (next != nullptr) PrefetchScales(Keys::kCodec, next, shape.dim);
  const uint8_t* scales = plane + ScalesAt(Keys::kCodec, shape.dim);
  ScorePage(q, n, Keys{plane}, shape.dim, scales, next, scores, stride);
}

// The integers of a sparse plane as pairs of bytes: channels 2 i and 2 i + 1 of 64 entries at
// out + 128 i. prefetch(i) comes before each pair.
template <typename F>
void ExpandSparse(const uint8_t* plane, PlaneShape shape, const F& prefetch, uint8_t* out) {
  const size_t n_pairs = PaddedChannels(shape.dim) / 2;
#if defined(KVASIR_TARGET_AVX2)
  const SparsePlane<SparseI8> sparse(plane, shape, shape.dim);
  for (size_t i = 0; i < n_pairs; ++i) {
    prefetch(i);
    for (size_t e = 0; e < kPageEntries; e += kLanes, out += 2 * kLanes) {
      const auto channel = [&](size_t c) {
        if (c >= shape.dim) return _mm_setzero_si128();
        return sparse.Lanes(8 * c + e / kLanes, sparse.values + sparse.start[c]);
      };
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                       _mm_unpacklo_epi8(channel(2 * i), channel(2 * i + 1)));
    }
  }
#else
  const PlaneForm form(Codec::kSparseI8, static_cast<uint16_t>(shape.keep));
  const uint8_t* bitmaps = plane + SparseBitmapsAt(form);
  const int8_t* values = reinterpret_cast<const int8_t*>(plane);
  for (size_t i = 0; i < n_pairs; ++i, out += 2 * kPageEntries) {
    prefetch(i);
    const uint64_t first = 2 * i < shape.dim ? WordAt(bitmaps + 16 * i) : 0;
    const uint64_t second = 2 * i + 1 < shape.dim ? WordAt(bitmaps + 16 * i + 8) : 0;
#if defined(KVASIR_TARGET_AVX512)
    const __m512i a = _mm512_maskz_expand_epi8(first, _mm512_loadu_si512(values));
    values += __builtin_popcountll(first);
    const __m512i b = _mm512_maskz_expand_epi8(second, _mm512_loadu_si512(values));
    values += __builtin_popcountll(second);
    // Unpacking works in quarters of a vector, of which it leaves every second one behind.
    const __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
    const __m512i front = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i back = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi64(low, front, high));
    _mm512_storeu_si512(out + 64, _mm512_permutex2var_epi64(low, back, high));
#else
    int8_t lanes[2][kPageEntries];
    values = Scatter(Scatter(values, first, lanes[0]), second, lanes[1]);
    for (size_t e = 0; e < kPageEntries; ++e) {
      out[2 * e] = static_cast<uint8_t>(lanes[0][e]);
      out[2 * e + 1] = static_cast<uint8_t>(lanes[1][e]);
    }
#endif
  }
#endif
}

void SparseIntegerScores(const QuantizedQueries& q, size_t n, const uint8_t* plane,
                         PlaneShape shape, const uint8_t* next, float* scores, size_t stride) {
  alignas(64) uint8_t pairs[kPageEntries * kMaxHeadDim];
  const PlaneForm form(Codec::kSparseI8, static_cast<uint16_t>(shape.keep));
  const size_t n_pairs = PaddedChannels(shape.dim) / 2;
  const size_t step = (PlaneBytes(form, shape.dim) + n_pairs - 1) / n_pairs;
  const auto prefetch = [&](size_t i) {
    for (size_t b = 0; next != nullptr && b < step; b += 64) {
      __builtin_prefetch(next + i * step + b);
    }
  };
  ExpandSparse(plane, shape, prefetch, pairs);
  ScorePage(q, n, ExpandedPairs{{pairs}}, shape.dim, plane + SparseScalesAt(form), nullptr, scores,
            stride);
}

// Below it 32767 / amax would overflow.
constexpr float kSmallestAmax = 7.7037197775489434e-34f;  // 2^-110

void QuantizeQuery(const float* q, size_t dim, int16_t* out, float* sums, float* scale) {
  uint32_t largest = 0;  // as integers, magnitudes order like the floats, with NaN on top
  for (size_t c = 0; c < dim; ++c) {
    uint32_t bits;
    memcpy(&bits, q + c, sizeof(bits));
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  float amax;
  memcpy(&amax, &largest, sizeof(amax));
  const bool finite = largest < 0x7f800000, usable = finite && amax >= kSmallestAmax;
  *scale = usable ? amax / 32767.0f : finite ? 0.0f : __builtin_nanf("");
  const float inverse = usable ? 32767.0f / amax : 0.0f;
  for (size_t b = 0; b < CodecBlocks(dim); ++b) {
    int32_t sum = 0;
    for (size_t c = b * kCodecBlock; c < (b + 1) * kCodecBlock; ++c) {
      const float magic = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer
      out[c] = c < dim && usable ? static_cast<int16_t>((q[c] * inverse + magic) - magic) : 0;
      sum += out[c];
    }
    sums[b] = static_cast<float>(sum);
  }
}

}  // namespace

void FillIntegerScores(PlaneKernels* table) {
  for (auto& scores : table->integer_scores) scores = nullptr;
  table->integer_scores[static_cast<int>(Codec::kQ8)] = IntegerScores<Q8Pairs>;
  table->integer_scores[static_cast<int>(Codec::kQ4)] = IntegerScores<Q4Pairs>;
  table->integer_scores[static_cast<int>(Codec::kSparseI8)] = SparseIntegerScores;
  table->quantize_query = QuantizeQuery;
}

}  // namespace kvasir::KVASIR_SIMD
