// Codecs of KV planes: encoding rows, expanding planes, and the geometry of keys.
#include "kernels/simd/fill.h"
#include "kernels/simd/pairs.h"
#include "kernels/simd/plane_codecs.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Eight floats of a row of `dim`, zeros beyond its end.
inline F32 LoadOfRow(const float* row, size_t c, size_t dim) {
  if (c + kLanes <= dim) return Load(row + c);
  float padded[kLanes] = {};
  memcpy(padded, row + c, (dim - c) * sizeof(float));
  return Load(padded);
}

template <typename E>
void EncodeV(const float* rows, size_t stride, size_t n, size_t dim, size_t slot, uint8_t* plane) {
  using T = typename E::T;
  for (size_t r = 0; r < n; ++r) {
    const float* row = rows + r * stride;
    T* out = reinterpret_cast<T*>(plane) + (slot + r) * dim;
    size_t c = 0;
    for (; c + kLanes <= dim; c += kLanes) E::Store(Load(row + c), out + c);
    if (c < dim) {  // the next row's slot must stay as it is
      T last[kLanes];
      E::Store(LoadOfRow(row, c, dim), last);
      memcpy(out + c, last, (dim - c) * sizeof(T));
    }
  }
}

// One row into a channel-major plane: a store per channel from channel `c` on.
template <typename E>
void ScatterRow(const float* row, size_t c, size_t dim, typename E::T* out) {
  for (; c < dim; c += kLanes) {
    typename E::T lanes[kLanes];
    E::Store(LoadOfRow(row, c, dim), lanes);
    const size_t n = dim - c < kLanes ? dim - c : kLanes;
    for (size_t i = 0; i < n; ++i) out[(c + i) * kPageEntries] = lanes[i];
  }
}

template <typename E>
void EncodeK(const float* rows, size_t stride, size_t n, size_t dim, size_t slot, uint8_t* plane) {
  typename E::T* out = reinterpret_cast<typename E::T*>(plane) + slot;
  size_t r = 0;
  for (; r + kLanes <= n; r += kLanes) {  // eight rows by eight channels
    size_t c = 0;
    for (; c + kLanes <= dim; c += kLanes) {
      F32 t[kLanes];
      for (size_t i = 0; i < kLanes; ++i) t[i] = Load(rows + (r + i) * stride + c);
      Transpose8(t);
      for (size_t i = 0; i < kLanes; ++i) E::Store(t[i], out + (c + i) * kPageEntries + r);
    }
    for (size_t i = 0; c < dim && i < kLanes; ++i) {
      ScatterRow<E>(rows + (r + i) * stride, c, dim, out + r + i);
    }
  }
  for (; r < n; ++r) ScatterRow<E>(rows + r * stride, 0, dim, out + r);
}

// Up to 32 channels as int8 with one f16 scale. The integers are made for the scale as stored, so
// its rounding costs nothing but the clamp at 127. Scales stay finite whatever the input.
uint16_t QuantizeBlock(const float* x, size_t n, int8_t (&q)[kCodecBlock]) {
  F32 value[kCodecBlock / kLanes];
  F32 largest = Zero();
  for (size_t i = 0; i < kCodecBlock / kLanes; ++i) {
    value[i] = i * kLanes < n ? LoadOfRow(x, i * kLanes, n) : Zero();
    largest = Max(Abs(value[i]), largest);
  }
  const F32 scale = Min(Set(MaxOfLanes(largest) / 127.0f), Set(65504.0f));
  uint16_t half[kLanes];
  StoreF16(scale, half);
  float stored[kLanes];
  Store(LoadF16(half), stored);
  const F32 inverse = Set(stored[0] > 0 ? 1.0f / stored[0] : 0.0f);
  for (size_t i = 0; i < kCodecBlock / kLanes; ++i) {
    const F32 scaled = Max(Mul(value[i], inverse), Set(-127.0f));
    StoreI8(Min(scaled, Set(127.0f)), q + i * kLanes);
  }
  return half[0];
}

void EncodeQ8V(const float* rows, size_t stride, size_t n, size_t dim, size_t slot,
               uint8_t* plane) {
  const size_t blocks = Blocks(dim);
  uint16_t* scale = reinterpret_cast<uint16_t*>(plane + kPageEntries * dim);
  for (size_t r = 0; r < n; ++r) {
    for (size_t b = 0; b < blocks; ++b) {
      const size_t c = b * kCodecBlock;
      const size_t width = dim - c < kCodecBlock ? dim - c : kCodecBlock;
      int8_t q[kCodecBlock];
      scale[(slot + r) * blocks + b] = QuantizeBlock(rows + r * stride + c, width, q);
      memcpy(plane + (slot + r) * dim + c, q, width);
    }
  }
}

void EncodeQ8K(const float* rows, size_t stride, size_t n, size_t dim, size_t slot,
               uint8_t* plane) {
  uint16_t* scale = reinterpret_cast<uint16_t*>(plane + kPageEntries * dim);
  for (size_t b = 0; b < Blocks(dim); ++b) {
    const size_t c = b * kCodecBlock;
    const size_t width = dim - c < kCodecBlock ? dim - c : kCodecBlock;
    int8_t q[kPageEntries][kCodecBlock];
    for (size_t r = 0; r < n; ++r) {
      scale[b * kPageEntries + slot + r] = QuantizeBlock(rows + r * stride + c, width, q[r]);
    }
    for (size_t i = 0; i < width; ++i) {
      int8_t* out = reinterpret_cast<int8_t*>(plane) + (c + i) * kPageEntries + slot;
      for (size_t r = 0; r < n; ++r) out[r] = q[r][i];
    }
  }
}

