#include "model/gguf_export.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "model/rope.h"

namespace kvasir {

namespace {

// Mistral's layers are Llama's; GGUF has one name for both.
std::string_view GgufArchitecture(const ModelConfig& config) {
  return config.architecture == "mistral" ? "llama" : std::string_view(config.architecture);
}

class KeyWriter {
 public:
  explicit KeyWriter(const ModelConfig& config)
      : keys_("GGUF keys"), prefix_(std::string(GgufArchitecture(config)) + ".") {}

  void General(std::string key, std::string text) {
    keys_.Set("general." + std::move(key), std::move(text), GgufType::kString);
  }
  void Uint(std::string_view key, uint64_t value) {
    keys_.Set(prefix_ + std::string(key), value, GgufType::kU32);
  }
  void Float(std::string_view key, double value) {
    keys_.Set(prefix_ + std::string(key), value, GgufType::kF32);
  }
  void Text(std::string_view key, std::string text) {
    keys_.Set(prefix_ + std::string(key), std::move(text), GgufType::kString);
  }
  Metadata Take() { return std::move(keys_); }

 private:
  Metadata keys_;
  std::string prefix_;
};

void PutRope(const RopeConfig& rope, KeyWriter* keys) {
  keys->Float("rope.freq_base", rope.theta);
  if (rope.scaling == RopeScaling::kLinear) {
    keys->Text("rope.scaling.type", "linear");
    keys->Float("rope.scaling.factor", rope.factor);
  }
  if (rope.scaling != RopeScaling::kYarn) return;  // Llama 3's is a tensor
  if (!rope.truncate) {
    Fail(Code::kUnsupported,
         "rope_scaling: truncate is false, which GGUF cannot say; true is expected");
  }
  keys->Text("rope.scaling.type", "yarn");
  keys->Float("rope.scaling.factor", rope.factor);
  keys->Uint("rope.scaling.original_context_length", static_cast<uint64_t>(rope.original_context));
  keys->Float("rope.scaling.yarn_beta_fast", rope.beta_fast);
  keys->Float("rope.scaling.yarn_beta_slow", rope.beta_slow);
  const double usual = YarnAttentionFactor(rope.factor);
  if (rope.attention_factor != usual) {
    keys->Float("rope.scaling.attn_factor", rope.attention_factor / usual);
  }
}

void PutWindow(const ModelConfig& config, KeyWriter* keys) {
  uint32_t sliding = 0;
  for (uint32_t layer = 0; layer < config.n_layers; ++layer) sliding += config.Window(layer) > 0;
  if (sliding == 0) return;
  if (sliding < config.n_layers) {
    Fail(Code::kUnsupported,
         "{} of {} layers have a sliding window, which GGUF cannot say for {}; all or none are "
         "expected",
         sliding, config.n_layers, config.architecture);
  }
  keys->Uint("attention.sliding_window", config.sliding_window);
}

// Heads whose rows change their order; 0: none do.
uint32_t PairingHeads(const ModelConfig& config, std::string_view name) {
  if (GgufArchitecture(config) != "llama") return 0;
  if (name.ends_with(".attn_q.weight") || name.ends_with(".attn_q.bias")) return config.n_heads;
  if (name.ends_with(".attn_k.weight") || name.ends_with(".attn_k.bias")) return config.n_kv_heads;
  return 0;
}

bool HasGgufName(std::string_view name) {
  return name.starts_with("blk.") || name == "token_embd.weight" || name == "output.weight" ||
         name == "output_norm.weight";
}

// What RoPE's frequencies are divided by.
std::vector<float> Llama3Divisors(const ModelConfig& config) {
  RopeConfig plain = config.rope;
  plain.scaling = RopeScaling::kNone;
  const Rope unscaled(config.head_dim, plain), scaled(config.head_dim, config.rope);
  std::vector<float> divisors = unscaled.inverse_frequencies();
  for (size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled.inverse_frequencies()[i];
  return divisors;
}

}  // namespace

Metadata GgufKeys(const ModelConfig& config, const std::string& name) {
  KeyWriter keys(config);
  keys.General("architecture", std::string(GgufArchitecture(config)));
  keys.General("name", name);
  keys.Uint("block_count", config.n_layers);
  keys.Uint("context_length", config.context_length);
  keys.Uint("embedding_length", config.hidden);
  keys.Uint("feed_forward_length", config.intermediate);
  keys.Uint("attention.head_count", config.n_heads);
  keys.Uint("attention.head_count_kv", config.n_kv_heads);
  keys.Uint("attention.key_length", config.head_dim);
  keys.Uint("attention.value_length", config.head_dim);
  keys.Float("attention.layer_norm_rms_epsilon", double{config.norm_eps});
  keys.Uint("rope.dimension_count", config.head_dim);
  keys.Uint("vocab_size", config.vocab_size);
  PutRope(config.rope, &keys);
  PutWindow(config, &keys);
  return keys.Take();
}

std::vector<SourceTensor> GgufTensors(const ModelFile& folder, std::vector<float>* divisors) {
  const ModelConfig& config = folder.config();
  std::vector<SourceTensor> tensors;
  if (config.rope.scaling == RopeScaling::kLlama3) {
    *divisors = Llama3Divisors(config);
    tensors.push_back({.name = "rope_freqs.weight",
                       .shape = {divisors->size()},
                       .data = reinterpret_cast<const uint8_t*>(divisors->data())});
  }
  for (const TensorEntry& entry : folder.tensors()) {
    if (!HasGgufName(entry.name)) continue;  // kept by some writers, computed with by none
    tensors.push_back({.name = entry.name,
                       .shape = entry.shape,
                       .dtype = entry.view.dtype,
                       .data = entry.view.data,
                       .pairing_heads = PairingHeads(config, entry.name)});
  }
  return tensors;
}

}  // namespace kvasir
