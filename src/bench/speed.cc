#include "bench/speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "base/error.h"
#include "bench/random.h"

namespace kvasir::bench {

namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// A sequence whose cache holds the tokens of a depth.
struct Filled {
  std::unique_ptr<SequenceState> state;
  uint64_t bytes = 0, bytes_peak = 0, live_bytes = 0;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

class SpeedRuns::Sequences {
 public:
  Sequences(Engine& engine, uint32_t vocab_size, uint64_t seed)
      : engine_(engine), vocab_size_(vocab_size), random_(seed, /*stream=*/8) {}

  // Fills what the test begins with, unless an earlier one has.
  void Fill(const SpeedTest& test) {
    if (test.depth == 0) return;
    std::vector<Filled>& filled = filled_[test.depth];
    while (filled.size() < test.parallel) filled.push_back(Read(test.depth));
  }

  void Run(const SpeedTest& test, SpeedResult* result) {
    engine_.ResetPeaks();
    const uint64_t before = engine_.ledger().bytes;
    std::vector<Generation> done;
    done.reserve(test.parallel);
    std::vector<Request> requests;
    for (uint32_t i = 0; i < test.parallel; ++i) requests.push_back(RequestOf(test, i));
    const double policy_before = engine_.stats().policy_seconds;
    const auto start = Clock::now();
    for (Request& request : requests) {
      request.on_done = [&done](Generation g) { done.push_back(std::move(g)); };
      engine_.Submit(std::move(request));
    }
    engine_.RunUntilIdle();
    const double seconds = Seconds(Clock::now() - start);
    Check(test, done);
    if (result == nullptr) return;
    result->seconds.push_back(seconds);
    result->policy_seconds.push_back(engine_.stats().policy_seconds - policy_before);
    Account(test, done, before, result);
  }

 private:
  std::vector<int32_t> Tokens(uint32_t n) {
    std::vector<int32_t> tokens(n);
    for (int32_t& id : tokens) id = static_cast<int32_t>(random_.Below(vocab_size_));
    return tokens;
  }

  Filled Read(uint32_t depth) {
    engine_.ResetPeaks();
    const uint64_t before = engine_.ledger().bytes;
    std::vector<Generation> done;
    Request request;
    request.tokens = Tokens(depth);
    request.max_tokens = 0;
    request.sampling.seed = 0;
    request.keep_state = true;
    request.on_done = [&done](Generation g) { done.push_back(std::move(g)); };
    engine_.Submit(std::move(request));
    engine_.RunUntilIdle();
    Check({.n_prompt = depth}, done);
    Filled filled;
    filled.state = std::move(done[0].state);
    engine_.Freeze(*filled.state);
    filled.bytes = engine_.ledger().bytes - before;
    filled.bytes_peak = engine_.ledger().bytes_peak - before;
    filled.live_bytes = done[0].live_bytes;
    return filled;
  }

  // A prompt's last token already yields the first new one, so a test that only generates reads
  // one token as its prompt: n passes of one row.
  Request RequestOf(const SpeedTest& test, uint32_t sequence) {
    Request request;
    request.tokens = Tokens(std::max(test.n_prompt, 1u));
    request.max_tokens = test.n_gen + (test.n_prompt > 0 ? 1 : 0);
    request.sampling.temperature = 0;
    request.sampling.seed = 0;
    request.ignore_eos = true;
    request.keep_state = true;
    if (test.depth > 0) request.fork_of = filled_.at(test.depth)[sequence].state.get();
    return request;
  }

  static void Check(const SpeedTest& test, const std::vector<Generation>& done) {
    CHECK(done.size() == test.parallel);
    for (const Generation& g : done) {
      if (g.error) throw Error(*g.error);
      const bool all = g.tokens.size() >= test.n_gen;
      if (!all || g.n_parked > 0) {
        Fail(Code::kBudget,
             "bench: {}: the KV budget holds the filled caches of all depths and not this test "
             "beside them; raise --kv-memory or measure fewer depths at once",
             Name(test));
      }
    }
  }

