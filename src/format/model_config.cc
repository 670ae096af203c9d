#include "format/model_config.h"

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
  if (architecture != "llama" && architecture != "qwen2") {
    Fail(Code::kUnsupported, "{}: architecture {}; llama and qwen2 are known", where,
         Quoted(architecture));
  }
  const uint64_t splits = metadata.Uint("split.count", 1);
  if (splits > 1) {
    Fail(Code::kUnsupported, "{}: one of {} split files; merge them into one file first", where,
         splits);
  }
}

// What would silently give wrong numbers if it were passed over.
void CheckKnownForm(const ArchitectureKeys& keys, const ModelConfig& config) {
  const std::string scaling = keys.String("rope.scaling.type", "");
  if (!scaling.empty() && scaling != "none")
    keys.Unsupported("rope.scaling.type", Quoted(scaling), "none");
  // Writers that state a factor without a type mean linear scaling; 0 stands for none.
  for (const std::string_view name : {"rope.scaling.factor", "rope.scale_linear"}) {
    const double factor = keys.Float(name, 1);
    if (scaling.empty() && factor != 1 && factor != 0) {
      keys.Unsupported(name, fmt::format("{}", factor), "1");
    }
  }
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
  const uint64_t window = keys.Uint("attention.sliding_window", 0);
  if (window > 0 && window < config.context_length) {
    keys.Unsupported("attention.sliding_window", fmt::format("{}", window), "none");
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
  config.rope_theta = ToPositive(keys.Float("rope.freq_base", 10000), 1e30,
                                 where + ": " + keys.Key("rope.freq_base"));
  config.rope_interleaved = config.architecture == "llama";
  CheckKnownForm(keys, config);
  CheckConfig(config, where);
  return config;
}

}  // namespace kvasir
