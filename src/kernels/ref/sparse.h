// Plain-loop oracle of sparse planes (kernels/plane.h): which channels a row keeps, and the bytes
// that follow.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/plane.h"
#include "tensor/dtype.h"

namespace kvasir::ref {

// The `keep` channels of `row` that stay: a stable sort by magnitude, NaN first. row: 16-bit
// elements.
inline std::vector<bool> KeptOf(const std::vector<uint16_t>& row, Codec source, size_t keep,
                                const float* weights) {
  std::vector<double> magnitude(row.size());
  for (size_t c = 0; c < row.size(); ++c) {
    float x = std::fabs(source == Codec::kF16 ? F16ToF32(row[c]) : BF16ToF32(row[c]));
    if (weights != nullptr) x = x * weights[c];
    magnitude[c] = double{x};
    if (std::isnan(x)) {  // above infinity, and in the order of their bits
      uint32_t bits = 0;
      std::memcpy(&bits, &x, sizeof(bits));
      magnitude[c] = std::ldexp(bits & 0x7fffffff, 1000 - 31);
    } else if (std::isinf(x)) {
      magnitude[c] = std::ldexp(0x7f800000, 1000 - 31);
    }
  }
  std::vector<size_t> order(row.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return magnitude[a] > magnitude[b]; });
  std::vector<bool> kept(row.size());
  for (size_t i = 0; i < keep; ++i) kept[order[i]] = true;
  return kept;
}

// The smallest f16 that is not below amax / 127, as bits; NaN where there is none.
inline uint16_t SparseScale(float amax) {
  for (uint16_t bits = 0; bits < 0x7c00; ++bits) {
    if (double{F16ToF32(bits)} * 127 >= double{amax}) return bits;
  }
  return 0x7e00;
}

inline int SparseInteger(float x, uint16_t scale) {
  if (scale == 0 || scale == 0x7e00) return 0;
  const double q = std::nearbyint(double{x} / double{F16ToF32(scale)});
  return static_cast<int>(std::clamp(q, -127.0, 127.0));
}

// A sparse plane of a dense one. `kept`: [64][dim], as its bits say afterwards.
inline std::vector<uint8_t> Pack(PlaneForm form, const uint8_t* dense, size_t dim, bool keys,
                                 const float* weights, std::vector<bool>* kept) {
  const Codec source = SparseSource(form.codec);
  const auto element = [&](size_t e, size_t c) {
    uint16_t x = 0;
    std::memcpy(&x, dense + 2 * (keys ? c * 64 + e : e * dim + c), sizeof(x));
    return x;
  };
  const auto as_float = [&](uint16_t x) {
    return source == Codec::kF16 ? F16ToF32(x) : BF16ToF32(x);
  };
  std::vector<uint8_t> plane(PlaneBytes(form, dim));
  kept->assign(64 * dim, false);
  std::vector<uint16_t> scale(64);
  for (size_t e = 0; e < 64; ++e) {
    std::vector<uint16_t> row(dim);
    for (size_t c = 0; c < dim; ++c) row[c] = element(e, c);
    const std::vector<bool> of_row = KeptOf(row, source, form.keep, weights);
    float amax = 0;
    for (size_t c = 0; c < dim; ++c) {
      (*kept)[e * dim + c] = of_row[c];
      const float x = std::fabs(as_float(row[c]));
      if (of_row[c] && !(x <= amax)) amax = std::isnan(amax) ? amax : x;
      const size_t bit = keys ? c * 64 + e : e * ((dim + 63) / 64 * 64) + c;
      if (of_row[c]) {
        plane[SparseBitmapsAt(form) + bit / 8] |= static_cast<uint8_t>(1u << bit % 8);
      }
    }
    scale[e] = std::isfinite(amax) ? SparseScale(amax) : uint16_t{0x7e00};
    if (form.codec == Codec::kSparseI8) {
      std::memcpy(&plane[SparseScalesAt(form) + 2 * e], &scale[e], 2);
    }
  }
  size_t at = 0;
  for (size_t i = 0; i < 64 * dim; ++i) {
    const size_t e = keys ? i % 64 : i / dim, c = keys ? i / 64 : i % dim;
    if (!(*kept)[e * dim + c]) continue;
    const uint16_t x = element(e, c);
    if (form.codec == Codec::kSparseI8) {
      plane[at] = static_cast<uint8_t>(SparseInteger(as_float(x), scale[e]));
    } else {
      std::memcpy(&plane[at], &x, 2);
    }
    at += SparseValueBytes(form.codec);
  }
  return plane;
}

}  // namespace kvasir::ref
