// Weighted sums of the rows of a V plane. Lanes are channels: each output element is one chain over
// the live slots, ascending, kept in registers for the whole page in a tile of R rows by V vectors
// of channels.
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

template <bool kAhead, typename Values, int R, int V>
inline void SumTile(const float* p, size_t p_stride, const Values& values, uint64_t slots, size_t c,
                    const uint8_t* next, float* out, size_t out_stride) {
  F32 sum[R][V];
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = Load(out + r * out_stride + c + 8 * v);
  }
  while (slots != 0) {  // runs of live slots; a full page is one run
    const size_t begin = static_cast<size_t>(__builtin_ctzll(slots));
    const uint64_t dead = ~(slots >> begin);
    const size_t end =
        dead == 0 ? kPageEntries : begin + static_cast<size_t>(__builtin_ctzll(dead));
    for (size_t e = begin; e < end; ++e) {
      if constexpr (kAhead) {
        values.template Ahead<V>(next, c / (V * kLanes) * kPageEntries + e);
      }
      const typename Values::Row row = values.At(e, c);
      if constexpr (R <= V) {  // one vector of values at a time beside R broadcast weights
        F32 weight[R];
        KVASIR_UNROLL
        for (int r = 0; r < R; ++r) weight[r] = Set(p[r * p_stride + e]);
        KVASIR_UNROLL
        for (int v = 0; v < V; ++v) {
          const F32 value = row.Load(v);
          KVASIR_UNROLL
          for (int r = 0; r < R; ++r) sum[r][v] = MulAdd(weight[r], value, sum[r][v]);
        }
      } else {
        F32 value[V];
        KVASIR_UNROLL
        for (int v = 0; v < V; ++v) value[v] = row.Load(v);
        KVASIR_UNROLL
        for (int r = 0; r < R; ++r) {
          const F32 weight = Set(p[r * p_stride + e]);
          KVASIR_UNROLL
          for (int v = 0; v < V; ++v) sum[r][v] = MulAdd(weight, value[v], sum[r][v]);
        }
      }
    }
    slots = end == kPageEntries ? 0 : slots >> end << end;
  }
  KVASIR_UNROLL
  for (int r = 0; r < R; ++r) {
    KVASIR_UNROLL
    for (int v = 0; v < V; ++v) Store(sum[r][v], out + r * out_stride + c + 8 * v);
  }
}

// All channels of R rows: tiles of V vectors, the rest in halves.
template <bool kAhead, typename Values, int R, int V>
void SumRows(const float* p, size_t p_stride, const Values& values, uint64_t slots, size_t c,
             size_t dim, const uint8_t* next, float* out, size_t out_stride) {
  const size_t padded = (dim + kLanes - 1) / kLanes * kLanes;
  for (; c + V * kLanes <= padded; c += V * kLanes) {
    SumTile<kAhead, Values, R, V>(p, p_stride, values, slots, c, next, out, out_stride);
  }
  if constexpr (V > 1) {
    if (c < padded)
      SumRows<kAhead, Values, R, V / 2>(p, p_stride, values, slots, c, dim, next, out, out_stride);
  }
}

// n in [1, R] rows.
template <int R, bool kAhead, typename Values>
void SumUpTo(const float* p, size_t p_stride, size_t n, const Values& values, uint64_t slots,
             size_t dim, const uint8_t* next, float* out, size_t out_stride) {
  if (n == R) {
    // With a scale beside 3 x 4 sums GCC would spill one of them; 3 x 2 and its products fill the
    // same slots.
    constexpr int kVectors = Values::kScaled && R == 3 ? 2 : TileVectors(R);
    return SumRows<kAhead, Values, R, kVectors>(p, p_stride, values, slots, 0, dim, next, out,
                                                out_stride);
  }
  if constexpr (R > 1) {
    SumUpTo<R - 1, kAhead, Values>(p, p_stride, n, values, slots, dim, next, out, out_stride);
  }
}

template <typename Values>
void WeightedSum(const float* p, size_t p_stride, size_t n, const uint8_t* plane, PlaneShape shape,
                 size_t begin, size_t end, uint64_t live, const uint8_t* next, float* out,
                 size_t out_stride) {
  if (begin >= end) return;
  const uint64_t below_end = end < kPageEntries ? (uint64_t{1} << end) - 1 : ~uint64_t{0};
  const uint64_t slots = live & below_end & ~uint64_t{0} << begin;
  if (slots == 0) return;
  const Values values(plane, shape);
  for (size_t r = 0; r < n;) {
    const size_t rows = NextTile(n - r);
    const auto sum = next != nullptr && r == 0 ? SumUpTo<kTileRows, true, Values>
                                               : SumUpTo<kTileRows, false, Values>;
    sum(p + r * p_stride, p_stride, rows, values, slots, shape.dim, next, out + r * out_stride,
        out_stride);
    r += rows;
  }
}

}  // namespace

void FillWeightedSums(PlaneKernels* table) {
  for (auto& sum : table->weighted_sum) sum = nullptr;
  table->weighted_sum[static_cast<int>(Codec::kF32)] = WeightedSum<FloatValues<ElementF32>>;
  table->weighted_sum[static_cast<int>(Codec::kF16)] = WeightedSum<FloatValues<ElementF16>>;
  table->weighted_sum[static_cast<int>(Codec::kBF16)] = WeightedSum<FloatValues<ElementBF16>>;
  table->weighted_sum[static_cast<int>(Codec::kQ8)] = WeightedSum<Q8Values>;
  table->weighted_sum[static_cast<int>(Codec::kQ4)] = WeightedSum<Q4Values>;
#if defined(KVASIR_X86)
  table->weighted_sum[static_cast<int>(Codec::kSparseBF16)] = WeightedSum<SparseValues<SparseBF16>>;
  table->weighted_sum[static_cast<int>(Codec::kSparseF16)] = WeightedSum<SparseValues<SparseF16>>;
  table->weighted_sum[static_cast<int>(Codec::kSparseI8)] = WeightedSum<SparseValues<SparseI8>>;
#endif
}

}  // namespace kvasir::KVASIR_SIMD
