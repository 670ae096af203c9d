#include "bench/limits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

namespace kvasir::bench {
namespace {

constexpr LimitOptions kQuick = {.read_bytes = 16 << 20, .seconds = 0.002, .rounds = 3};

TEST(Limits, AreThereForWhatATargetHas) {
  Workers workers(1);
  for (const Kernels* kernels : AvailableKernels()) {
    SCOPED_TRACE(kernels->target);
    const Limits limits = MeasureLimits(*kernels, workers, kQuick);
    EXPECT_GT(limits.read_gb_s, 0);
    EXPECT_GT(limits.f32_gflop_s, 0);
    EXPECT_GT(limits.ms_fork_join, 0);
    EXPECT_EQ(limits.bf16_gflop_s > 0, kernels->limits.bf16_dot != nullptr);
    EXPECT_EQ(limits.int8_gop_s > 0, kernels->limits.int8_dot != nullptr);
    // Narrower numbers exist to be faster.
    if (limits.bf16_gflop_s > 0) {
      EXPECT_GT(limits.bf16_gflop_s, limits.f32_gflop_s);
    }
    if (limits.int8_gop_s > 0) {
      EXPECT_GT(limits.int8_gop_s, limits.f32_gflop_s);
    }
  }
}

// A loop that the compiler took away or shortened would take no time for its rounds.
TEST(Limits, LoopsTakeTimeInProportionToTheirRounds) {
  for (const Kernels* kernels : AvailableKernels()) {
    const LimitKernels& loops = kernels->limits;
    for (const RateLoop loop : {loops.f32_fma, loops.bf16_dot, loops.int8_dot}) {
      if (loop == nullptr) continue;
      const auto best = [&](uint64_t rounds) {
        double least = 1e9;
        for (int i = 0; i < 5; ++i) {
          const auto start = std::chrono::steady_clock::now();
          volatile float result = loop(rounds);
          static_cast<void>(result);
          least = std::min(
              least,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return least;
      };
      EXPECT_GT(best(400'000), 4 * best(20'000)) << kernels->target;
    }
  }
}

TEST(Limits, ReadingSeesEveryByte) {
  for (const Kernels* kernels : AvailableKernels()) {
    alignas(64) uint8_t bytes[1024] = {};
    const uint64_t none = kernels->limits.read(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); ++i) {
      bytes[i] = 1;
      EXPECT_NE(kernels->limits.read(bytes, sizeof(bytes)), none) << kernels->target << " " << i;
      bytes[i] = 0;
    }
  }
}

TEST(Limits, BetterTakesTheBestOfEachFigure) {
  const Limits a = {
      .read_gb_s = 1, .f32_gflop_s = 5, .bf16_gflop_s = 3, .int8_gop_s = 9, .ms_fork_join = 2};
  const Limits b = {
      .read_gb_s = 2, .f32_gflop_s = 4, .bf16_gflop_s = 6, .int8_gop_s = 8, .ms_fork_join = 1};
  const Limits best = Better(a, b);
  EXPECT_EQ(best.read_gb_s, 2);
  EXPECT_EQ(best.f32_gflop_s, 5);
  EXPECT_EQ(best.bf16_gflop_s, 6);
  EXPECT_EQ(best.int8_gop_s, 9);
  EXPECT_EQ(best.ms_fork_join, 1);
}

}  // namespace
}  // namespace kvasir::bench
