#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace kvasir {

namespace {

// The most likely first; on a tie the lower id, so that a choice depends on nothing but the logits.
constexpr auto kLikelier = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};

}  // namespace

uint64_t RandomSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

Sampler::Sampler(const SamplingParams& params, std::span<const int32_t> prompt) : params_(params) {
  if (!params_.seed) params_.seed = RandomSeed();
  rng_.seed(*params_.seed);
  if (params_.repeat_penalty != 1.0f) {
    for (const int32_t id : prompt) ++prompt_seen_[id];
  }
}

TokenLogprob LogprobOf(std::span<const float> logits, int32_t id, uint32_t n_top) {
  float top = logits[0];
  for (const float logit : logits) top = std::max(top, logit);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  const double log_sum = top + std::log(sum);
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(logits[static_cast<size_t>(token)] - log_sum);
  };
  TokenLogprob result{id, logprob(id), {}};
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto middle = ids.begin() + std::min<std::ptrdiff_t>(n_top, std::ssize(ids));
  std::partial_sort(ids.begin(), middle, ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (auto it = ids.begin(); it != middle; ++it) result.top.emplace_back(*it, logprob(*it));
  return result;
}

void Sampler::Penalize() {
  const auto penalize = [this](int32_t id, uint32_t generated) {
    float& logit = candidates_[static_cast<size_t>(id)].logit;
    logit = logit > 0 ? logit / params_.repeat_penalty : logit * params_.repeat_penalty;
    if (generated > 0) {
      logit -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(generated);
    }
  };
  for (const auto& [id, count] : generated_) penalize(id, count);
  for (const auto& [id, count] : prompt_seen_) {
    if (!generated_.contains(id)) penalize(id, 0);
  }
}

void Sampler::KeepTop(size_t k) {
  if (k == 0 || k >= candidates_.size()) {
    std::sort(candidates_.begin(), candidates_.end(), kLikelier);
    return;
  }
  // A heap of the k best, its worst on top: one comparison for almost every candidate.
  const auto middle = candidates_.begin() + static_cast<std::ptrdiff_t>(k);
  std::partial_sort(candidates_.begin(), middle, candidates_.end(), kLikelier);
  candidates_.resize(k);
}

int32_t Sampler::Draw() {
  const float top = candidates_.front().logit;
  std::vector<double>& weights = weights_;
  weights.clear();
  double total = 0;
  for (const Candidate& c : candidates_) {
    weights.push_back(std::exp(static_cast<double>(c.logit) - top));
    total += weights.back();
  }
  // Nucleus: the fewest candidates whose probabilities reach top_p.
  size_t kept = weights.size();
  if (params_.top_p < 1.0f) {
    double sum = 0;
    for (kept = 0; kept < weights.size();) {
      sum += weights[kept++];
      if (sum >= params_.top_p * total) break;
    }
  }
  // min-p is relative to the most likely candidate, whose weight is 1.
  while (kept > 1 && weights[kept - 1] < params_.min_p) --kept;
  double mass = 0;
  for (size_t i = 0; i < kept; ++i) mass += weights[i];
  double left = static_cast<double>(rng_() >> 11) * 0x1.0p-53 * mass;
  for (size_t i = 0; i + 1 < kept; ++i) {
    left -= weights[i];
    if (left < 0) return candidates_[i].id;
  }
  return candidates_[kept - 1].id;
}

int32_t Sampler::Sample(std::span<const float> logits) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) Fail(Code::kInvalid, "logit of token {} is not a number", i);
    candidates_[i] = {logits[i], static_cast<int32_t>(i)};
  }
  for (const auto& [id, bias] : params_.logit_bias) {
    if (static_cast<size_t>(id) < candidates_.size())
      candidates_[static_cast<size_t>(id)].logit += bias;
  }
  if (params_.repeat_penalty != 1.0f || params_.presence_penalty != 0.0f ||
      params_.frequency_penalty != 0.0f) {
    Penalize();
  }
  int32_t id;
  if (params_.temperature <= 0.0f) {
    // kLikelier puts the best first, so the best is the smallest.
    id = std::min_element(candidates_.begin(), candidates_.end(), kLikelier)->id;
  } else {
    for (Candidate& c : candidates_) c.logit /= params_.temperature;
    KeepTop(params_.top_k);
    id = Draw();
  }
  ++generated_[id];
  return id;
}

}  // namespace kvasir