// Both layouts are 64 * dim elements in order, a multiple of eight.
template <typename E>
void Expand(const uint8_t* plane, size_t dim, float* out) {
  const typename E::T* in = reinterpret_cast<const typename E::T*>(plane);
  for (size_t i = 0; i < kPageEntries * dim; i += kLanes) Store(E::Load(in + i), out + i);
}

void ExpandQ8K(const uint8_t* plane, size_t dim, float* out) {
  const Q8Keys keys(plane, dim);
  for (size_t e = 0; e < kPageEntries; e += 4 * kLanes) {
    for (size_t c = 0; c < dim;) {
      const Q8Keys::Tile<4> tile(keys, c / kCodecBlock, e);
      const size_t end = dim - c < kCodecBlock ? dim : c + kCodecBlock;
      for (; c < end; ++c) {
        for (int v = 0; v < 4; ++v) Store(tile.Load(c, v), out + c * kPageEntries + e + 8 * v);
      }
    }
  }
}

void ExpandQ8V(const uint8_t* plane, size_t dim, float* out) {
  const Q8Values values(plane, dim);
  for (size_t e = 0; e < kPageEntries; ++e) {
    size_t c = 0;
    for (; c + kLanes <= dim; c += kLanes) Store(values.Load(e, c, 0), out + e * dim + c);
    if (c < dim) {
      float last[kLanes];
      Store(values.Load(e, c, 0), last);
      memcpy(out + e * dim + c, last, (dim - c) * sizeof(float));
    }
  }
}

void KeyInverseNorms(const float* k, size_t dim, uint64_t live, float* inverse) {
  for (size_t e = 0; e < kPageEntries; e += kLanes) {
    F32 sum = Zero();
    for (size_t c = 0; c < dim; ++c) {
      const F32 x = Load(k + c * kPageEntries + e);
      sum = MulAdd(x, x, sum);
    }
    Store(Select(static_cast<uint8_t>(live >> e), Div(Set(1.0f), Sqrt(sum)), Zero()), inverse + e);
    for (size_t i = e; i < e + kLanes; ++i) {
      if (inverse[i] > 3.4028235e38f) inverse[i] = 0;  // a zero key has no direction
    }
  }
}

void KeyWeightedSum(const float* k, size_t dim, const float* weight, uint64_t live, float* anchor) {
  size_t c = 0;
  for (; c + kLanes <= dim; c += kLanes) {
    F32 sum = Load(anchor + c);
    for (size_t e = 0; e < kPageEntries; e += kLanes) {
      const uint64_t bits = live >> e & 0xff;
      if (bits == 0) continue;
      F32 t[kLanes];  // lanes become channels
      for (size_t i = 0; i < kLanes; ++i) t[i] = Load(k + (c + i) * kPageEntries + e);
      Transpose8(t);
      for (size_t i = 0; i < kLanes; ++i) {
        if (bits >> i & 1) sum = MulAdd(t[i], Set(weight[e + i]), sum);
      }
    }
    Store(sum, anchor + c);
  }
  for (; c < dim; ++c) {
    for (uint64_t left = live; left != 0; left &= left - 1) {
      const size_t e = static_cast<size_t>(__builtin_ctzll(left));
      anchor[c] = MulAdd1(k[c * kPageEntries + e], weight[e], anchor[c]);
    }
  }
}

}  // namespace

void FillPlanes(PlaneKernels* table) {
  constexpr int kF32 = static_cast<int>(Codec::kF32), kF16 = static_cast<int>(Codec::kF16);
  constexpr int kBF16 = static_cast<int>(Codec::kBF16), kQ8 = static_cast<int>(Codec::kQ8);
  table->encode_k[kF32] = EncodeK<ElementF32>;
  table->encode_k[kF16] = EncodeK<ElementF16>;
  table->encode_k[kBF16] = EncodeK<ElementBF16>;
  table->encode_k[kQ8] = EncodeQ8K;
  table->encode_v[kF32] = EncodeV<ElementF32>;
  table->encode_v[kF16] = EncodeV<ElementF16>;
  table->encode_v[kBF16] = EncodeV<ElementBF16>;
  table->encode_v[kQ8] = EncodeQ8V;
  table->expand_k[kF32] = table->expand_v[kF32] = Expand<ElementF32>;
  table->expand_k[kF16] = table->expand_v[kF16] = Expand<ElementF16>;
  table->expand_k[kBF16] = table->expand_v[kBF16] = Expand<ElementBF16>;
  table->expand_k[kQ8] = ExpandQ8K;
  table->expand_v[kQ8] = ExpandQ8V;
  FillScores(table);
  FillWeightedSums(table);
  FillSoftmax(table);
#if defined(KVASIR_TARGET_AVX512)
  FillPairExpand(&table->pairs);
  FillPairScores(&table->pairs);
  FillPairWeights(&table->pairs);
  FillPairSums(&table->pairs);
#endif
  table->key_inverse_norms = KeyInverseNorms;
  table->key_weighted_sum = KeyWeightedSum;
  table->key_dots = [](const float* k, size_t dim, const float* x, float* dots) {
    for (size_t e = 0; e < kPageEntries; e += kLanes) {
      F32 sum = Zero();
      for (size_t c = 0; c < dim; ++c) sum = MulAdd(Load(k + c * kPageEntries + e), Set(x[c]), sum);
      Store(sum, dots + e);
    }
  };
}

}  // namespace kvasir::KVASIR_SIMD
