// Weighted sums of the rows of a V plane in bf16 pairs. Lanes are channels; a register tile of R
// rows by V vectors of channels stays in registers over all live entries of the page.
#include "kernels/simd/pairs_quantized.h"
#include "kernels/simd/pairs_sparse.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

namespace {

// A V plane expanded to pairs.
struct PairedValues {
  static constexpr bool kInPlace = false;
  const uint32_t* data;
  size_t n_pairs, padded_dim;
  Pairs Load(size_t i, size_t c, size_t v, uint16_t lanes) const {
    return LoadPairs(data + i * padded_dim + c + kPairLanes * v);
  }
};

template <typename Values, int R, int V>
inline void SumTile(const uint32_t* p, size_t p_stride, const Values& values, size_t c, size_t dim,
                    const uint8_t* next, float* out, size_t out_stride) {
  __m512 sum[R][V];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = _mm512_loadu_ps(out + r * out_stride + c + 16 * v);
  }
  for (size_t i = 0; i < values.n_pairs; ++i) {
    if constexpr (Values::kInPlace) values.template Ahead<V>(next, c, i);
    Pairs x[V];
    LoadVectors(values, i, c, dim, x);
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      const Pairs weight = SetPair(p[r * p_stride + i]);
      KVASIR_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = Dot(sum[r][v], weight, x[v]);
    }
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(out + r * out_stride + c + 16 * v, sum[r][v]);
  }
}

// All channels of R rows: tiles of V vectors, the rest in halves.
template <typename Values, int R, int V>
void SumRows(const uint32_t* p, size_t p_stride, const Values& values, size_t c, size_t dim,
             const uint8_t* next, float* out, size_t out_stride) {
  const size_t padded = PaddedDim(dim);
  for (; c + V * kPairLanes <= padded; c += V * kPairLanes) {
    SumTile<Values, R, V>(p, p_stride, values, c, dim, next, out, out_stride);
  }
  if constexpr (V > 1) {
    if (c < padded) SumRows<Values, R, V / 2>(p, p_stride, values, c, dim, next, out, out_stride);
  }
}

// n in [1, R] rows.
template <typename Values, int R>
void SumUpTo(const uint32_t* p, size_t p_stride, size_t n, const Values& values, size_t dim,
             const uint8_t* next, float* out, size_t out_stride) {
  if (n == R) {
    constexpr int kVectors = R > 6 ? 2 : 4;
    return SumRows<Values, R, kVectors>(p, p_stride, values, 0, dim, next, out, out_stride);
  }
  if constexpr (R > 1) {
    SumUpTo<Values, R - 1>(p, p_stride, n, values, dim, next, out, out_stride);
  }
}

// Tiles of about equal height, at most kRows.
template <int kRows, typename Values>
void SumTiles(const uint32_t* p, size_t p_stride, size_t n, const Values& values, size_t dim,
              const uint8_t* next, float* out, size_t out_stride) {
  size_t tiles = (n + kRows - 1) / kRows;
  for (size_t r = 0; r < n; --tiles) {
    const size_t rows = (n - r + tiles - 1) / tiles;
    SumUpTo<Values, kRows>(p + r * p_stride, p_stride, rows, values, dim, next,
                           out + r * out_stride, out_stride);
    r += rows;
  }
}

void Sums(const uint32_t* p, size_t p_stride, size_t n, const uint32_t* v, size_t n_pairs,
          size_t dim, float* out, size_t out_stride) {
  SumTiles<6>(p, p_stride, n, PairedValues{v, n_pairs, PaddedDim(dim)}, dim, nullptr, out,
              out_stride);
}

template <typename Values>
void SumsInPlace(const uint32_t* p, size_t p_stride, size_t n, const uint8_t* plane,
                 PlaneShape shape, uint64_t live, uint64_t seen, const uint8_t* next, float* out,
                 size_t out_stride) {
  const size_t dim = shape.dim;
  if (next != nullptr) Values::PrefetchRest(next, dim);
  SumTiles<12>(p, p_stride, n, Values(plane, shape, live, seen), dim,
               next == nullptr ? plane : next, out, out_stride);
}

}  // namespace

void FillPairSums(PairKernels* table) {
  table->sums = Sums;
  table->sums_in_place[static_cast<int>(Codec::kF16)] = SumsInPlace<PlaneValues<PairsF16>>;
  table->sums_in_place[static_cast<int>(Codec::kBF16)] = SumsInPlace<PlaneValues<PairsBF16>>;
  table->sums_in_place[static_cast<int>(Codec::kQ8)] = SumsInPlace<PairedQ8>;
  table->sums_in_place[static_cast<int>(Codec::kQ4)] = SumsInPlace<PairedQ4>;
  table->sums_in_place[static_cast<int>(Codec::kSparseBF16)] =
      SumsInPlace<SparsePairValues<SparseBF16>>;
  table->sums_in_place[static_cast<int>(Codec::kSparseF16)] =
      SumsInPlace<SparsePairValues<SparseF16>>;
  table->sums_in_place[static_cast<int>(Codec::kSparseI8)] =
      SumsInPlace<SparsePairValues<SparseI8>>;
}

}  // namespace kvasir::KVASIR_SIMD

#endif
