#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace kvasir {

RowScorer::Score RowScorer::operator()(std::span<const float> logits, int32_t target,
                                       uint64_t position) {
  CHECK(!logits.empty() && target >= 0 && static_cast<size_t>(target) < logits.size());
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      Fail(Code::kInvalid, "logits after position {}: token {} has a NaN", position, i);
    }
    if (logits[i] > logits[best]) best = i;
  }
  const double maximum = logits[best];
  exponentials_.resize(logits.size());
  constexpr size_t kTask = 4096;
  const size_t n_tasks = (logits.size() + kTask - 1) / kTask;
  const auto task = [&](size_t t, size_t) {
    const size_t end = std::min(logits.size(), (t + 1) * kTask);
    for (size_t i = t * kTask; i < end; ++i) exponentials_[i] = std::exp(logits[i] - maximum);
  };
  if (workers_) {
    workers_->Run(n_tasks, task);
  } else {
    for (size_t t = 0; t < n_tasks; ++t) task(t, 0);
  }
  // One chain in the order of ids: the sum does not depend on the workers.
  double sum = 0;
  for (const double e : exponentials_) sum += e;
  const double logit = logits[static_cast<size_t>(target)];
  return {std::log(sum) - (logit - maximum), static_cast<int32_t>(best)};
}

Perplexity MeasurePerplexity(Engine& engine, Workers& workers, std::span<const int32_t> tokens,
                             const std::function<void(uint32_t done)>& on_progress) {
  if (tokens.size() < 2) {
    Fail(Code::kInvalid, "text: {} tokens: perplexity needs at least two", tokens.size());
  }
  Perplexity result;
  RowScorer score(&workers);
  const Engine::ScoreResult end = engine.Score(
      tokens,
      [&](uint32_t row, std::span<const float> logits) {
        if (row + 1 >= tokens.size()) return;
        const RowScorer::Score s = score(logits, tokens[row + 1], row);
        result.nll.push_back(s.nll);
        result.top1.push_back(s.top1);
      },
      [&](uint32_t done) {
        const Ledger ledger = engine.ledger();  // after the pass's commit
        result.bytes_end = ledger.bytes;
        result.bytes_side = ledger.bytes_side;
        if (on_progress) on_progress(done);
      });
  CHECK(result.nll.size() + 1 == tokens.size());
  for (const double nll : result.nll) result.mean_nll += nll;
  result.mean_nll /= static_cast<double>(result.nll.size());
  result.ppl = std::exp(result.mean_nll);
  result.entries = end.entries;
  result.entries_dropped = end.entries_dropped;
  return result;
}

}  // namespace kvasir
