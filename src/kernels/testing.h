// What the tests of several kernels share.
#pragma once

#include <cstdint>
#include <ostream>
#include <random>
#include <vector>

#include "kernels/plane_kernels.h"

namespace kvasir {

// Normal floats; the same for the same arguments.
inline std::vector<float> Random(size_t n, uint32_t seed, float sigma = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

// Every dense codec, and every sparse one with half and a third of the channels.
inline std::vector<PlaneForm> AllForms(size_t dim) {
  std::vector<PlaneForm> forms;
  for (int i = 0; i < kCodecs; ++i) {
    const auto codec = static_cast<Codec>(i);
    if (IsSparse(codec)) {
      forms.emplace_back(codec, static_cast<uint16_t>((dim + 1) / 2));
      forms.emplace_back(codec, static_cast<uint16_t>((dim + 2) / 3));
    } else {
      forms.emplace_back(codec);
    }
  }
  return forms;
}

inline std::ostream& operator<<(std::ostream& out, PlaneForm form) {
  constexpr const char* kNames[kCodecs] = {"f32", "f16",         "bf16",       "q8",
                                           "q4",  "sparse-bf16", "sparse-f16", "sparse-i8"};
  return out << kNames[form.index()] << '/' << form.keep;
}

// A plane of the rows in `live` with 64 bytes of slack behind it. Of the other rows the floats and
// the scales are NaN.
inline std::vector<uint8_t> MakePlane(const PlaneKernels& kernels, PlaneForm form, size_t dim,
                                      bool keys, const float* rows, uint64_t live = ~uint64_t{0}) {
  std::vector<uint8_t> plane(PlaneBytes(form, dim) + 64, 0xff);
  if (IsSparse(form.codec)) {
    const std::vector<uint8_t> dense =
        MakePlane(kernels, SparseSource(form.codec), dim, keys, rows, live);
    const auto pack = (keys ? kernels.pack_k : kernels.pack_v)[form.index()];
    pack(dense.data(), form.Shape(dim), nullptr, plane.data());
    return plane;
  }
  const auto encode = (keys ? kernels.encode_k : kernels.encode_v)[form.index()];
  for (size_t e = 0; e < kPageEntries; ++e) {
    if (live >> e & 1) encode(rows + e * dim, dim, 1, dim, e, plane.data());
  }
  return plane;
}

}  // namespace kvasir
