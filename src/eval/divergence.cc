#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "kernels/table.h"

namespace kvasir {

namespace {

constexpr size_t kPiece = 512;  // entries whose exponentials lie in the first cache

size_t Top1(std::span<const float> logits, std::string_view whose, uint64_t position) {
  // Without branches over the row; what is no number is looked for only where there is one.
  float most = logits[0];
  bool numbers = true;
  for (const float logit : logits) {
    numbers &= logit < INFINITY;
    most = most < logit ? logit : most;
  }
  for (size_t i = 0; !numbers && i < logits.size(); ++i) {
    if (!(logits[i] < INFINITY)) {
      Fail(Code::kInvalid, "{} after position {}: token {} has {}", whose, position, i, logits[i]);
    }
  }
  if (std::isinf(most)) {
    Fail(Code::kInvalid, "{} after position {}: no token is possible", whose, position);
  }
  return static_cast<size_t>(std::find(logits.begin(), logits.end(), most) - logits.begin());
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
  const auto exponentials = BestKernels().rows.exp_below;
  double p[kPiece], q[kPiece];
  double sum_p = 0, sum_q = 0, sum_difference = 0;
  for (size_t begin = 0; begin < dense.size(); begin += kPiece) {
    const size_t n = std::min(kPiece, dense.size() - begin);
    exponentials(&dense[begin], n, dense[top_p], p);
    if (!same_row) exponentials(&other[begin], n, other[top_q], q);
    const double* const of_other = same_row ? p : q;
    for (size_t i = 0; i < n; ++i) {
      sum_p += p[i];
      sum_q += of_other[i];
      const double a = dense[begin + i] - max_p, b = other[begin + i] - max_q;
      sum_difference += p[i] > 0 ? p[i] * (a - b) : 0;
    }
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
