// When requests arrive and how long they are: functions of their arguments and a seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bench/random.h"

namespace kvasir::bench {

// Seconds from the start, ascending, one for each of `n` arrivals.
//
// `rate` in requests per second; 0: all at once. Gaps are gamma distributed with shape `burstiness`
// (1: Poisson arrivals; below: in bursts; above: more even), then scaled so that the last one comes
// at n / rate: two servers under the same rate see the same load, whatever the draw.
std::vector<double> ArrivalTimes(size_t n, double rate, double burstiness, Random random);

enum class LengthShape : uint8_t {
  kFixed,
  kUniform,    // from half to one and a half of the mean
  kLogNormal,  // long tail: sigma 1 around the same mean, cut at ten times the mean
};
uint32_t DrawLength(LengthShape shape, uint32_t mean, Random& random);  // at least 1

}  // namespace kvasir::bench
