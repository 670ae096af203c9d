#include "format/model_config.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

uint32_t ToDimension(uint64_t value, const std::string& what) {
  if (value < 1 || value > kMaxDimension) {
    Fail(Code::kCorrupt, "{} is {}; 1 to {} is expected", what, value, kMaxDimension);
  }
  return static_cast<uint32_t>(value);
}

float ToPositive(double value, double limit, const std::string& what) {
  // Written so that NaN fails too.
  if (!(value > 0 && value < limit) || !(static_cast<float>(value) > 0)) {
    Fail(Code::kCorrupt, "{} is {}; a number above 0 and below {} is expected", what, value, limit);
  }
  return static_cast<float>(value);
}

uint32_t ImpliedHeadDim(uint32_t hidden, uint32_t n_heads, const std::string& where) {
  if (hidden % n_heads != 0) {
    Fail(Code::kCorrupt, "{}: a width of {} is no multiple of {} heads and no head size is stated",
         where, hidden, n_heads);
  }
  return hidden / n_heads;
}

void CheckConfig(const ModelConfig& config, const std::string& where) {
  if (config.n_heads % config.n_kv_heads != 0) {
    Fail(Code::kCorrupt, "{}: {} query heads are no multiple of {} KV heads", where, config.n_heads,
         config.n_kv_heads);
  }
  if (config.head_dim % 2 != 0) {
    Fail(Code::kCorrupt, "{}: heads of size {}; RoPE needs an even size", where, config.head_dim);
  }
  const RopeConfig& rope = config.rope;
  const auto positive = [&](double value, std::string_view what) {
    ToPositive(value, 1e30, fmt::format("{}: RoPE scaling: {}", where, what));
  };
  positive(rope.factor, "the factor");
  positive(rope.attention_factor, "the attention factor");
  if (rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kYarn) {
    positive(rope.original_context, "the original context");
  }
  if (rope.scaling == RopeScaling::kLlama3) {
    positive(rope.low_frequency, "the low frequency's factor");
    positive(rope.high_frequency, "the high frequency's factor");
    if (rope.low_frequency >= rope.high_frequency) {
      Fail(Code::kCorrupt, "{}: RoPE scaling: a low frequency's factor of {} is not below {}",
           where, rope.low_frequency, rope.high_frequency);
    }
  }
  if (rope.scaling == RopeScaling::kYarn) {
    positive(rope.beta_fast, "beta_fast");
    positive(rope.beta_slow, "beta_slow");
    if (rope.theta == 1) Fail(Code::kCorrupt, "{}: YaRN needs a theta other than 1", where);
  }
}

std::string_view Name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kLlama3:
      return "llama3";
    case RopeScaling::kYarn:
      return "yarn";
  }
  return "none";
}

double YarnAttentionFactor(double factor, double multiplier) {
  return factor <= 1 ? 1 : 0.1 * multiplier * std::log(factor) + 1;
}

namespace {

// The keys of one architecture: "llama.block_count" is Dimension("block_count").
class ArchitectureKeys {
 public:
  ArchitectureKeys(const Metadata& metadata, const std::string& where)
      : metadata_(metadata),
        where_(where),
        prefix_(metadata.String("general.architecture") + ".") {}

  std::string Key(std::string_view name) const { return prefix_ + std::string(name); }

  bool Has(std::string_view name) const { return metadata_.Has(Key(name)); }
  uint64_t Uint(std::string_view name) const {
    const MetadataValue* value = metadata_.Find(Key(name));
    if (value != nullptr && std::holds_alternative<MetadataArray>(*value)) {
      Unsupported(name, "a value for each layer", "one for all");
    }
    return metadata_.Uint(Key(name));
  }
  uint64_t Uint(std::string_view name, uint64_t otherwise) const {
    return metadata_.Has(Key(name)) ? Uint(name) : otherwise;
  }
  uint32_t Dimension(std::string_view name) const {
    return ToDimension(Uint(name), fmt::format("{}: {}", where_, Key(name)));
  }
  uint32_t Dimension(std::string_view name, uint32_t otherwise) const {
    return metadata_.Has(Key(name)) ? Dimension(name) : otherwise;
  }
  double Float(std::string_view name, double otherwise) const {
    return metadata_.Float(Key(name), otherwise);
  }
  std::string String(std::string_view name, std::string_view otherwise) const {
    return metadata_.String(Key(name), otherwise);
  }
  [[noreturn]] void Unsupported(std::string_view name, std::string_view found,
                                std::string_view known) const {
    Fail(Code::kUnsupported, "{}: {} is {}; only {} is known", where_, Key(name), found, known);
  }

