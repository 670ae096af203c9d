#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace kvasir {

namespace {

constexpr double kTurn = 2 * std::numbers::pi;

// Waves of up to original / high_frequency positions stay, those from original / low_frequency on
// are stretched by the factor, the ones between by a blend.
void ScaleLlama3(const RopeConfig& config, std::vector<float>& inverse) {
  const auto factor = static_cast<float>(config.factor);
  const double longest_kept = config.original_context / config.high_frequency;
  const double shortest_stretched = config.original_context / config.low_frequency;
  for (float& f : inverse) {
    const float wave = static_cast<float>(kTurn) / f;
    if (double{wave} < longest_kept) continue;
    if (double{wave} > shortest_stretched) {
      f /= factor;
      continue;
    }
    const float smooth = (static_cast<float>(config.original_context) / wave -
                          static_cast<float>(config.low_frequency)) /
                         static_cast<float>(config.high_frequency - config.low_frequency);
    f = (1 - smooth) * f / factor + smooth * f;
  }
}

// The channel pair that makes `turns` turns within the original context.
double PairOfTurns(const RopeConfig& config, double turns, double dim) {
  return dim * std::log(config.original_context / (turns * kTurn)) /
         (2 * std::log(double{config.theta}));
}

// Pairs below `low` stay, those above `high` are stretched, a linear ramp lies between.
void ScaleYarn(const RopeConfig& config, double dim, std::vector<float>& inverse) {
  double low = PairOfTurns(config, config.beta_fast, dim);
  double high = PairOfTurns(config, config.beta_slow, dim);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;  // a step
  const auto factor = static_cast<float>(config.factor);
  for (size_t i = 0; i < inverse.size(); ++i) {
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1 - std::clamp(ramp, 0.0f, 1.0f);
    const float stretched = inverse[i] / factor;
    inverse[i] = stretched * (1 - kept) + inverse[i] * kept;
  }
}

}  // namespace

Rope::Rope(uint32_t head_dim, const RopeConfig& config)
    : attention_factor_(static_cast<float>(config.attention_factor)) {
  for (uint32_t i = 0; 2 * i + 1 < head_dim; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency = static_cast<float>(std::pow(double{config.theta}, double{exponent}));
    inverse_frequencies_.push_back(1.0f / frequency);
  }
  switch (config.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (float& f : inverse_frequencies_) f /= static_cast<float>(config.factor);
      break;
    case RopeScaling::kLlama3:
      ScaleLlama3(config, inverse_frequencies_);
      break;
    case RopeScaling::kYarn:
      ScaleYarn(config, head_dim, inverse_frequencies_);
      break;
  }
  for (size_t i = 0; i < config.divisors.size(); ++i) {
    inverse_frequencies_[i] /= config.divisors[i];
  }
}

void Rope::Fill(uint32_t position, float* cos, float* sin) const {
  for (size_t i = 0; i < inverse_frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * inverse_frequencies_[i];
    cos[i] = static_cast<float>(std::cos(double{angle})) * attention_factor_;
    sin[i] = static_cast<float>(std::sin(double{angle})) * attention_factor_;
  }
}

}  // namespace kvasir
