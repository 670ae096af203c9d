// What this machine can do at most, measured now: how fast all threads together read memory and
// multiply. Ratios to these are what a speed of a model is worth on a machine that changes its
// speed from hour to hour.
//
// Cost     About a second, and as much memory as is read.
// Threads  One; uses the workers.
#pragma once

#include <cstddef>

#include "base/workers.h"
#include "kernels/table.h"

namespace kvasir::bench {

struct Limits {
  double read_gb_s = 0;  // of memory on huge pages, in order
  // Of the target's instructions, two operations a multiply-add; 0: it has none.
  double f32_gflop_s = 0, bf16_gflop_s = 0, int8_gop_s = 0;
  double ms_fork_join = 0;  // of the workers, with nothing to do
};

struct LimitOptions {
  size_t read_bytes = size_t{1} << 30;  // well beyond every cache
  double seconds = 0.04;                // of one round of a loop
  uint32_t rounds = 5;                  // the best one counts: noise only slows down
};

Limits MeasureLimits(const Kernels& kernels, Workers& workers, const LimitOptions& options = {});
// The better of both in every figure: limits of the same run, measured before and after.
Limits Better(const Limits& a, const Limits& b);

}  // namespace kvasir::bench
