#include "format/hf_config.h"

#include <algorithm>
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
  bool Has(const char* key) const { return object_.contains(key); }
  std::string Name(const char* key) const { return fmt::format("{}: {}", where_, key); }

  uint32_t Dimension(const char* key) const { return ToDimension(Whole(key), Name(key)); }
  uint32_t Dimension(const char* key, uint32_t otherwise) const {
    return Find(key) == nullptr ? otherwise : Dimension(key);
  }
  // A number that may be 0.
  uint32_t Count(const char* key, uint32_t otherwise) const {
    if (Find(key) == nullptr) return otherwise;
    return Whole(key) == 0 ? 0 : Dimension(key);
  }
  double Number(const char* key) const {
    const json* value = Find(key);
    if (value == nullptr) Fail(Code::kCorrupt, "{} is missing", Name(key));
    if (!value->is_number()) Fail(Code::kCorrupt, "{} is no number", Name(key));
    return value->get<double>();
  }
  double Number(const char* key, double otherwise) const {
    return Find(key) == nullptr ? otherwise : Number(key);
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
  uint64_t Whole(const char* key) const {
    const json* value = Find(key);
    if (value == nullptr) Fail(Code::kCorrupt, "{} is missing", Name(key));
    if (!value->is_number_unsigned()) Fail(Code::kCorrupt, "{} is no whole number", Name(key));
    return value->get<uint64_t>();
  }

  const json& object_;
  std::string where_;
};

// What the library's configuration classes differ in. Defaults are those for absent fields.
struct Family {
  const char* type;  // "model_type"
  const char* class_name;
  uint32_t n_kv_heads;  // 0: as many as query heads
  uint32_t head_dim;    // 0: the share of a head in the width
  uint32_t context_length;
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", 0, 0, 2048},
    {"mistral", "MistralForCausalLM", 8, 0, 131072},
    {"qwen2", "Qwen2ForCausalLM", 32, 0, 32768},
    {"qwen3", "Qwen3ForCausalLM", 32, 128, 32768},
};

// The family by both of its names; one suffices, two must agree.
const Family& FamilyOf(const Fields& fields) {
  std::string class_name;
  if (const json* classes = fields.Find("architectures")) {
    if (!classes->is_array() || classes->size() != 1 || !classes->front().is_string()) {
      Fail(Code::kCorrupt, "{} is no list of one string", fields.Name("architectures"));
    }
    class_name = classes->front().get<std::string>();
  }
  const std::string type = fields.String("model_type", "");
  std::string known;
  for (const Family& family : kFamilies) {
    const bool matches = (type.empty() || type == family.type) &&
                         (class_name.empty() || class_name == family.class_name);
    if (matches && !(type.empty() && class_name.empty())) return family;
    known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", family.class_name, family.type);
  }
  Fail(Code::kUnsupported, "{} is {} with model_type {}; known are {}",
       fields.Name("architectures"), Quoted(class_name), Quoted(type), known);
}

void ReadLlama3(const Fields& fields, RopeConfig& rope) {
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = fields.Number("factor");
  rope.low_frequency = fields.Number("low_freq_factor");
  rope.high_frequency = fields.Number("high_freq_factor");
}

void ReadYarn(const Fields& fields, uint32_t context_length, RopeConfig& rope) {
  rope.scaling = RopeScaling::kYarn;
  rope.factor = fields.Number("factor", context_length / rope.original_context);
  // The library takes 0 for absent.
  const auto nonzero = [&](const char* key, double otherwise) {
    const double value = fields.Number(key, otherwise);
    return value == 0 ? otherwise : value;
  };
  rope.beta_fast = nonzero("beta_fast", 32);
  rope.beta_slow = nonzero("beta_slow", 1);
  rope.truncate = fields.Bool("truncate", true);
  const double part = fields.Number("mscale", 0), whole = fields.Number("mscale_all_dim", 0);
  const double implied = part != 0 && whole != 0 ? YarnAttentionFactor(rope.factor, part) /
                                                       YarnAttentionFactor(rope.factor, whole)
                                                 : YarnAttentionFactor(rope.factor);
  rope.attention_factor = fields.Number("attention_factor", implied);
}

void ExpectWholeHeads(const Fields& fields) {
  if (fields.Number("partial_rotary_factor", 1) != 1) {
    Fail(Code::kUnsupported, "{}: only 1 is known", fields.Name("partial_rotary_factor"));
  }
}

// "rope_scaling" beside "rope_theta" (old), else "rope_parameters" (new).
RopeConfig ReadRope(const Fields& top, uint32_t context_length) {
  RopeConfig rope;
  ExpectWholeHeads(top);
  double theta = top.Number("rope_theta", 10000);
  const json* old = top.Find("rope_scaling");
  const char* key = old != nullptr && !old->empty() ? "rope_scaling" : "rope_parameters";
  if (const json* object = top.Find(key)) {
    const Fields fields(*object, top.Name(key));
    for (const auto& [name, value] : object->items()) {
      if (!value.is_object()) continue;
      Fail(Code::kUnsupported, "{} is an object; parameters that hold for all layers are known",
           fields.Name(name.c_str()));
    }
    ExpectWholeHeads(fields);
    theta = fields.Number("rope_theta", theta);
    rope.original_context =
        top.Number("original_max_position_embeddings",
                   fields.Number("original_max_position_embeddings", context_length));
    const char* type_key = fields.Find("rope_type") != nullptr ? "rope_type" : "type";
    const std::string type = fields.String(type_key, "default");
    if (type == "linear") {
      rope.scaling = RopeScaling::kLinear;
      rope.factor = fields.Number("factor");
    } else if (type == "llama3") {
      ReadLlama3(fields, rope);
    } else if (type == "yarn") {
      ReadYarn(fields, context_length, rope);
    } else if (type != "default") {
      Fail(Code::kUnsupported, "{} is {}; default, linear, llama3 and yarn are known",
           fields.Name(type_key), Quoted(type));
    }
  }
  rope.theta = ToPositive(theta, 1e30, top.Name("rope_theta"));
  return rope;
}

