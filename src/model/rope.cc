#include "model/rope.h"

#include <cmath>

namespace kvasir {

Rope::Rope(uint32_t head_dim, float theta) {
  for (uint32_t i = 0; 2 * i + 1 < head_dim; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency = static_cast<float>(std::pow(double{theta}, double{exponent}));
    inverse_frequencies_.push_back(1.0f / frequency);
  }
}

void Rope::Fill(uint32_t position, float* cos, float* sin) const {
  for (size_t i = 0; i < inverse_frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * inverse_frequencies_[i];
    cos[i] = static_cast<float>(std::cos(double{angle}));
    sin[i] = static_cast<float>(std::sin(double{angle}));
  }
}

}  // namespace kvasir
