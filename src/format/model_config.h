// Hyperparameters of a model, read from GGUF key-values or from a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>

#include "format/metadata.h"

namespace kvasir {

// All checked: non-zero, consistent with each other, and small enough that products of any three
// fit into 64 bits.
struct ModelConfig {
  std::string architecture;  // "llama" or "qwen2"
  uint32_t n_layers = 0;
  uint32_t hidden = 0;        // width of the residual stream
  uint32_t n_heads = 0;       // query heads
  uint32_t n_kv_heads = 0;    // divides n_heads
  uint32_t head_dim = 0;      // of q, k and v alike; even
  uint32_t intermediate = 0;  // width inside the MLP
  uint32_t vocab_size = 0;
  uint32_t context_length = 0;
  float norm_eps = 0;  // of RMSNorm
  float rope_theta = 10000;
  bool rope_interleaved = false;  // rotate pairs (2i, 2i+1) (GGUF's permuted llama) or (i, i + d/2)
  bool tied_embeddings = false;   // no "output.weight": the embedding serves
};

inline constexpr uint64_t kMaxDimension = uint64_t{1} << 21;  // of every number above

// `value` as a dimension: kCorrupt, naming `what`, unless it is in [1, kMaxDimension].
uint32_t ToDimension(uint64_t value, const std::string& what);
// A number that f32 holds, in (0, limit): kCorrupt, naming `what`, otherwise.
float ToPositive(double value, double limit, const std::string& what);

// hidden / n_heads where nothing states the size of heads. Errors: kCorrupt unless it divides.
uint32_t ImpliedHeadDim(uint32_t hidden, uint32_t n_heads, const std::string& where);

// The relations between the numbers. Errors: kCorrupt.
void CheckConfig(const ModelConfig& config, const std::string& where);

// From the keys of architectures "llama" and "qwen2". `embedding_rows` is the vocabulary where the
// keys do not state it; 0: there is no embedding. tied_embeddings is left to the caller.
// Errors: kCorrupt, kUnsupported (architecture, scaled RoPE, experts, split files, sliding windows:
// by name).
ModelConfig ConfigFromGguf(const Metadata& metadata, uint64_t embedding_rows,
                           const std::string& where);

}  // namespace kvasir
