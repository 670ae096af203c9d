// Plain-loop oracle of the plane codecs (kernels/plane.h): what each element is worth.
#pragma once

#include <cstring>
#include <vector>

#include "kernels/plane.h"
#include "tensor/dtype.h"

namespace kvasir::ref {

// The integer of a q8 or q4 element.
inline int PlaneInteger(Codec codec, const uint8_t* plane, size_t dim, bool keys, size_t slot,
                        size_t c) {
  const size_t row = (dim + 3) / 4 * 4;
  if (codec == Codec::kQ8) {
    return static_cast<int8_t>(plane[keys ? (c / 2 * 64 + slot) * 2 + c % 2 : slot * row + c]);
  }
  const uint8_t byte = plane[keys ? (c / 4 * 64 + slot) * 2 + c % 2 : slot * row / 2 + c / 2];
  const bool high = keys ? c % 4 >= 2 : c % 2 == 1;
  return high ? byte >> 4 : byte & 15;
}

// Which scale of a q8 or q4 plane an element has.
inline size_t PlaneBlock(size_t dim, bool keys, size_t slot, size_t c) {
  return keys ? c / 32 * 64 + slot : slot * ((dim + 31) / 32) + c / 32;
}

// Of a sparse plane: whether an entry keeps a channel.
inline bool SparseBit(PlaneForm form, const uint8_t* plane, size_t dim, bool keys, size_t slot,
                      size_t c) {
  const size_t row = (dim + 63) / 64 * 64;
  const size_t bit = keys ? c * 64 + slot : slot * row + c;
  return plane[SparseBitmapsAt(form) + bit / 8] >> bit % 8 & 1;
}

// Channel `c` of the entry in `slot` of a dense K plane (keys) or V plane.
inline float PlaneValue(Codec codec, const uint8_t* plane, size_t dim, bool keys, size_t slot,
                        size_t c) {
  const size_t i = keys ? c * kPageEntries + slot : slot * dim + c;
  const auto half = [&](size_t at) {
    uint16_t h = 0;
    std::memcpy(&h, plane + at, sizeof(h));
    return h;
  };
  switch (codec) {
    case Codec::kF32: {
      float x = 0;
      std::memcpy(&x, plane + i * sizeof(x), sizeof(x));
      return x;
    }
    case Codec::kF16:
      return F16ToF32(half(i * 2));
    case Codec::kBF16:
      return BF16ToF32(half(i * 2));
    case Codec::kQ8:
      return static_cast<float>(PlaneInteger(codec, plane, dim, keys, slot, c)) *
             F16ToF32(half(ScalesAt(codec, dim) + 2 * PlaneBlock(dim, keys, slot, c)));
    default:
      break;
  }
  const size_t block = PlaneBlock(dim, keys, slot, c);
  return static_cast<float>(PlaneInteger(codec, plane, dim, keys, slot, c)) *
             F16ToF32(half(ScalesAt(codec, dim) + 2 * block)) +
         F16ToF32(half(MinimaAt(dim) + 2 * block));
}

// The value of a sparse plane at byte `at`, of the entry in `slot`.
inline float SparseValue(PlaneForm form, const uint8_t* plane, size_t slot, size_t at) {
  uint16_t half = 0;
  if (form.codec == Codec::kSparseI8) {
    std::memcpy(&half, plane + SparseScalesAt(form) + 2 * slot, sizeof(half));
    return static_cast<float>(static_cast<int8_t>(plane[at])) * F16ToF32(half);
  }
  std::memcpy(&half, plane + at, sizeof(half));
  return form.codec == Codec::kSparseF16 ? F16ToF32(half) : BF16ToF32(half);
}

// A whole plane: K as [dim][64], V as [64][dim].
inline std::vector<float> Expand(PlaneForm form, const uint8_t* plane, size_t dim, bool keys) {
  std::vector<float> out(kPageEntries * dim);
  size_t at = 0;  // the next value of a sparse plane
  for (size_t i = 0; i < kPageEntries * dim; ++i) {
    const size_t slot = keys ? i % kPageEntries : i / dim, c = keys ? i / kPageEntries : i % dim;
    if (!IsSparse(form.codec)) {
      out[i] = PlaneValue(form.codec, plane, dim, keys, slot, c);
    } else if (SparseBit(form, plane, dim, keys, slot, c)) {
      out[i] = SparseValue(form, plane, slot, at);
      at += SparseValueBytes(form.codec);
    } else if (form.codec == Codec::kSparseI8) {
      uint16_t scale = 0;
      std::memcpy(&scale, plane + SparseScalesAt(form) + 2 * slot, sizeof(scale));
      out[i] = 0 * F16ToF32(scale);
    }
  }
  return out;
}

}  // namespace kvasir::ref
