#include "eval/divergence.h"

#include <cmath>
#include <string_view>

#include "base/error.h"

namespace kvasir {

namespace {

size_t Top1(std::span<const float> logits, std::string_view whose, uint64_t position) {
  size_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < INFINITY)) {
      Fail(Code::kInvalid, "{} after position {}: token {} has {}", whose, position, i, logits[i]);
    }
    if (logits[i] > logits[best]) best = i;
  }
  if (std::isinf(logits[best])) {
    Fail(Code::kInvalid, "{} after position {}: no token is possible", whose, position);
  }
  return best;
}

}  // namespace

Divergence Compare(std::span<const float> dense, std::span<const float> other, int32_t target,
                   uint64_t position) {
  CHECK(dense.size() == other.size());
  CHECK(target >= 0 && static_cast<size_t>(target) < dense.size());
  const size_t top_p = Top1(dense, "dense logits", position);
  const size_t top_q = Top1(other, "logits", position);
  const double max_p = dense[top_p], max_q = other[top_q];
  // With a = ln p + ln Z and b = ln q + ln Z':
  // sum p (ln p - ln q) = sum e^a (a - b) / Z + ln Z' - ln Z.
  const bool same_row = dense.data() == other.data();
  double sum_p = 0, sum_q = 0, sum_difference = 0;
  for (size_t i = 0; i < dense.size(); ++i) {
    const double a = dense[i] - max_p, b = other[i] - max_q;
    const double p = std::exp(a);
    sum_p += p;
    sum_q += same_row ? p : std::exp(b);
    if (p > 0) sum_difference += p * (a - b);
  }
  const double log_p = std::log(sum_p), log_q = std::log(sum_q);
  const auto id = static_cast<size_t>(target);
  Divergence result;
  result.nll_dense = log_p - (dense[id] - max_p);
  result.nll = log_q - (other[id] - max_q);
  result.kl = sum_difference / sum_p + (log_q - log_p);
  result.dp = std::exp(-result.nll) - std::exp(-result.nll_dense);
  result.same_top1 = top_p == top_q;
  if (!std::isfinite(result.kl) || !std::isfinite(result.nll) || !std::isfinite(result.nll_dense)) {
    Fail(Code::kInvalid, "logits after position {}: a token that is needed has probability 0",
         position);
  }
  return result;
}

}  // namespace kvasir
