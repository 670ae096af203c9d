// config.json of a Hugging Face folder, and the names its tensors have.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "format/model_config.h"

namespace kvasir {

// From config.json of a Llama, Mistral, Qwen2 or Qwen3 ...ForCausalLM, written by old or new
// versions of the library (rope_theta and rope_scaling, or rope_parameters). Fields that are absent
// have that library's defaults where it has usable ones.
// Errors: kCorrupt; kUnsupported, by name, for what computes something else (other activations,
// other scalings of RoPE, quantized weights).
ModelConfig ParseHfConfig(std::string_view text, const std::string& where);

// "weight_map" of model.safetensors.index.json: tensor to file, each a plain name inside the
// folder.
// Errors: kCorrupt.
std::map<std::string, std::string> ParseShardIndex(std::string_view text, const std::string& where);

// GGUF's name of a tensor ("model.layers.3.self_attn.q_proj.weight" is "blk.3.attn_q.weight");
// names that have none stay as they are.
std::string GgufTensorName(std::string_view hf_name);

}  // namespace kvasir
