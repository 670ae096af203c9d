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

// Channel `c` of the entry in `slot` of a K plane (keys) or a V plane.
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
    case Codec::kQ4:
      break;
  }
  const size_t block = PlaneBlock(dim, keys, slot, c);
  return static_cast<float>(PlaneInteger(codec, plane, dim, keys, slot, c)) *
             F16ToF32(half(ScalesAt(codec, dim) + 2 * block)) +
         F16ToF32(half(MinimaAt(dim) + 2 * block));
}

// A whole plane: K as [dim][64], V as [64][dim].
inline std::vector<float> Expand(Codec codec, const uint8_t* plane, size_t dim, bool keys) {
  std::vector<float> out(kPageEntries * dim);
  for (size_t slot = 0; slot < kPageEntries; ++slot) {
    for (size_t c = 0; c < dim; ++c) {
      out[keys ? c * kPageEntries + slot : slot * dim + c] =
          PlaneValue(codec, plane, dim, keys, slot, c);
    }
  }
  return out;
}

}  // namespace kvasir::ref
