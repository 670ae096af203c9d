// Expanding sparse planes (kernels/plane.h) to f32; packing is in sparse_pack.cc.
#include "kernels/simd/fill.h"
#include "kernels/simd/sparse_lanes.h"

namespace kvasir::KVASIR_SIMD {

namespace {

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