 private:
  const Metadata& metadata_;
  const std::string& where_;
  std::string prefix_;
};

void CheckArchitecture(const Metadata& metadata, const std::string& where) {
  const std::string& architecture = metadata.String("general.architecture");
  constexpr std::string_view kKnown[] = {"llama", "qwen2", "qwen3"};
  if (std::find(std::begin(kKnown), std::end(kKnown), architecture) == std::end(kKnown)) {
    Fail(Code::kUnsupported, "{}: architecture {}; {} are known", where, Quoted(architecture),
         fmt::join(kKnown, ", "));
  }
}

RopeConfig ReadRope(const ArchitectureKeys& keys, uint32_t context_length,
                    const std::string& where) {
  RopeConfig rope;
  rope.theta = ToPositive(keys.Float("rope.freq_base", 10000), 1e30,
                          where + ": " + keys.Key("rope.freq_base"));
  rope.factor = keys.Float("rope.scaling.factor", keys.Float("rope.scale_linear", 1));
  if (rope.factor == 0) rope.factor = 1;  // some writers' word for none
  // Writers that state a factor without a type mean linear scaling.
  const std::string type = keys.String("rope.scaling.type", rope.factor == 1 ? "none" : "linear");
  if (type == "none") {
    rope.factor = 1;
  } else if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.original_context =
        static_cast<double>(keys.Uint("rope.scaling.original_context_length", context_length));
    rope.beta_fast = keys.Float("rope.scaling.yarn_beta_fast", rope.beta_fast);
    rope.beta_slow = keys.Float("rope.scaling.yarn_beta_slow", rope.beta_slow);
    rope.attention_factor = YarnAttentionFactor(rope.factor) *
                            keys.Float("rope.scaling.yarn_attn_factor", 1) *
                            keys.Float("rope.scaling.attn_factor", 1);
    const double mix = keys.Float("rope.scaling.yarn_ext_factor", 1);
    if (mix != 1) keys.Unsupported("rope.scaling.yarn_ext_factor", fmt::format("{}", mix), "1");
  } else {
    keys.Unsupported("rope.scaling.type", Quoted(type), "none, linear or yarn");
  }
  return rope;
}

// What would silently give wrong numbers if it were passed over.
void CheckKnownForm(const ArchitectureKeys& keys, const ModelConfig& config) {
  const uint64_t rotated = keys.Uint("rope.dimension_count", config.head_dim);
  if (rotated != config.head_dim) {
    keys.Unsupported("rope.dimension_count", fmt::format("{}", rotated),
                     fmt::format("the head size {}", config.head_dim));
  }
  const uint64_t value_dim = keys.Uint("attention.value_length", config.head_dim);
  if (value_dim != config.head_dim) {
    keys.Unsupported("attention.value_length", fmt::format("{}", value_dim),
                     fmt::format("the key length {}", config.head_dim));
  }
  const uint64_t experts = keys.Uint("expert_count", 0);
  if (experts > 0) keys.Unsupported("expert_count", fmt::format("{}", experts), "0");
  if (keys.Has("attention.sliding_window_pattern")) {
    keys.Unsupported("attention.sliding_window_pattern", "there", "one window for all layers");
  }
}

uint32_t VocabSize(const Metadata& metadata, const ArchitectureKeys& keys, uint64_t embedding_rows,
                   const std::string& where) {
  const auto* tokens = metadata.Strings("tokenizer.ggml.tokens");
  const uint64_t n_tokens = tokens == nullptr ? 0 : tokens->size();
  const uint64_t fallback = embedding_rows > 0 ? embedding_rows : n_tokens;
  const uint32_t vocab_size =
      ToDimension(keys.Uint("vocab_size", fallback), where + ": the size of the vocabulary");
  if (n_tokens > vocab_size) {
    Fail(Code::kCorrupt, "{}: {} tokens in tokenizer.ggml.tokens, more than the {} of the model",
         where, n_tokens, vocab_size);
  }
  return vocab_size;
}

}  // namespace

ModelConfig ConfigFromGguf(const Metadata& metadata, uint64_t embedding_rows,
                           const std::string& where) {
  CheckArchitecture(metadata, where);
  const ArchitectureKeys keys(metadata, where);
  ModelConfig config;
  config.architecture = metadata.String("general.architecture");
  config.n_layers = keys.Dimension("block_count");
  config.hidden = keys.Dimension("embedding_length");
  config.intermediate = keys.Dimension("feed_forward_length");
  config.context_length = keys.Dimension("context_length");
  config.n_heads = keys.Dimension("attention.head_count");
  config.n_kv_heads = keys.Dimension("attention.head_count_kv", config.n_heads);
  config.head_dim = metadata.Has(keys.Key("attention.key_length"))
                        ? keys.Dimension("attention.key_length")
                        : ImpliedHeadDim(config.hidden, config.n_heads, where);
  config.vocab_size = VocabSize(metadata, keys, embedding_rows, where);
  config.norm_eps = ToPositive(metadata.Float(keys.Key("attention.layer_norm_rms_epsilon")), 1,
                               where + ": " + keys.Key("attention.layer_norm_rms_epsilon"));
  config.rope = ReadRope(keys, config.context_length, where);
  config.rope.interleaved = config.architecture == "llama";
  config.qk_norm = config.architecture == "qwen3";
  if (config.architecture == "qwen2") config.qkv_bias = Presence::kRequired;
  if (keys.Uint("attention.sliding_window", 0) > 0) {
    config.sliding_window = keys.Dimension("attention.sliding_window");
  }
  CheckKnownForm(keys, config);
  CheckConfig(config, where);
  return config;
}

}  // namespace kvasir
