// The weights of a model as the forward pass reads them: matrices packed for the kernels, vectors
// as f32.
//
// Memory   Packed matrices and vectors are owned. The embedding stays in the mapped file and is
// read row by
//          row; a tied output matrix is packed from it like any other.
// Threads  Immutable after loading.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/workers.h"
#include "format/model_file.h"
#include "kernels/matmul.h"

namespace kvasir {

// y = W x (+ bias).
struct Linear {
  PackedMatrix w;
  std::vector<float> bias;  // empty: none
};

struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;
  std::vector<float> q_norm, k_norm;  // of one head; empty: none
  Linear q, k, v, attn_output, gate, up, down;
};

struct Weights {
  TensorView embedding;  // in the file
  std::vector<LayerWeights> layers;
  std::vector<float> output_norm;
  Linear output;

  // Packs every tensor of `file` and lets go of its mapped pages layer by layer, so that loading
  // needs little more memory than the result. `progress` gets the fraction of bytes done.
  static Weights Load(const ModelFile& file, Workers& workers,
                      const std::function<void(double)>& progress);
  uint64_t bytes() const;
};

}  // namespace kvasir
