// Packing and expanding sparse planes (kernels/plane.h).
#include "kernels/simd/fill.h"
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Element types of the dense plane a sparse one is packed from.
template <Codec kCodec>
struct SourceOf {
  using E = ElementBF16;
};
template <>
struct SourceOf<Codec::kSparseF16> {
  using E = ElementF16;
};

// Element (e, c) of a dense plane.
template <bool kKeys>
inline size_t Place(size_t e, size_t c, size_t dim) {
  return kKeys ? c * kPageEntries + e : e * dim + c;
}

// Which channels of a row stay: flags in kept[c].
void SelectRow(const uint32_t* magnitude, size_t dim, size_t keep, bool* kept) {
  // The largest threshold that at least `keep` reach, bit after bit.
  uint32_t threshold = 0;
  for (uint32_t bit = uint32_t{1} << 30; bit != 0; bit >>= 1) {
    size_t n = 0;
    for (size_t c = 0; c < dim; ++c) n += magnitude[c] >= (threshold | bit);
    if (n >= keep) threshold |= bit;
  }
  size_t above = 0;
  for (size_t c = 0; c < dim; ++c) above += magnitude[c] > threshold;
  size_t ties = keep - above;
  for (size_t c = 0; c < dim; ++c) {
    const bool tie = magnitude[c] == threshold && ties > 0;
    kept[c] = magnitude[c] > threshold || tie;
    ties -= tie;
  }
}

// amax / 127 rounded upward to f16, as bits; NaN where that is none.
uint16_t ScaleBits(float amax) {
  float lanes[kLanes];
  const float quotient = amax / 127.0f;
  uint16_t half[kLanes];
  StoreF16(Set(quotient), half);
  Store(LoadF16(half), lanes);
  const uint32_t bits = half[0] + (lanes[0] < quotient ? 1u : 0u);
  return bits >= 0x7c00 || !(quotient == quotient) ? uint16_t{0x7e00} : static_cast<uint16_t>(bits);
}

template <Codec kCodec, bool kKeys>
size_t Pack(const uint8_t* dense, PlaneShape shape, const float* weights, uint8_t* plane) {
  using E = typename SourceOf<kCodec>::E;
  constexpr size_t kWidth = SparseValueBytes(kCodec);
  const size_t dim = shape.dim;
  const PlaneForm form(kCodec, static_cast<uint16_t>(shape.keep));
  const uint16_t* source = reinterpret_cast<const uint16_t*>(dense);
  uint8_t* bitmaps = plane + SparseBitmapsAt(form);
  memset(bitmaps, 0, kPageEntries * BitmapWords(dim) * 8);
  uint64_t kept_by[kMaxHeadDim] = {};  // entries that keep a channel
  float scale[kPageEntries];
  size_t broken = 0;
  for (size_t e = 0; e < kPageEntries; ++e) {
    uint16_t row[kMaxHeadDim + kLanes] = {};
    float value[kMaxHeadDim + kLanes];
    uint32_t magnitude[kMaxHeadDim];
    bool kept[kMaxHeadDim];
    for (size_t c = 0; c < dim; ++c) row[c] = source[Place<kKeys>(e, c, dim)];
    for (size_t c = 0; c < dim; c += kLanes) Store(E::Load(row + c), value + c);
    for (size_t c = 0; c < dim; ++c) {
      magnitude[c] = row[c] & 0x7fffu;
      if (weights == nullptr) continue;
      const float weighted = value[c] * weights[c];
      memcpy(&magnitude[c], &weighted, sizeof(weighted));
      magnitude[c] &= 0x7fffffff;
    }
    SelectRow(magnitude, dim, shape.keep, kept);
    float amax = 0;
    bool finite = true;
    for (size_t c = 0; c < dim; ++c) {
      if (!kept[c]) continue;
      kept_by[c] |= uint64_t{1} << e;
      const float x = __builtin_fabsf(value[c]);
      finite = finite && x <= 3.4028235e38f;
      amax = x > amax ? x : amax;
      if constexpr (!kKeys) {
        bitmaps[e * BitmapWords(dim) * 8 + c / 8] |= static_cast<uint8_t>(1u << c % 8);
      }
    }
    if constexpr (kCodec == Codec::kSparseI8) {
      const uint16_t bits = finite ? ScaleBits(amax) : uint16_t{0x7e00};
      memcpy(plane + SparseScalesAt(form) + 2 * e, &bits, sizeof(bits));
      broken += bits >= 0x7c00;
      uint16_t all[kLanes];
      float as_float[kLanes];
      for (uint16_t& x : all) x = bits;
      Store(LoadF16(all), as_float);
      scale[e] = bits >= 0x7c00 ? 0.0f : as_float[0];
    }
  }
  uint8_t* out = plane;
  const auto put = [&](size_t e, size_t c) {
    if ((kept_by[c] >> e & 1) == 0) return;
    const uint16_t x = source[Place<kKeys>(e, c, dim)];
    if constexpr (kCodec == Codec::kSparseI8) {
      uint16_t all[kLanes];
      int8_t q[kLanes];
      for (uint16_t& one : all) one = x;
      F32 quotient = Zero();
      if (scale[e] > 0) quotient = Div(E::Load(all), Set(scale[e]));
      StoreI8(Max(Min(quotient, Set(127.0f)), Set(-127.0f)), q);
      memcpy(out, q, 1);
    } else {
      memcpy(out, &x, sizeof(x));
    }
    out += kWidth;
  };
  if constexpr (kKeys) {
    for (size_t c = 0; c < dim; ++c) {
      memcpy(bitmaps + 8 * c, &kept_by[c], 8);
      for (size_t e = 0; e < kPageEntries; ++e) put(e, c);
    }
  } else {
    for (size_t e = 0; e < kPageEntries; ++e) {
      for (size_t c = 0; c < dim; ++c) put(e, c);
    }
  }
  return broken;
}

