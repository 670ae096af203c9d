#include "bench/load.h"

#include <algorithm>
#include <cmath>

namespace kvasir::bench {

std::vector<double> ArrivalTimes(size_t n, double rate, double burstiness, Random random) {
  std::vector<double> times(n, 0.0);
  if (rate <= 0 || n == 0) return times;
  double now = 0;
  for (double& time : times) {
    now += burstiness == 1 ? random.Exponential() : random.Gamma(burstiness);
    time = now;
  }
  const double scale = now > 0 ? static_cast<double>(n) / rate / now : 0;
  for (double& time : times) time *= scale;
  return times;
}

uint32_t DrawLength(LengthShape shape, uint32_t mean, Random& random) {
  double length = mean;
  if (shape == LengthShape::kUniform) length *= 0.5 + random.Uniform();
  if (shape == LengthShape::kLogNormal) {
    // The mean of exp(sigma Z - sigma^2 / 2) is 1.
    length *= std::min(10.0, std::exp(random.Normal() - 0.5));
  }
  return static_cast<uint32_t>(std::clamp(std::round(length), 1.0, 4294967295.0));
}

}  // namespace kvasir::bench
