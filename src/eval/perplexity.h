// How likely a model finds a text, token by token.
//
// Log-softmax of f32 logits: the maximum subtracted, exponentials and their sum in double, summed
// in the order of token ids. Logits are reduced row by row; the matrix of all of them never exists.
//
// Cost     One forward pass over the text; a row costs one exponential per vocabulary entry, spread
// over
//          the workers.
// Errors   kInvalid (fewer than two tokens, a NaN logit: with its position); those of
// Engine::Score.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/workers.h"
#include "engine/engine.h"

namespace kvasir {

struct Perplexity {
  std::vector<double> nll;    // nats of tokens 1, 2, ...
  std::vector<int32_t> top1;  // the most likely token in each of their places; ties to the lower id
  double mean_nll = 0, ppl = 0;
  uint64_t entries = 0, entries_dropped = 0;  // when the text was read, all lanes
  uint64_t bytes_end = 0, bytes_side = 0;     // of the ledger, then
};

// The whole of `tokens` is one sequence.
Perplexity MeasurePerplexity(Engine& engine, Workers& workers, std::span<const int32_t> tokens,
                             const std::function<void(uint32_t done)>& on_progress = {});

// Reduces rows of logits. Keeps its scratch between rows.
class RowScorer {
 public:
  explicit RowScorer(Workers* workers) : workers_(workers) {}  // null: on the calling thread

  struct Score {
    double nll = 0;  // of `target`
    int32_t top1 = 0;
  };
  // `position` names the row in errors.
  Score operator()(std::span<const float> logits, int32_t target, uint64_t position);

 private:
  Workers* workers_;
  std::vector<double> exponentials_;
};

}  // namespace kvasir
