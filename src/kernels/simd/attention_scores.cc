// Scores of query rows against a K plane. Lanes are entries: each score is one chain over ascending
// channels, in a register tile of R rows by V vectors of entries; the shape of the tile does not
// touch the chains.
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

template <bool kAhead, typename Keys, int R, int V>
inline void ScoreTile(const float* q, size_t q_stride, const Keys& keys, size_t dim, size_t e,
                      const uint8_t* next, float* scores, size_t stride) {
  F32 sum[R][V];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = Zero();
  }
  typename Keys::Tile tile(keys, e);
  for (size_t c = 0; c < dim; ++c) {
    tile.NextChannel();
    if constexpr (kAhead) keys.template Ahead<V>(next, e / (V * kLanes) * dim + c);
    if constexpr (R <= V) {  // one vector of keys at a time beside R broadcast queries
      F32 x[R];
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) x[r] = Set(q[r * q_stride + c]);
      KVASIR_UNROLL
      for (int v = 0; v < V; ++v) {
        const F32 k = tile.Load(v);
        KVASIR_UNROLL
        for (int r = 0; r < R; ++r) sum[r][v] = MulAdd(x[r], k, sum[r][v]);
      }
    } else {
      F32 k[V];
      KVASIR_UNROLL
      for (int v = 0; v < V; ++v) k[v] = tile.Load(v);
      KVASIR_UNROLL
      for (int r = 0; r < R; ++r) {
        const F32 x = Set(q[r * q_stride + c]);
        KVASIR_UNROLL
        for (int v = 0; v < V; ++v) sum[r][v] = MulAdd(x, k[v], sum[r][v]);
      }
    }
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) Store(sum[r][v], scores + r * stride + e + 8 * v);
  }
}

template <bool kAhead, typename Keys, int R, int V>
void ScoreRows(const float* q, size_t q_stride, const Keys& keys, size_t dim, const uint8_t* next,
               float* scores, size_t stride) {
  for (size_t e = 0; e < kPageEntries; e += V * kLanes) {
    ScoreTile<kAhead, Keys, R, V>(q, q_stride, keys, dim, e, next, scores, stride);
  }
}

// n in [1, R] rows.
template <int R, bool kAhead, typename Keys>
void ScoreUpTo(const float* q, size_t q_stride, size_t n, const Keys& keys, size_t dim,
               const uint8_t* next, float* scores, size_t stride) {
  if (n == R) {
    return ScoreRows<kAhead, Keys, R, TileVectors(R)>(q, q_stride, keys, dim, next, scores, stride);
  }
  if constexpr (R > 1) {
    ScoreUpTo<R - 1, kAhead, Keys>(q, q_stride, n, keys, dim, next, scores, stride);
  }
}

template <typename Keys>
void Scores(const float* q, size_t q_stride, size_t n, const uint8_t* plane, PlaneShape shape,
            const uint8_t* next, float* scores, size_t stride) {
  const Keys keys(plane, shape);
  for (size_t r = 0; r < n;) {
    const size_t rows = NextTile(n - r);
    const auto score = next != nullptr && r == 0 ? ScoreUpTo<kTileRows, true, Keys>
                                                 : ScoreUpTo<kTileRows, false, Keys>;
    score(q + r * q_stride, q_stride, rows, keys, shape.dim, next, scores + r * stride, stride);
    r += rows;
  }
}

}  // namespace

void FillScores(PlaneKernels* table) {
  for (auto& scores : table->scores) scores = nullptr;
  table->scores[static_cast<int>(Codec::kF32)] = Scores<FloatKeys<ElementF32>>;
  table->scores[static_cast<int>(Codec::kF16)] = Scores<FloatKeys<ElementF16>>;
  table->scores[static_cast<int>(Codec::kBF16)] = Scores<FloatKeys<ElementBF16>>;
#if defined(KVASIR_X86)
  table->scores[static_cast<int>(Codec::kSparseBF16)] = Scores<SparseKeys<SparseBF16>>;
  table->scores[static_cast<int>(Codec::kSparseF16)] = Scores<SparseKeys<SparseF16>>;
  table->scores[static_cast<int>(Codec::kSparseI8)] = Scores<SparseKeys<SparseI8>>;
#endif
}

}  // namespace kvasir::KVASIR_SIMD
