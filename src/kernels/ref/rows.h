// Oracles of the row kernels: plain loops in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace kvasir::ref {

inline std::vector<double> RmsNorm(std::span<const float> x, std::span<const float> weight,
                                   double eps) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * inverse * weight[i];
  return out;
}

inline double Silu(double x) { return x / (1 + std::exp(-x)); }

inline std::vector<double> Rope(std::span<const float> head, std::span<const float> cos,
                                std::span<const float> sin, bool interleaved) {
  std::vector<double> out(head.begin(), head.end());
  const size_t half = head.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const size_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;
    out[a] = static_cast<double>(head[a]) * cos[i] - static_cast<double>(head[b]) * sin[i];
    out[b] = static_cast<double>(head[b]) * cos[i] + static_cast<double>(head[a]) * sin[i];
  }
  return out;
}

}  // namespace kvasir::ref
