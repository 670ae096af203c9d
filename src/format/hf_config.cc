#include "format/hf_config.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "format/json.h"
#include "format/quote.h"

namespace kvasir {

namespace {

using nlohmann::json;

// An object of config.json; null counts as absent, as in the library that writes them.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) Fail(Code::kCorrupt, "{} is no JSON object", where_);
  }

  const json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::string Name(const char* key) const { return fmt::format("{}: {}", where_, key); }

  uint32_t Dimension(const char* key) const {
    const json* value = Find(key);
    if (value == nullptr) Fail(Code::kCorrupt, "{} is missing", Name(key));
    if (!value->is_number_unsigned()) Fail(Code::kCorrupt, "{} is no whole number", Name(key));
    return ToDimension(value->get<uint64_t>(), Name(key));
  }
  uint32_t Dimension(const char* key, uint32_t otherwise) const {
    return Find(key) == nullptr ? otherwise : Dimension(key);
  }
  double Number(const char* key, double otherwise) const {
    const json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) Fail(Code::kCorrupt, "{} is no number", Name(key));
    return value->get<double>();
  }
  bool Bool(const char* key, bool otherwise) const {
    const json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) Fail(Code::kCorrupt, "{} is neither true nor false", Name(key));
    return value->get<bool>();
  }
  std::string String(const char* key, const char* otherwise) const {
    const json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) Fail(Code::kCorrupt, "{} is no string", Name(key));
    return value->get<std::string>();
  }
  // Refuses any value but `known`.
  void Expect(const char* key, const std::string& known) const {
    const std::string value = String(key, known.c_str());
    if (value != known) {
      Fail(Code::kUnsupported, "{} is {}; only {} is known", Name(key), Quoted(value), known);
    }
  }
  void ExpectFalse(const char* key) const {
    if (Bool(key, false)) Fail(Code::kUnsupported, "{} is true; only false is known", Name(key));
  }

 private:
  const json& object_;
  std::string where_;
};

// The architecture by both of its names; one suffices, two must agree.
std::string Architecture(const Fields& fields) {
  static constexpr std::pair<const char*, const char*> kKnown[] = {{"llama", "LlamaForCausalLM"},
                                                                   {"qwen2", "Qwen2ForCausalLM"}};
  std::string class_name;
  if (const json* classes = fields.Find("architectures")) {
    if (!classes->is_array() || classes->size() != 1 || !classes->front().is_string()) {
      Fail(Code::kCorrupt, "{} is no list of one string", fields.Name("architectures"));
    }
    class_name = classes->front().get<std::string>();
  }
  const std::string type = fields.String("model_type", "");
  for (const auto& [known_type, known_class] : kKnown) {
    const bool matches =
        (type.empty() || type == known_type) && (class_name.empty() || class_name == known_class);
    if (matches && !(type.empty() && class_name.empty())) return known_type;
  }
  Fail(Code::kUnsupported,
       "{} is {} with model_type {}; LlamaForCausalLM (llama) and Qwen2ForCausalLM (qwen2) are "
       "known",
       fields.Name("architectures"), Quoted(class_name), Quoted(type));
}

// "rope_parameters" (new) or "rope_theta" beside "rope_scaling" (old).
float RopeTheta(const Fields& fields) {
  double theta = fields.Number("rope_theta", 10000);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* object = fields.Find(key);
    if (object == nullptr) continue;
    const Fields rope(*object, fields.Name(key));
    for (const char* type : {"rope_type", "type"}) rope.Expect(type, "default");
    theta = rope.Number("rope_theta", theta);
    if (rope.Number("partial_rotary_factor", 1) != 1) {
      Fail(Code::kUnsupported, "{}: only 1 is known", rope.Name("partial_rotary_factor"));
    }
  }
  if (fields.Number("partial_rotary_factor", 1) != 1) {
    Fail(Code::kUnsupported, "{}: only 1 is known", fields.Name("partial_rotary_factor"));
  }
  return ToPositive(theta, 1e30, fields.Name("rope_theta"));
}

