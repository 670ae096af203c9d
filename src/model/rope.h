// Angles of rotary position embeddings (RoPE, arXiv 2104.09864), once per pass for all layers.
//
// An angle is float32(position) * float32(inverse frequency), and the inverse frequencies are
// rounded where the transformers library rounds them, so that positions far out turn by the same
// angles as there [contract: rope.angles]. Cosine and sine are those of the rounded angle,
// correctly rounded but for the last bit of a double.
//
// Scalings: linear divides every frequency (arXiv 2306.15595); llama3 divides those whose wave is
// long against the original context, and blends in between (the Llama 3.1 release); YaRN blends
// by turns within the original context and enlarges cosines and sines (arXiv 2309.00071,
// equations 13 to 15).
#pragma once

#include <cstdint>
#include <vector>

#include "format/model_config.h"

namespace kvasir {

class Rope {
 public:
  Rope(uint32_t head_dim, const RopeConfig& config);

  uint32_t n_angles() const { return static_cast<uint32_t>(inverse_frequencies_.size()); }
  // Cosines and sines of the head_dim / 2 angles at `position`, times YaRN's attention factor.
  void Fill(uint32_t position, float* cos, float* sin) const;

  const std::vector<float>& inverse_frequencies() const { return inverse_frequencies_; }

 private:
  std::vector<float> inverse_frequencies_;
  float attention_factor_;
};

}  // namespace kvasir
