// Writers of small files for tests: GGUF, safetensors, and whole tiny models in both.
//
// They write whatever they are told, right or wrong: nothing is checked here.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/temp_folder.h"
#include "format/gguf_types.h"
#include "format/model_config.h"
#include "tensor/dtype.h"

namespace kvasir::test {

using Bytes = std::vector<uint8_t>;

// Copies after growing: GCC 12 sees an overflow in vector::insert where there is none.
inline void AppendRaw(Bytes& out, const void* from, size_t n) {
  const size_t at = out.size();
  out.resize(at + n);
  if (n > 0) std::memcpy(out.data() + at, from, n);
}
template <typename T>
void Append(Bytes& out, T value) {
  AppendRaw(out, &value, sizeof(T));
}
inline void AppendBytes(Bytes& out, std::string_view text) {
  AppendRaw(out, text.data(), text.size());
}
inline void AppendBytes(Bytes& out, const Bytes& bytes) {
  AppendRaw(out, bytes.data(), bytes.size());
}
inline void AppendString(Bytes& out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  AppendBytes(out, text);
}

class GgufBuilder {
 public:
  struct Tensor {
    std::string name;
    uint32_t type = 0;
    std::vector<uint64_t> shape;  // innermost first
    Bytes data;
    int64_t offset = -1;  // inside the data section; negative: behind the tensor before
  };
  uint32_t version = 3;
  uint32_t alignment = 32;  // of the data; the key general.alignment is the caller's
  std::vector<Tensor> tensors;
  int64_t n_tensors = -1, n_key_values = -1;  // what the header claims; negative: the truth

  // A key with a value of any type: `raw` are the bytes behind the type number.
  void Raw(std::string_view key, uint32_t type, const Bytes& raw) {
    AppendString(key_values_, key);
    Append(key_values_, type);
    AppendBytes(key_values_, raw);
    ++count_;
  }
  template <typename T>
  void Number(std::string_view key, GgufType type, T value) {
    Bytes raw;
    Append(raw, value);
    Raw(key, static_cast<uint32_t>(type), raw);
  }
  void Uint(std::string_view key, uint32_t value) { Number(key, GgufType::kU32, value); }
  void Float(std::string_view key, float value) { Number(key, GgufType::kF32, value); }
  void String(std::string_view key, std::string_view value) {
    Bytes raw;
    AppendString(raw, value);
    Raw(key, static_cast<uint32_t>(GgufType::kString), raw);
  }
  void Strings(std::string_view key, std::span<const std::string> values) {
    Bytes raw;
    Append(raw, GgufType::kString);
    Append<uint64_t>(raw, values.size());
    for (const std::string& value : values) AppendString(raw, value);
    Raw(key, static_cast<uint32_t>(GgufType::kArray), raw);
  }

  Bytes Build() const {
    Bytes out;
    AppendBytes(out, "GGUF");
    Append(out, version);
    Append<uint64_t>(out, n_tensors < 0 ? tensors.size() : n_tensors);
    Append<uint64_t>(out, n_key_values < 0 ? count_ : n_key_values);
    AppendBytes(out, key_values_);
    Bytes data;
    for (const Tensor& tensor : tensors) {
      AppendString(out, tensor.name);
      Append<uint32_t>(out, tensor.shape.size());
      for (const uint64_t dim : tensor.shape) Append(out, dim);
      Append(out, tensor.type);
      data.resize((data.size() + alignment - 1) / alignment * alignment);
      Append<uint64_t>(out, tensor.offset < 0 ? data.size() : tensor.offset);
      AppendBytes(data, tensor.data);
    }
    if (!data.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment);
    AppendBytes(out, data);
    return out;
  }

