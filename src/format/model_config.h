// Hyperparameters of a model, read from GGUF key-values or from a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "format/metadata.h"

namespace kvasir {

// How RoPE's frequencies are stretched for contexts longer than the model was first trained on.
enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };
std::string_view Name(RopeScaling scaling);

// Numbers of a scaling that does not use them are left at their defaults.
struct RopeConfig {
  float theta = 10000;
  bool interleaved = false;  // rotate pairs (2i, 2i+1) (GGUF's permuted llama) or (i, i + d/2)
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;                             // all scalings
  double original_context = 0;                   // llama3, yarn
  double low_frequency = 1, high_frequency = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;          // yarn: turns within the original context
  bool truncate = true;                          // yarn: the ramp begins and ends at whole channels
  double attention_factor = 1;                   // yarn: of cosines and sines
  std::vector<float> divisors;  // of each frequency (GGUF's rope_freqs.weight); empty: none
};

// Whether a file has tensors that a family may do without.
enum class Presence : uint8_t { kOptional, kRequired, kForbidden };

// All checked: non-zero, consistent with each other, and small enough that products of any three
// fit into 64 bits.
struct ModelConfig {
  std::string architecture;  // "llama", "mistral", "qwen2" or "qwen3"
  uint32_t n_layers = 0;
  uint32_t hidden = 0;        // width of the residual stream
  uint32_t n_heads = 0;       // query heads
  uint32_t n_kv_heads = 0;    // divides n_heads
  uint32_t head_dim = 0;      // of q, k and v alike; even
  uint32_t intermediate = 0;  // width inside the MLP
  uint32_t vocab_size = 0;
  uint32_t context_length = 0;
  float norm_eps = 0;  // of RMSNorm
  RopeConfig rope;
  bool tied_embeddings = false;  // no "output.weight": the embedding serves
  bool qk_norm = false;          // RMSNorm of every head of q and k, before RoPE
  Presence qkv_bias = Presence::kOptional;
  Presence output_bias = Presence::kOptional;  // of attention
  Presence mlp_bias = Presence::kOptional;
  // Layers whose tokens see only the last `sliding_window` positions, their own included: those
  // from first_sliding_layer on, or those marked in sliding_layers if it is not empty.
  uint32_t sliding_window = 0;  // 0: none
  uint32_t first_sliding_layer = 0;
  std::vector<bool> sliding_layers;

  // 0: the layer sees everything.
  uint32_t Window(uint32_t layer) const {
    const bool slides =
        sliding_layers.empty() ? layer >= first_sliding_layer : sliding_layers[layer];
    return slides ? sliding_window : 0;
  }
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

// YaRN's own factor for the context it was stretched by (arXiv 2309.00071, equation 15).
double YarnAttentionFactor(double factor, double multiplier = 1);

// From the keys of architectures "llama" (Mistral's files too), "qwen2" and "qwen3".
// `embedding_rows` is the vocabulary where the keys do not state it; 0: there is no embedding.
// tied_embeddings and rope.divisors are left to the caller.
// Errors: kCorrupt, kUnsupported (architecture, other scalings of RoPE, experts, windows in a
// pattern: by name).
ModelConfig ConfigFromGguf(const Metadata& metadata, uint64_t embedding_rows,
                           const std::string& where);

}  // namespace kvasir
