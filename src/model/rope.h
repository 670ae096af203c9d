// Angles of rotary position embeddings (RoPE, arXiv 2104.09864), once per pass for all layers.
//
// An angle is float32(position) * float32(inverse frequency), and the inverse frequencies are
// rounded where the transformers library rounds them, so that positions far out turn by the same
// angles as there [contract: rope.angles]. Cosine and sine are those of the rounded angle,
// correctly rounded but for the last bit of a double.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/view.h"

namespace kvasir {

class Rope {
 public:
  Rope(uint32_t head_dim, float theta);

  uint32_t n_angles() const { return static_cast<uint32_t>(inverse_frequencies_.size()); }
  // Cosines and sines of the head_dim / 2 angles at `position`.
  void Fill(uint32_t position, float* cos, float* sin) const;

 private:
  std::vector<float> inverse_frequencies_;
};

}  // namespace kvasir