 private:
  Bytes key_values_;
  uint64_t count_ = 0;
};

// A tensor of a model by GGUF's name; shape innermost first.
struct Shape {
  std::string name;
  std::vector<uint64_t> dims;
  uint64_t elements() const {
    uint64_t n = 1;
    for (const uint64_t dim : dims) n *= dim;
    return n;
  }
};

inline std::vector<Shape> ShapesOf(const ModelConfig& c) {
  const uint64_t q = uint64_t{c.n_heads} * c.head_dim, kv = uint64_t{c.n_kv_heads} * c.head_dim;
  std::vector<Shape> shapes = {{"token_embd.weight", {c.hidden, c.vocab_size}},
                               {"output_norm.weight", {c.hidden}}};
  if (!c.tied_embeddings) shapes.push_back({"output.weight", {c.hidden, c.vocab_size}});
  for (uint32_t layer = 0; layer < c.n_layers; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    const auto add = [&](const char* name, std::vector<uint64_t> dims) {
      shapes.push_back({block + name, std::move(dims)});
    };
    add("attn_norm.weight", {c.hidden});
    add("attn_q.weight", {c.hidden, q});
    add("attn_k.weight", {c.hidden, kv});
    add("attn_v.weight", {c.hidden, kv});
    add("attn_output.weight", {q, c.hidden});
    if (c.architecture == "qwen2") {
      add("attn_q.bias", {q});
      add("attn_k.bias", {kv});
      add("attn_v.bias", {kv});
    }
    if (c.architecture == "qwen3") {
      add("attn_q_norm.weight", {c.head_dim});
      add("attn_k_norm.weight", {c.head_dim});
    }
    add("ffn_norm.weight", {c.hidden});
    add("ffn_gate.weight", {c.hidden, c.intermediate});
    add("ffn_up.weight", {c.hidden, c.intermediate});
    add("ffn_down.weight", {c.intermediate, c.hidden});
  }
  return shapes;
}

inline ModelConfig TinyConfig(std::string architecture = "llama") {
  ModelConfig c;
  c.rope.interleaved = architecture == "llama";
  c.architecture = std::move(architecture);
  c.n_layers = 2;
  c.hidden = 8;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 4;
  c.intermediate = 12;
  c.vocab_size = 10;
  c.context_length = 64;
  c.norm_eps = 1e-5f;
  c.tied_embeddings = true;
  return c;
}

// Random values of a tensor, the same for the same seed and name: around 1 for norms, else small.
inline std::vector<float> RandomValues(const Shape& shape, uint32_t seed) {
  std::mt19937 rng(seed + static_cast<uint32_t>(std::hash<std::string>{}(shape.name)));
  std::vector<float> values(shape.elements());
  const bool norm = shape.name.find("norm") != shape.name.npos;
  for (float& value : values) {
    const float uniform = static_cast<float>(rng() >> 8) / static_cast<float>(1 << 24) - 0.5f;
    value = norm ? 1.0f + 0.2f * uniform : 0.5f * uniform;
  }
  return values;
}

inline Bytes ToBytes(std::span<const float> values) {
  Bytes bytes;
  AppendRaw(bytes, values.data(), values.size_bytes());
  return bytes;
}

// The keys and F32 tensors of a model with random weights.
inline GgufBuilder RandomGguf(const ModelConfig& c, uint32_t seed) {
  GgufBuilder file;
  const std::string prefix = c.architecture + ".";
  file.String("general.architecture", c.architecture);
  file.Uint(prefix + "block_count", c.n_layers);
  file.Uint(prefix + "embedding_length", c.hidden);
  file.Uint(prefix + "feed_forward_length", c.intermediate);
  file.Uint(prefix + "attention.head_count", c.n_heads);
  file.Uint(prefix + "attention.head_count_kv", c.n_kv_heads);
  file.Uint(prefix + "attention.key_length", c.head_dim);
  file.Uint(prefix + "attention.value_length", c.head_dim);
  file.Uint(prefix + "context_length", c.context_length);
  file.Float(prefix + "rope.freq_base", c.rope.theta);
  file.Float(prefix + "attention.layer_norm_rms_epsilon", c.norm_eps);
  for (const Shape& shape : ShapesOf(c)) {
    file.tensors.push_back({.name = shape.name,
                            .type = Info(DType::kF32).gguf_id,
                            .shape = shape.dims,
                            .data = ToBytes(RandomValues(shape, seed))});
  }
  return file;
}

// A safetensors file: 8 bytes of length, the header as given, the data.
inline Bytes SafetensorsFile(std::string_view header, const Bytes& data) {
  Bytes out;
  AppendString(out, header);
  AppendBytes(out, data);
  return out;
}

// The error that `load` throws: its code and message; fails the test when there is none.
struct Refusal {
  Code code = Code::kUsage;
  std::string message;
};
template <typename F>
Refusal RefusalOf(F&& load) {
  try {
    load();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {Code::kUsage, "(no error was thrown)"};
}

}  // namespace kvasir::test
