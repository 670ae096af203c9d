// Speed of a model under one setting of its cache: how long tests (speed_tests.h) take.
//
// Method   One process. The cache is filled once for each depth by reading random tokens under the
//          setting itself, and every repetition runs in a fork of that state; sequences that
//          decode together have texts of their own. Repetitions interleave the tests, every other
//          one backwards, after one warm-up. Nothing is pinned.
// Memory   All filled states live at once, within the engine's budget.
// Errors   Those of Engine::Submit; kBudget when the states and the test do not fit together.
// Threads  One; the engine uses its workers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bench/speed_tests.h"
#include "engine/engine.h"

namespace kvasir::bench {

// A model as the measures need it.
struct ModelSize {
  uint64_t layer_macs = 0;    // multiply-adds of the layers' matrices for one token
  uint64_t output_macs = 0;   // of the output matrix
  uint64_t weight_bytes = 0;  // that a pass reads
  uint32_t vocab_size = 0;
};

struct SpeedResult {
  SpeedTest test;
  std::vector<double> seconds;         // one for each repetition
  std::vector<double> policy_seconds;  // of these: of the policy, commits included
  uint64_t kv_peak_bytes = 0;          // most bytes of KV during the filling or the test
  uint64_t kv_end_bytes = 0;           // at the end
  uint64_t kv_tokens = 0;              // tokens that the sequences saw until then
  uint64_t kv_read_bytes = 0;          // of the entries that one decode step reads, on average
  double started = 0;                  // seconds since 1970

  double ts(size_t repetition) const {
    return static_cast<double>(test.tokens()) / seconds[repetition];
  }
  double kv_bytes_per_token() const {
    return static_cast<double>(kv_end_bytes) / static_cast<double>(kv_tokens);
  }
};

// Mean and standard deviation of a sample (divided by n - 1; 0 of a single one).
struct Spread {
  double mean = 0, deviation = 0;
};
Spread SpreadOf(const std::vector<double>& values);
double Median(std::vector<double> values);

// Bytes of weights and KV that the test's decode steps read, per second of the median repetition;
// 0 for a test that also reads a prompt.
double ReadPerSecond(const SpeedResult& result, const ModelSize& size);
// Operations (two a multiply-add) of the matrices per second; 0 for a test that generates.
double OpsPerSecond(const SpeedResult& result, const ModelSize& size);

struct SpeedOptions {
  uint32_t repetitions = 5;
  uint64_t seed = 1;  // of the tokens
};

// Tests that are run one at a time, in whatever order. What a test needs is made at its first run.
class SpeedRuns {
 public:
  SpeedRuns(Engine& engine, uint32_t vocab_size, const std::vector<SpeedTest>& tests,
            uint64_t seed);
  ~SpeedRuns();

  const std::vector<SpeedResult>& results() const { return results_; }
  // Fills the cache that the test begins with, unless another test has; a warm-up.
  void Fill(size_t test);
  void WarmUp(size_t test);
  // Once, with a result; behind Fill and WarmUp if they did not run yet.
  void Run(size_t test);

 private:
  class Sequences;
  std::unique_ptr<Sequences> sequences_;
  std::vector<SpeedResult> results_;
  std::vector<bool> warm_;
};

// `on_progress` gets the share of runs done.
std::vector<SpeedResult> MeasureSpeed(Engine& engine, uint32_t vocab_size,
                                      const std::vector<SpeedTest>& tests,
                                      const SpeedOptions& options,
                                      const std::function<void(double)>& on_progress = {});

}  // namespace kvasir::bench