void CheckKnownForm(const Fields& fields) {
  fields.Expect("hidden_act", "silu");
  fields.ExpectFalse("use_sliding_window");
  fields.ExpectFalse("mlp_bias");
  if (fields.Find("quantization_config") != nullptr) {
    Fail(Code::kUnsupported, "{}: weights in F32, F16 or BF16 are known",
         fields.Name("quantization_config"));
  }
  if (const json* types = fields.Find("layer_types")) {
    for (const json& type : *types) {
      if (type != "full_attention") {
        Fail(Code::kUnsupported, "{}: only full_attention is known", fields.Name("layer_types"));
      }
    }
  }
}

}  // namespace

ModelConfig ParseHfConfig(std::string_view text, const std::string& where) {
  const json root = ParseJson(text, where);
  const Fields fields(root, where);
  ModelConfig config;
  config.architecture = Architecture(fields);
  CheckKnownForm(fields);
  const bool llama = config.architecture == "llama";
  config.n_layers = fields.Dimension("num_hidden_layers");
  config.hidden = fields.Dimension("hidden_size");
  config.intermediate = fields.Dimension("intermediate_size");
  config.n_heads = fields.Dimension("num_attention_heads");
  config.n_kv_heads = fields.Dimension("num_key_value_heads", config.n_heads);
  config.head_dim = fields.Find("head_dim") != nullptr
                        ? fields.Dimension("head_dim")
                        : ImpliedHeadDim(config.hidden, config.n_heads, where);
  config.vocab_size = fields.Dimension("vocab_size");
  config.context_length = fields.Dimension("max_position_embeddings", llama ? 2048 : 32768);
  config.norm_eps = ToPositive(fields.Number("rms_norm_eps", 1e-6), 1, fields.Name("rms_norm_eps"));
  config.rope_theta = RopeTheta(fields);
  config.tied_embeddings = fields.Bool("tie_word_embeddings", false);
  CheckConfig(config, where);
  return config;
}

std::map<std::string, std::string> ParseShardIndex(std::string_view text,
                                                   const std::string& where) {
  const json root = ParseJson(text, where);
  const Fields fields(root, where);
  const json* map = fields.Find("weight_map");
  if (map == nullptr || !map->is_object()) {
    Fail(Code::kCorrupt, "{} is missing or no object", fields.Name("weight_map"));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) Fail(Code::kCorrupt, "{}: {} has no file", where, Quoted(tensor));
    const auto& name = file.get_ref<const std::string&>();
    // A plain name cannot lead out of the folder.
    if (!name.ends_with(".safetensors") ||
        name.find_first_of(std::string_view("/\\\0", 3)) != name.npos) {
      Fail(Code::kCorrupt,
           "{}: {} is in {}; the name of a .safetensors file in the same folder is expected", where,
           Quoted(tensor), Quoted(name));
    }
    files[tensor] = name;
  }
  return files;
}

std::string GgufTensorName(std::string_view hf_name) {
  constexpr std::pair<std::string_view, std::string_view> kWhole[] = {
      {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
  constexpr std::pair<std::string_view, std::string_view> kPerLayer[] = {
      {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  constexpr std::string_view kLayers = "model.layers.";

  const size_t dot = hf_name.rfind('.');
  const std::string_view kind = dot == hf_name.npos ? "" : hf_name.substr(dot);
  if (kind != ".weight" && kind != ".bias") return std::string(hf_name);
  const std::string_view stem = hf_name.substr(0, dot);
  for (const auto& [theirs, ours] : kWhole) {
    if (stem == theirs) return fmt::format("{}{}", ours, kind);
  }
  if (!stem.starts_with(kLayers)) return std::string(hf_name);
  const std::string_view rest = stem.substr(kLayers.size());
  const size_t digits = rest.find_first_not_of("0123456789");
  if (digits == 0 || digits == rest.npos || rest[digits] != '.') return std::string(hf_name);
  for (const auto& [theirs, ours] : kPerLayer) {
    if (rest.substr(digits + 1) == theirs) {
      return fmt::format("blk.{}.{}{}", rest.substr(0, digits), ours, kind);
    }
  }
  return std::string(hf_name);
}

}  // namespace kvasir