template <typename E>
void ExpandK(const uint8_t* plane, PlaneShape shape, float* out) {
  const SparseKeys<E> keys(plane, shape);
  typename SparseKeys<E>::Tile tile(keys, 0);
  for (size_t c = 0; c < shape.dim; ++c, out += kPageEntries) {
    tile.NextChannel();
    KVASIR_UNROLL
    for (int v = 0; v < 8; ++v) Store(tile.Load(v), out + 8 * v);
  }
}

template <typename E>
void ExpandV(const uint8_t* plane, PlaneShape shape, float* out) {
  const SparseValues<E> values(plane, shape);
  for (size_t e = 0; e < kPageEntries; ++e) {
    for (size_t c = 0; c < shape.dim; c += 64) {
      const typename SparseValues<E>::Row row = values.At(e, c);
      const size_t width = shape.dim - c < 64 ? shape.dim - c : 64;
      int v = 0;
      for (; 8 * (static_cast<size_t>(v) + 1) <= width; ++v, out += kLanes) Store(row.Load(v), out);
      const size_t left = width % kLanes;
      if (left == 0) continue;
      float last[kLanes];
      Store(row.Load(v), last);
      memcpy(out, last, left * sizeof(float));
      out += left;
    }
  }
}

template <typename E>
void Fill(PlaneKernels* table) {
  constexpr size_t kIndex = static_cast<size_t>(E::kCodec);
  table->pack_k[kIndex] = Pack<E::kCodec, true>;
  table->pack_v[kIndex] = Pack<E::kCodec, false>;
  table->expand_k[kIndex] = ExpandK<E>;
  table->expand_v[kIndex] = ExpandV<E>;
  table->encode_k[kIndex] = table->encode_v[kIndex] = nullptr;
}

}  // namespace

void FillSparse(PlaneKernels* table) {
  for (size_t i = 0; i < kDenseCodecs; ++i) table->pack_k[i] = table->pack_v[i] = nullptr;
  Fill<SparseBF16>(table);
  Fill<SparseF16>(table);
  Fill<SparseI8>(table);
}

}  // namespace kvasir::KVASIR_SIMD
