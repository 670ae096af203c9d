// Scores of query rows against a K plane in bf16 pairs. Lanes are entries; a register tile of R
// rows by V vectors of entries stays in registers over all channels.
#include "kernels/simd/pairs_sparse.h"

#if defined(KVASIR_TARGET_AVX512)

namespace kvasir::KVASIR_SIMD {

namespace {

// A K plane expanded to pairs.
struct PairedKeys {
  static constexpr bool kInPlace = false;
  const uint32_t* data;
  Pairs Load(size_t i, size_t e) const { return LoadPairs(data + i * kPageEntries + e); }
  template <int V>
  using Tile = VectorTile<PairedKeys, V>;
};

template <typename Keys, int R, int V>
inline void ScoreTile(const uint32_t* q, size_t q_stride, const Keys& keys, size_t n_pairs,
                      size_t e, const uint8_t* next, float* scores, size_t stride) {
  __m512 sum[R][V];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
  }
  typename Keys::template Tile<V> tile{keys, e};
  for (size_t i = 0; i < n_pairs; ++i) {
    if constexpr (Keys::kInPlace) keys.template Ahead<V>(next, e / (V * kPairLanes) * n_pairs + i);
    Pairs k[V];
    tile.Load(i, k);
    KVASIR_UNROLL
    for (int r = 0; r < R; ++r) {
      const Pairs x = SetPair(q[r * q_stride + i]);
      KVASIR_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = Dot(sum[r][v], x, k[v]);
    }
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(scores + r * stride + e + 16 * v, sum[r][v]);
  }
}

// n in [1, R] rows.
template <typename Keys, int R>
void ScoreUpTo(const uint32_t* q, size_t q_stride, size_t n, const Keys& keys, size_t n_pairs,
               const uint8_t* next, float* scores, size_t stride) {
  if (n == R) {
    constexpr int kVectors = R > 6 ? 2 : 4;
    for (size_t e = 0; e < kPageEntries; e += kVectors * kPairLanes) {
      ScoreTile<Keys, R, kVectors>(q, q_stride, keys, n_pairs, e, next, scores, stride);
    }
    return;
  }
  if constexpr (R > 1) {
    ScoreUpTo<Keys, R - 1>(q, q_stride, n, keys, n_pairs, next, scores, stride);
  }
}

// Tiles of about equal height, at most kRows.
template <int kRows, typename Keys>
void ScoreTiles(const uint32_t* q, size_t q_stride, size_t n, const Keys& keys, size_t dim,
                const uint8_t* next, float* scores, size_t stride) {
  size_t tiles = (n + kRows - 1) / kRows;
  for (size_t r = 0; r < n; --tiles) {
    const size_t rows = (n - r + tiles - 1) / tiles;
    ScoreUpTo<Keys, kRows>(q + r * q_stride, q_stride, rows, keys, PairedDim(dim), next,
                           scores + r * stride, stride);
    r += rows;
  }
}

void Scores(const uint32_t* q, size_t q_stride, size_t n, const uint32_t* k, size_t dim,
            float* scores, size_t stride) {
  ScoreTiles<6>(q, q_stride, n, PairedKeys{k}, dim, nullptr, scores, stride);
}

template <typename Keys>
void ScoresInPlace(const uint32_t* q, size_t q_stride, size_t n, const uint8_t* plane,
                   PlaneShape shape, const uint8_t* next, float* scores, size_t stride) {
  ScoreTiles<12>(q, q_stride, n, Keys(plane, shape), shape.dim, next == nullptr ? plane : next,
                 scores, stride);
}

}  // namespace

void FillPairScores(PairKernels* table) {
  table->scores = Scores;
  table->scores_in_place[static_cast<int>(Codec::kF16)] = ScoresInPlace<PlaneKeys<PairsF16>>;
  table->scores_in_place[static_cast<int>(Codec::kBF16)] = ScoresInPlace<PlaneKeys<PairsBF16>>;
  table->scores_in_place[static_cast<int>(Codec::kSparseF16)] =
      ScoresInPlace<SparsePairKeys<SparseF16>>;
  table->scores_in_place[static_cast<int>(Codec::kSparseBF16)] =
      ScoresInPlace<SparsePairKeys<SparseBF16>>;
}

}  // namespace kvasir::KVASIR_SIMD

#endif
