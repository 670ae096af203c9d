#include "format/model_tensors.h"

#include <algorithm>
#include <string_view>

#include "format/quote.h"

namespace kvasir {

namespace {

// The part after "blk.N.", or the whole name.
std::string_view InLayer(std::string_view name) {
  if (!name.starts_with("blk.")) return name;
  const size_t dot = name.find('.', 4);
  return dot == name.npos ? name : name.substr(dot + 1);
}

// Tensors whose presence changes what a model of these families computes.
void CheckForm(const TensorShapes& tensors, const ModelConfig& config, const std::string& where,
               Problems& problems) {
  constexpr std::string_view kRefused[] = {
      "rope_factors_long.weight",
      "rope_factors_short.weight",
      "output.bias",
      "output_norm.bias",
      "attn_norm.bias",
      "attn_q_norm.weight",
      "attn_k_norm.weight",
      "attn_qkv.weight",
      "ffn_norm.bias",
      "ffn_gate_inp.weight",
  };
  for (const auto& [name, shape] : tensors) {
    const std::string_view part = InLayer(name);
    if (config.qk_norm && (part == "attn_q_norm.weight" || part == "attn_k_norm.weight")) continue;
    if (std::find(std::begin(kRefused), std::end(kRefused), part) != std::end(kRefused)) {
      problems.Add(Code::kUnsupported,
                   "{}: the tensor {} belongs to a form of the model that is not known; models "
                   "without it are",
                   where, Quoted(name));
    }
  }
}

class Checker {
 public:
  Checker(const TensorShapes& tensors, const std::string& where, Problems& problems)
      : tensors_(tensors), where_(where), problems_(problems) {}

  void Vector(const std::string& name, uint64_t n, Presence presence = Presence::kRequired) {
    Check(name, {n}, presence);
  }
  void Matrix(const std::string& name, uint64_t cols, uint64_t rows) {
    Check(name, {cols, rows}, Presence::kRequired);
  }

 private:
  void Check(const std::string& name, const std::vector<uint64_t>& shape, Presence presence) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      if (presence != Presence::kRequired) return;
      problems_.Add(Code::kCorrupt, "{}: the tensor {} is missing; its shape would be {}", where_,
                    name, fmt::join(shape, " x "));
    } else if (presence == Presence::kForbidden) {
      problems_.Add(Code::kCorrupt,
                    "{}: the tensor {} contradicts the configuration, which has none", where_,
                    name);
    } else if (found->second != shape) {
      problems_.Add(Code::kCorrupt, "{}: the tensor {} has the shape {}; {} is expected", where_,
                    name, fmt::join(found->second, " x "), fmt::join(shape, " x "));
    }
  }

  const TensorShapes& tensors_;
  const std::string& where_;
  Problems& problems_;
};

void CheckLayer(const ModelConfig& config, uint32_t layer, Checker& check) {
  const uint64_t hidden = config.hidden, intermediate = config.intermediate;
  const uint64_t q_rows = uint64_t{config.n_heads} * config.head_dim;
  const uint64_t kv_rows = uint64_t{config.n_kv_heads} * config.head_dim;
  const std::string block = fmt::format("blk.{}.", layer);
  check.Vector(block + "attn_norm.weight", hidden);
  check.Matrix(block + "attn_q.weight", hidden, q_rows);
  check.Matrix(block + "attn_k.weight", hidden, kv_rows);
  check.Matrix(block + "attn_v.weight", hidden, kv_rows);
  check.Matrix(block + "attn_output.weight", q_rows, hidden);
  check.Vector(block + "attn_q.bias", q_rows, config.qkv_bias);
  check.Vector(block + "attn_k.bias", kv_rows, config.qkv_bias);
  check.Vector(block + "attn_v.bias", kv_rows, config.qkv_bias);
  check.Vector(block + "attn_output.bias", hidden, config.output_bias);
  if (config.qk_norm) {
    check.Vector(block + "attn_q_norm.weight", config.head_dim);
    check.Vector(block + "attn_k_norm.weight", config.head_dim);
  }
  check.Vector(block + "ffn_norm.weight", hidden);
  check.Matrix(block + "ffn_gate.weight", hidden, intermediate);
  check.Matrix(block + "ffn_up.weight", hidden, intermediate);
  check.Matrix(block + "ffn_down.weight", intermediate, hidden);
  check.Vector(block + "ffn_gate.bias", intermediate, config.mlp_bias);
  check.Vector(block + "ffn_up.bias", intermediate, config.mlp_bias);
  check.Vector(block + "ffn_down.bias", hidden, config.mlp_bias);
}

}  // namespace

void CheckModelTensors(const ModelConfig& config, const TensorShapes& tensors,
                       const std::string& where, Problems& problems) {
  CheckForm(tensors, config, where, problems);
  Checker check(tensors, where, problems);
  check.Matrix("token_embd.weight", config.hidden, config.vocab_size);
  if (!config.tied_embeddings) check.Matrix("output.weight", config.hidden, config.vocab_size);
  check.Vector("output_norm.weight", config.hidden);
  check.Vector("rope_freqs.weight", config.head_dim / 2, Presence::kOptional);
  for (uint32_t layer = 0; layer < config.n_layers && !problems.full(); ++layer) {
    CheckLayer(config, layer, check);
  }
}

}  // namespace kvasir
