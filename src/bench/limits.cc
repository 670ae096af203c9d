#include "bench/limits.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "tensor/view.h"

namespace kvasir::bench {

namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

template <typename F>
double SecondsOf(F&& f) {
  const auto start = Clock::now();
  f();
  return Seconds(Clock::now() - start);
}

// Results go here, so that no loop is without effect.
std::atomic<uint64_t> sink;

// Giga-operations per second of all workers.
double Rate(RateLoop loop, uint64_t ops, Workers& workers, const LimitOptions& options) {
  if (loop == nullptr) return 0;
  uint64_t rounds = 1024;
  double seconds = 0;
  const auto run = [&] {
    seconds = SecondsOf([&] {
      workers.Run(workers.size(), [&](size_t, size_t) {
        sink.fetch_add(std::bit_cast<uint32_t>(loop(rounds)), std::memory_order_relaxed);
      });
    });
  };
  for (run(); seconds < options.seconds; run()) rounds *= 2;
  double best = 0;
  for (uint32_t i = 0; i < options.rounds; ++i) {
    run();
    const double done = static_cast<double>(rounds) * static_cast<double>(ops * workers.size());
    best = std::max(best, done / seconds / 1e9);
  }
  return best;
}

double ReadRate(const Kernels& kernels, Workers& workers, const LimitOptions& options) {
  constexpr size_t kPiece = size_t{2} << 20;
  const size_t pieces = std::max(options.read_bytes / kPiece, size_t{1});
  const AlignedBuffer buffer(pieces * kPiece);
  // Pages that nobody wrote are all the same one.
  workers.Run(pieces, [&](size_t i, size_t) {
    std::memset(buffer.data() + i * kPiece, static_cast<int>(i + 1), kPiece);
  });
  double best = 0;
  for (uint32_t round = 0; round < options.rounds; ++round) {
    const double seconds = SecondsOf([&] {
      // A stretch for each worker: memory is read in order.
      const size_t n = workers.size();
      workers.Run(n, [&](size_t i, size_t) {
        const size_t begin = pieces * i / n, end = pieces * (i + 1) / n;
        sink.fetch_add(kernels.limits.read(buffer.data() + begin * kPiece, (end - begin) * kPiece),
                       std::memory_order_relaxed);
      });
    });
    best = std::max(best, static_cast<double>(buffer.size()) / seconds / 1e9);
  }
  return best;
}

// From the call until every worker has come and gone: each task waits for all the others.
double ForkJoinMs(Workers& workers) {
  const size_t n = workers.size();
  std::vector<double> times(200);
  for (double& time : times) {
    std::atomic<size_t> arrived{0};
    time = 1000 * SecondsOf([&] {
             workers.Run(n, [&](size_t, size_t) {
               arrived.fetch_add(1);
               while (arrived.load() < n) std::this_thread::yield();
             });
           });
  }
  std::nth_element(times.begin(), times.begin() + 100, times.end());
  return times[100];
}

}  // namespace

Limits MeasureLimits(const Kernels& kernels, Workers& workers, const LimitOptions& options) {
  const LimitKernels& loops = kernels.limits;
  Limits limits;
  limits.f32_gflop_s = Rate(loops.f32_fma, loops.f32_ops, workers, options);
  limits.bf16_gflop_s = Rate(loops.bf16_dot, loops.bf16_ops, workers, options);
  limits.int8_gop_s = Rate(loops.int8_dot, loops.int8_ops, workers, options);
  limits.ms_fork_join = ForkJoinMs(workers);
  limits.read_gb_s = ReadRate(kernels, workers, options);
  return limits;
}

Limits Better(const Limits& a, const Limits& b) {
  return {.read_gb_s = std::max(a.read_gb_s, b.read_gb_s),
          .f32_gflop_s = std::max(a.f32_gflop_s, b.f32_gflop_s),
          .bf16_gflop_s = std::max(a.bf16_gflop_s, b.bf16_gflop_s),
          .int8_gop_s = std::max(a.int8_gop_s, b.int8_gop_s),
          .ms_fork_join = std::min(a.ms_fork_join, b.ms_fork_join)};
}

}  // namespace kvasir::bench
