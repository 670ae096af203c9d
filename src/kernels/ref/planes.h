// Plain-loop oracle of the plane codecs (kernels/plane.h): what each element is worth.
#pragma once

#include <cstring>
#include <vector>

#include "kernels/plane.h"
#include "tensor/dtype.h"

namespace kvasir::ref {

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
      break;
  }
  const size_t block = c / kCodecBlock, blocks = (dim + kCodecBlock - 1) / kCodecBlock;
  const size_t scale = keys ? block * kPageEntries + slot : slot * blocks + block;
  return static_cast<float>(static_cast<int8_t>(plane[i])) *
         F16ToF32(half(kPageEntries * dim + scale * 2));
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