// "layer_types": which layers slide; empty when absent.
std::vector<bool> LayerTypes(const Fields& fields, uint32_t n_layers) {
  std::vector<bool> slides;
  const json* types = fields.Find("layer_types");
  if (types == nullptr) return slides;
  if (!types->is_array() || types->size() != n_layers) {
    Fail(Code::kCorrupt, "{} is no list of {} strings", fields.Name("layer_types"), n_layers);
  }
  for (const json& type : *types) {
    if (type != "full_attention" && type != "sliding_attention") {
      Fail(Code::kUnsupported, "{}: only full_attention and sliding_attention are known",
           fields.Name("layer_types"));
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

void ReadWindow(const Fields& fields, ModelConfig& config) {
  const bool mistral = config.architecture == "mistral";
  const bool llama = config.architecture == "llama";
  if (llama) fields.ExpectFalse("use_sliding_window");
  // null means none, absent the library's default.
  if (mistral || (!llama && fields.Bool("use_sliding_window", false))) {
    config.sliding_window = !fields.Has("sliding_window") ? 4096
                            : fields.Find("sliding_window") == nullptr
                                ? 0
                                : fields.Dimension("sliding_window");
  }
  if (!llama && !mistral) config.first_sliding_layer = fields.Count("max_window_layers", 28);
  config.sliding_layers = LayerTypes(fields, config.n_layers);
  const auto& slides = config.sliding_layers;
  const bool some = std::find(slides.begin(), slides.end(), true) != slides.end();
  const bool all = std::find(slides.begin(), slides.end(), false) == slides.end();
  if (some && config.sliding_window == 0) {
    Fail(Code::kCorrupt, "{}: sliding_attention without a sliding_window",
         fields.Name("layer_types"));
  }
  if (mistral && config.sliding_window > 0 && !all) {
    Fail(Code::kUnsupported,
         "{}: a Mistral that slides in some layers only; in all or none is known",
         fields.Name("layer_types"));
  }
}

void ReadBiases(const Fields& fields, ModelConfig& config) {
  const auto presence = [&](const char* key) {
    return fields.Bool(key, false) ? Presence::kRequired : Presence::kForbidden;
  };
  const bool llama = config.architecture == "llama";
  config.qkv_bias = config.output_bias =
      llama || config.architecture == "qwen3" ? presence("attention_bias") : Presence::kForbidden;
  if (config.architecture == "qwen2") config.qkv_bias = Presence::kRequired;
  config.mlp_bias = llama ? presence("mlp_bias") : Presence::kForbidden;
}

void CheckKnownForm(const Fields& fields) {
  fields.Expect("hidden_act", "silu");
  if (fields.Find("quantization_config") != nullptr) {
    Fail(Code::kUnsupported, "{}: weights in F32, F16 or BF16 are known",
         fields.Name("quantization_config"));
  }
}

}  // namespace

ModelConfig ParseHfConfig(std::string_view text, const std::string& where) {
  const json root = ParseJson(text, where);
  const Fields fields(root, where);
  ModelConfig config;
  const Family& family = FamilyOf(fields);
  config.architecture = family.type;
  CheckKnownForm(fields);
  config.n_layers = fields.Dimension("num_hidden_layers");
  config.hidden = fields.Dimension("hidden_size");
  config.intermediate = fields.Dimension("intermediate_size");
  config.n_heads = fields.Dimension("num_attention_heads");
  // null means as many as query heads in all of them.
  const bool stated = fields.Has("num_key_value_heads") || family.n_kv_heads == 0;
  config.n_kv_heads =
      fields.Dimension("num_key_value_heads", stated ? config.n_heads : family.n_kv_heads);
  config.head_dim = fields.Find("head_dim") != nullptr ? fields.Dimension("head_dim")
                    : family.head_dim > 0 && !fields.Has("head_dim")
                        ? family.head_dim
                        : ImpliedHeadDim(config.hidden, config.n_heads, where);
  config.vocab_size = fields.Dimension("vocab_size");
  config.context_length = fields.Dimension("max_position_embeddings", family.context_length);
  config.norm_eps = ToPositive(fields.Number("rms_norm_eps", 1e-6), 1, fields.Name("rms_norm_eps"));
  config.rope = ReadRope(fields, config.context_length);
  config.tied_embeddings = fields.Bool("tie_word_embeddings", false);
  config.qk_norm = config.architecture == "qwen3";
  ReadWindow(fields, config);
  ReadBiases(fields, config);
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
