// Intervals and tests for figures of quality: shares, paired differences, means over blocks.
//
// Everything is a function of its arguments: the bootstrap draws from a generator with a fixed
// seed, so the same data gives the same bits on every machine and number of threads.
//
// Cost     A bootstrap is 2000 times the number of groups.
// Threads  Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kvasir {

struct Interval {
  double lo = 0, hi = 0;
  bool operator==(const Interval&) const = default;
};

// A figure and where it lies with 95 %; no interval: there was too little to tell.
struct Estimate {
  double v = 0;
  std::optional<Interval> interval;
  // Whether it may as well be nothing. An exact zero is no such doubt.
  bool DoubtfulSign() const {
    return !interval || (interval->lo <= 0 && interval->hi >= 0 && interval->lo < interval->hi);
  }
  bool operator==(const Estimate&) const = default;
};

// Wilson's score interval, 95 %, for `hits` of `n`; hits may be a sum of parts of one.
Interval Wilson(double hits, uint64_t n);

// Exact two-sided McNemar test: how probable so uneven a split of the discordant pairs is if
// neither side is favoured.
double McNemar(uint64_t lost, uint64_t gained);

// Values that belong together (samples of a problem, tokens of a block): resampled as one.
struct Group {
  double sum = 0;
  double count = 0;
};
inline constexpr uint32_t kResamples = 2000;
// The mean over all groups' values, and its 95 % from groups drawn with replacement; no interval
// for fewer than two groups. CHECKs that there is a value.
Estimate BootstrapMean(std::span<const Group> groups);
// Groups of one value each: for differences between two cases on the same samples.
Estimate PairedBootstrap(std::span<const double> differences);

// `sorted` ascending, `q` in [0, 1], linear between neighbours; 0 for no values.
double Quantile(std::span<const double> sorted, double q);

}  // namespace kvasir
