// Random numbers that are the same on every machine for the same seed: the standard's distributions
// are not.
//
// A stream number separates uses of one seed, so that drawing more in one place changes nothing in
// another.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace kvasir::bench {

class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0)
      : state_(seed ^ (stream * 0xD1342543DE82EF95u)) {
    Next();
  }

  // SplitMix64 (Steele, Lea and Flood 2014).
  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }  // in [0, 1)
  size_t Below(size_t n) { return static_cast<size_t>(Uniform() * static_cast<double>(n)); }
  double Exponential() { return -std::log1p(-Uniform()); }
  // Box and Muller; the second value of the pair is not kept.
  double Normal() {
    const double radius = std::sqrt(2 * Exponential());
    return radius * std::cos(6.283185307179586 * Uniform());
  }
  // Mean `shape`. Marsaglia and Tsang 2000; below shape 1 through the next higher one.
  double Gamma(double shape) {
    if (shape < 1) return Gamma(shape + 1) * std::pow(1 - Uniform(), 1 / shape);
    const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = Normal(), t = 1 + c * x;
      if (t <= 0) continue;
      const double v = t * t * t;
      if (std::log(1 - Uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
    }
  }

 private:
  uint64_t state_;
};

}  // namespace kvasir::bench
