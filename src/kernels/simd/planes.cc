// Codecs of KV planes: encoding rows and expanding planes of floats (q8 and q4:
// quantized_planes.cc), and the geometry of keys.
#include "kernels/simd/fill.h"
#include "kernels/simd/pairs.h"
#include "kernels/simd/plane_codecs.h"

namespace kvasir::KVASIR_SIMD {

namespace {

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
      E::Store(LoadOfRow(row, c, dim, 0), last);
      memcpy(out + c, last, (dim - c) * sizeof(T));
    }
  }
}

// One row into a channel-major plane: a store per channel from channel `c` on.
template <typename E>
void ScatterRow(const float* row, size_t c, size_t dim, typename E::T* out) {
  for (; c < dim; c += kLanes) {
    typename E::T lanes[kLanes];
    E::Store(LoadOfRow(row, c, dim, 0), lanes);
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

// Both layouts are 64 * dim elements in order, a multiple of eight.
template <typename E>
void Expand(const uint8_t* plane, PlaneShape shape, float* out) {
  const typename E::T* in = reinterpret_cast<const typename E::T*>(plane);
  for (size_t i = 0; i < kPageEntries * shape.dim; i += kLanes) Store(E::Load(in + i), out + i);
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
  constexpr int kBF16 = static_cast<int>(Codec::kBF16);
  table->encode_k[kF32] = EncodeK<ElementF32>;
  table->encode_k[kF16] = EncodeK<ElementF16>;
  table->encode_k[kBF16] = EncodeK<ElementBF16>;
  table->encode_v[kF32] = EncodeV<ElementF32>;
  table->encode_v[kF16] = EncodeV<ElementF16>;
  table->encode_v[kBF16] = EncodeV<ElementBF16>;
  table->expand_k[kF32] = table->expand_v[kF32] = Expand<ElementF32>;
  table->expand_k[kF16] = table->expand_v[kF16] = Expand<ElementF16>;
  table->expand_k[kBF16] = table->expand_v[kBF16] = Expand<ElementBF16>;
  FillQuantized(table);
  FillSparse(table);
  FillScores(table);
  FillIntegerScores(table);
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
