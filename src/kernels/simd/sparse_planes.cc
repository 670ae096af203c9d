// Expanding sparse planes (kernels/plane.h) to f32; packing is in sparse_pack.cc.
#include "kernels/simd/fill.h"
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Scales of int8 planes.
template <typename E>
struct RowScales {
  static constexpr bool kNone = E::kCodec != Codec::kSparseI8;
  float value[kNone ? 1 : kPageEntries];

  RowScales(const uint8_t* plane, PlaneForm form) {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(plane + SparseScalesAt(form));
    for (size_t e = 0; e < kPageEntries && !kNone; e += kLanes) {
      Store(LoadF16(halves + e), value + e);
    }
  }
};

template <typename E>
void ExpandK(const uint8_t* plane, PlaneShape shape, float* out) {
  using T = typename E::T;
  const PlaneForm form(E::kCodec, static_cast<uint16_t>(shape.keep));
  const RowScales<E> scale(plane, form);
  const uint8_t* bitmaps = plane + SparseBitmapsAt(form);
  const T* values = reinterpret_cast<const T*>(plane);
  for (size_t c = 0; c < shape.dim; ++c) {
    T lanes[kPageEntries];
    values = Scatter(values, WordAt(bitmaps + 8 * c), lanes);
    for (size_t e = 0; e < kPageEntries; e += kLanes, out += kLanes) {
      F32 x = E::Load(lanes + e);
      if constexpr (!RowScales<E>::kNone) x = Mul(x, Load(scale.value + e));
      Store(x, out);
    }
  }
}

template <typename E>
void ExpandV(const uint8_t* plane, PlaneShape shape, float* out) {
  using T = typename E::T;
  const PlaneForm form(E::kCodec, static_cast<uint16_t>(shape.keep));
  const RowScales<E> scale(plane, form);
  const uint8_t* bitmap = plane + SparseBitmapsAt(form);
  const T* values = reinterpret_cast<const T*>(plane);
  for (size_t e = 0; e < kPageEntries; ++e) {
    for (size_t c = 0; c < shape.dim; c += 64, bitmap += 8) {
      T lanes[64];
      float x[64];
      values = Scatter(values, WordAt(bitmap), lanes);
      for (size_t i = 0; i < 64; i += kLanes) {
        F32 v = E::Load(lanes + i);
        if constexpr (!RowScales<E>::kNone) v = Mul(v, Set(scale.value[e]));
        Store(v, x + i);
      }
      const size_t width = shape.dim - c < 64 ? shape.dim - c : 64;
      memcpy(out, x, width * sizeof(float));
      out += width;
    }
  }
}

template <typename E>
void Fill(PlaneKernels* table) {
  constexpr size_t kIndex = static_cast<size_t>(E::kCodec);
  table->expand_k[kIndex] = ExpandK<E>;
  table->expand_v[kIndex] = ExpandV<E>;
  table->encode_k[kIndex] = table->encode_v[kIndex] = nullptr;
}

}  // namespace

void FillSparse(PlaneKernels* table) {
  Fill<SparseBF16>(table);
  Fill<SparseF16>(table);
  Fill<SparseI8>(table);
  FillSparsePack(table);
}

}  // namespace kvasir::KVASIR_SIMD
