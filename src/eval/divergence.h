// How far two distributions over the next token are apart, from two rows of logits.
//
// Log-softmax with the maximum subtracted, sums in double in the order of token ids, nothing
// clipped. Equal rows give exactly 0.
//
// Cost     Two exponentials per vocabulary entry, one if both rows are the same memory, many at a
//          time (RowKernels::exp_below: the same bits on every target). The sums are chains.
// Errors   kInvalid naming the position: a logit that is NaN or infinite (minus infinity is a
//          probability of 0), a token that only the second row makes impossible.
// Threads  Pure; rows of a pass are compared in parallel, each by one thread.
#pragma once

#include <cstdint>
#include <span>

namespace kvasir {

struct Divergence {
  double nll_dense = 0, nll = 0;  // nats of the target
  double kl = 0;                  // nats, dense -> case, full vocabulary
  double dp = 0;                  // probability of the target, case - dense
  bool same_top1 = false;         // most likely token; equal logits: the lower id
};

// `target` is the token that followed, `position` names the row in errors.
Divergence Compare(std::span<const float> dense, std::span<const float> other, int32_t target,
                   uint64_t position);

}  // namespace kvasir
