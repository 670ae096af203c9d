// What the tests of several kernels share.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace kvasir {

// Normal floats; the same for the same arguments.
inline std::vector<float> Random(size_t n, uint32_t seed, float sigma = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

}  // namespace kvasir