  void Account(const SpeedTest& test, const std::vector<Generation>& done, uint64_t before,
               SpeedResult* result) {
    const Ledger ledger = engine_.ledger();
    uint64_t shared = 0, peak = 0, live_before = 0, live_after = 0, chosen = 0;
    for (uint32_t i = 0; i < test.parallel; ++i) {
      live_after += done[i].live_bytes;
      if (done[i].reads) chosen += done[i].reads->bytes;
      if (test.depth == 0) continue;
      const Filled& filled = filled_.at(test.depth)[i];
      // Pages are shared with the fork; what is recorded it has for itself, all of it.
      shared += filled.bytes - engine_.SideBytes(*filled.state);
      peak = std::max(peak, filled.bytes_peak);
      live_before += filled.live_bytes;
    }
    peak = std::max(peak, shared + ledger.bytes_peak - std::min(before, ledger.bytes_peak));
    result->kv_peak_bytes = std::max(result->kv_peak_bytes, peak);
    result->kv_end_bytes = shared + ledger.bytes - std::min(before, ledger.bytes);
    // The last token sampled is not read.
    result->kv_tokens = uint64_t{test.parallel} * (test.positions() - 1);
    if (test.n_prompt > 0) return;
    const LaneShape& shape = done[0].state->lanes->shape();
    // A step reads its own entry too.
    const uint64_t own = shape.lanes() * test.parallel * shape.EntryBytes();
    result->kv_read_bytes = chosen > 0 ? chosen : (live_before + live_after + own) / 2;
  }

  Engine& engine_;
  uint32_t vocab_size_;
  Random random_;
  std::map<uint32_t, std::vector<Filled>> filled_;  // by depth
};

SpeedRuns::SpeedRuns(Engine& engine, uint32_t vocab_size, const std::vector<SpeedTest>& tests,
                     uint64_t seed)
    : sequences_(std::make_unique<Sequences>(engine, vocab_size, seed)), warm_(tests.size()) {
  for (const SpeedTest& test : tests) results_.push_back({.test = test, .started = Now()});
}

SpeedRuns::~SpeedRuns() = default;

void SpeedRuns::Fill(size_t test) { sequences_->Fill(results_[test].test); }

void SpeedRuns::WarmUp(size_t test) {
  SpeedTest shorter = results_[test].test;
  shorter.n_gen = std::min(shorter.n_gen, 4u);
  sequences_->Run(shorter, nullptr);
  warm_[test] = true;
}

void SpeedRuns::Run(size_t test) {
  Fill(test);
  if (!warm_[test]) WarmUp(test);
  sequences_->Run(results_[test].test, &results_[test]);
}

Spread SpreadOf(const std::vector<double>& values) {
  Spread spread;
  for (const double value : values) spread.mean += value / static_cast<double>(values.size());
  if (values.size() < 2) return spread;
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return spread;
}

double Median(std::vector<double> values) {
  CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double ReadPerSecond(const SpeedResult& result, const ModelSize& size) {
  if (result.test.n_prompt > 0) return 0;
  const double per_step =
      static_cast<double>(size.weight_bytes) + static_cast<double>(result.kv_read_bytes);
  return per_step * result.test.n_gen / Median(result.seconds);
}

double OpsPerSecond(const SpeedResult& result, const ModelSize& size) {
  if (result.test.n_gen > 0) return 0;
  // Logits are wanted of a prompt's last row alone.
  const double macs = static_cast<double>(size.layer_macs) * result.test.n_prompt +
                      static_cast<double>(size.output_macs);
  return 2 * macs * result.test.parallel / Median(result.seconds);
}

std::vector<SpeedResult> MeasureSpeed(Engine& engine, uint32_t vocab_size,
                                      const std::vector<SpeedTest>& tests,
                                      const SpeedOptions& options,
                                      const std::function<void(double)>& on_progress) {
  SpeedRuns runs(engine, vocab_size, tests, options.seed);
  const double n_runs = static_cast<double>(tests.size()) * (options.repetitions + 2.0);
  double n_done = 0;
  const auto done = [&] {
    n_done += 1;
    if (on_progress) on_progress(n_done / n_runs);
  };
  for (size_t i = 0; i < tests.size(); ++i, done()) runs.Fill(i);
  for (size_t i = 0; i < tests.size(); ++i, done()) runs.WarmUp(i);
  for (uint32_t repetition = 0; repetition < options.repetitions; ++repetition) {
    for (size_t i = 0; i < tests.size(); ++i, done()) {
      runs.Run(repetition % 2 == 0 ? i : tests.size() - 1 - i);
    }
  }
  return runs.results();
}

}  // namespace kvasir::bench
