#include "bench/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <utility>

#include "base/error.h"
#include "bench/random.h"
#include "format/dequantize.h"
#include "format/gguf_writer.h"
#include "format/quote.h"
#include "text/utf8.h"

namespace kvasir::bench {

namespace {

// Every weight type, with llama.cpp's number for a file that is mostly of it (llama.h,
// llama_ftype).
struct TypeOfFile {
  DType type;
  uint64_t number;
};
constexpr TypeOfFile kTypes[] = {
    {DType::kF32, 0},   {DType::kF16, 1},     {DType::kBF16, 32},   {DType::kQ4_0, 2},
    {DType::kQ4_1, 3},  {DType::kQ5_0, 8},    {DType::kQ5_1, 9},    {DType::kQ8_0, 7},
    {DType::kQ2_K, 10}, {DType::kQ3_K, 12},   {DType::kQ4_K, 15},   {DType::kQ5_K, 17},
    {DType::kQ6_K, 18}, {DType::kIQ4_NL, 25}, {DType::kIQ4_XS, 30},
};
static_assert(std::size(kTypes) == kDTypes);

// Where the f16 scale of a block lies, and that of its minimum (-1: it has none), which is `center`
// scales so that values have a mean near 0. Layouts are ggml's (ggml-common.h).
struct BlockScales {
  DType type;
  int scale, minimum;
  float center;
};
constexpr BlockScales kScales[] = {
    {DType::kQ4_0, 0, -1, 0},     {DType::kQ4_1, 0, 2, -7.5f}, {DType::kQ5_0, 0, -1, 0},
    {DType::kQ5_1, 0, 2, -15.5f}, {DType::kQ8_0, 0, -1, 0},    {DType::kQ2_K, 80, 82, 1.5f},
    {DType::kQ3_K, 108, -1, 0},   {DType::kQ4_K, 0, 2, 7.5f},  {DType::kQ5_K, 0, 2, 15.5f},
    {DType::kQ6_K, 208, -1, 0},   {DType::kIQ4_NL, 0, -1, 0},  {DType::kIQ4_XS, 0, -1, 0},
};

const BlockScales* ScalesOf(DType type) {
  for (const BlockScales& scales : kScales) {
    if (scales.type == type) return &scales;
  }
  return nullptr;
}

uint64_t FileType(DType type) {
  return std::find_if(std::begin(kTypes), std::end(kTypes),
                      [type](const TypeOfFile& entry) { return entry.type == type; })
      ->number;
}

std::vector<uint8_t> RandomFloats(DType type, double deviation, size_t n, Random& random) {
  std::vector<uint8_t> bytes(n * Info(type).bytes);
  for (size_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(deviation * random.Normal());
    const uint16_t half = type == DType::kF16 ? F32ToF16(value) : F32ToBF16(value);
    if (type == DType::kF32) {
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    } else {
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

void SetScales(std::span<uint8_t> blocks, const DTypeInfo& info, const BlockScales& scales,
               float scale) {
  const uint16_t d = F32ToF16(scale), m = F32ToF16(scale * scales.center);
  for (size_t at = 0; at < blocks.size(); at += info.bytes) {
    std::memcpy(blocks.data() + at + scales.scale, &d, 2);
    if (scales.minimum >= 0) std::memcpy(blocks.data() + at + scales.minimum, &m, 2);
  }
}

double RootMeanSquare(const std::vector<uint8_t>& blocks, DType type) {
  const size_t n = blocks.size() / Info(type).bytes * Info(type).block;
  std::vector<float> values(n);
  DequantizeRow(type, blocks.data(), values.data(), n);
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  return std::sqrt(squares / static_cast<double>(n));
}

// The alphabet in which byte-level vocabularies write bytes (GPT-2's bytes_to_unicode): printable
// ones stand for themselves, the others for the code points from 256 on.
std::vector<std::string> ByteTokens() {
  std::vector<std::string> tokens;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const uint32_t code = printable ? byte : next++;
    std::string token;
    AppendUtf8(code, &token);
    tokens.push_back(token);
  }
  return tokens;
}

void SetTokenizer(const Shape& shape, Metadata* metadata) {
  constexpr int64_t kNormal = 1, kControl = 3;
  std::vector<std::string> tokens = ByteTokens(), merges;
  const size_t n_pieces = shape.vocab_size - 2;
  for (char a = 'a'; a <= 'z' && tokens.size() < n_pieces; ++a) {
    for (char b = 'a'; b <= 'z' && tokens.size() < n_pieces; ++b) {
      tokens.push_back({a, b});
      merges.push_back({a, ' ', b});
    }
  }
  while (tokens.size() < n_pieces) tokens.push_back(fmt::format("filler{}", tokens.size()));
  std::vector<int64_t> types(n_pieces, kNormal);
  for (const char* control : {"<|begin|>", "<|end|>"}) {
    tokens.emplace_back(control);
    types.push_back(kControl);
  }
  metadata->Set("tokenizer.ggml.model", std::string("gpt2"));
  metadata->Set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata->Set("tokenizer.ggml.tokens", MetadataArray{std::move(tokens)}, GgufType::kString);
  metadata->Set("tokenizer.ggml.token_type", MetadataArray{std::move(types)}, GgufType::kI32);
  metadata->Set("tokenizer.ggml.merges", MetadataArray{std::move(merges)}, GgufType::kString);
  metadata->Set("tokenizer.ggml.bos_token_id", uint64_t{shape.vocab_size - 2}, GgufType::kU32);
  metadata->Set("tokenizer.ggml.eos_token_id", uint64_t{shape.vocab_size - 1}, GgufType::kU32);
  metadata->Set("tokenizer.ggml.add_bos_token", false);
}

Metadata MetadataOf(const Shape& shape, DType type) {
  Metadata metadata("random weights");
  const auto number = [&](std::string_view key, uint64_t value) {
    metadata.Set(fmt::format("{}.{}", shape.architecture, key), value, GgufType::kU32);
  };
  const auto real = [&](std::string_view key, double value) {
    metadata.Set(fmt::format("{}.{}", shape.architecture, key), value, GgufType::kF32);
  };
  metadata.Set("general.architecture", std::string(shape.architecture));
  metadata.Set("general.name", fmt::format("{} with random weights", shape.name));
  metadata.Set("general.file_type", FileType(type), GgufType::kU32);
  metadata.Set("general.quantization_version", uint64_t{2}, GgufType::kU32);
  number("block_count", shape.n_layers);
  number("context_length", shape.context);
  number("embedding_length", shape.hidden);
  number("feed_forward_length", shape.intermediate);
  number("attention.head_count", shape.n_heads);
  number("attention.head_count_kv", shape.n_kv_heads);
  number("attention.key_length", shape.head_dim);
  number("attention.value_length", shape.head_dim);
  number("rope.dimension_count", shape.head_dim);
  number("vocab_size", shape.vocab_size);
  real("rope.freq_base", shape.rope_theta);
  real("attention.layer_norm_rms_epsilon", shape.norm_eps);
  SetTokenizer(shape, &metadata);
  return metadata;
}

std::vector<GgufTensorPlan> TensorsOf(const Shape& shape, DType type) {
  std::vector<GgufTensorPlan> tensors;
  const auto matrix = [&](const std::string& name, uint64_t cols, uint64_t rows) {
    tensors.push_back({name + ".weight", {cols, rows}, TypeForRows(type, cols)});
  };
  const auto vector = [&](const std::string& name, uint64_t n) {
    tensors.push_back({name, {n}, DType::kF32});
  };
  const uint64_t q = uint64_t{shape.n_heads} * shape.head_dim;
  const uint64_t kv = uint64_t{shape.n_kv_heads} * shape.head_dim;
  matrix("token_embd", shape.hidden, shape.vocab_size);
  for (uint32_t layer = 0; layer < shape.n_layers; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    vector(block + "attn_norm.weight", shape.hidden);
    const std::pair<const char*, uint64_t> inputs[] = {
        {"attn_q", q}, {"attn_k", kv}, {"attn_v", kv}};
    for (const auto& [name, rows] : inputs) {
      matrix(block + name, shape.hidden, rows);
      if (shape.architecture == "qwen2") vector(block + name + ".bias", rows);
    }
    if (shape.architecture == "qwen3") {
      vector(block + "attn_q_norm.weight", shape.head_dim);
      vector(block + "attn_k_norm.weight", shape.head_dim);
    }
    matrix(block + "attn_output", q, shape.hidden);
    vector(block + "ffn_norm.weight", shape.hidden);
    matrix(block + "ffn_gate", shape.hidden, shape.intermediate);
    matrix(block + "ffn_up", shape.hidden, shape.intermediate);
    matrix(block + "ffn_down", shape.intermediate, shape.hidden);
  }
  vector("output_norm.weight", shape.hidden);
  if (!shape.tied) matrix("output", shape.hidden, shape.vocab_size);
  return tensors;
}

std::vector<uint8_t> RandomVector(const GgufTensorPlan& tensor, Random& random) {
  const float center = tensor.name.ends_with(".bias") ? 0.0f : 1.0f;
  std::vector<uint8_t> bytes(tensor.bytes());
  for (size_t at = 0; at < bytes.size(); at += 4) {
    const float value = center + 0.1f * static_cast<float>(random.Normal());
    std::memcpy(bytes.data() + at, &value, 4);
  }
  return bytes;
}

// Rows of a matrix: stretches of one pool of blocks, each from a random place on.
class RowPool {
 public:
  RowPool(DType type, uint64_t cols, uint64_t seed)
      : block_bytes_(Info(type).bytes),
        row_bytes_(cols / Info(type).block * block_bytes_),
        pool_(RandomBlocks(type, 1 / std::sqrt(static_cast<double>(cols)),
                           kPlaces + cols / Info(type).block, seed)) {}

  std::span<const uint8_t> Row(Random& random) const {
    return std::span(pool_).subspan(random.Below(kPlaces) * block_bytes_, row_bytes_);
  }

 private:
  static constexpr size_t kPlaces = 4096;
  size_t block_bytes_, row_bytes_;
  std::vector<uint8_t> pool_;
};

}  // namespace

DType ParseWeightType(std::string_view name) {
  std::vector<std::string_view> names;
  for (const auto& [type, number] : kTypes) {
    const std::string_view known = Info(type).name;
    const bool equal =
        std::equal(name.begin(), name.end(), known.begin(), known.end(),
                   [](char a, char b) { return std::toupper(static_cast<unsigned char>(a)) == b; });
    if (equal) return type;
    names.push_back(known);
  }
  Fail(Code::kUsage, "--type: unknown weight type {}; known are {}", Quoted(name),
       fmt::join(names, ", "));
}

DType TypeForRows(DType wanted, uint64_t cols) {
  if (cols % Info(wanted).block == 0) return wanted;
  DType other = DType::kQ8_0;  // of Q6_K
  if (wanted == DType::kQ2_K || wanted == DType::kQ3_K) other = DType::kQ4_0;
  if (wanted == DType::kIQ4_XS) other = DType::kIQ4_NL;
  if (wanted == DType::kQ4_K) other = DType::kQ5_0;
  if (wanted == DType::kQ5_K) other = DType::kQ5_1;
  return cols % Info(other).block == 0 ? other : DType::kF16;
}

std::vector<uint8_t> RandomBlocks(DType type, double deviation, size_t n_blocks, uint64_t seed) {
  Random random(seed, /*stream=*/9);
  const BlockScales* scales = ScalesOf(type);
  if (scales == nullptr) return RandomFloats(type, deviation, n_blocks, random);
  std::vector<uint8_t> blocks(n_blocks * Info(type).bytes);
  for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random.Next() >> 56);
  SetScales(blocks, Info(type), *scales, 1);
  const double scale = deviation / RootMeanSquare(blocks, type);
  SetScales(blocks, Info(type), *scales, static_cast<float>(scale));
  return blocks;
}

void WriteRandomModel(const std::string& path, const Shape& shape, DType type, uint64_t seed) {
  const std::vector<GgufTensorPlan> tensors = TensorsOf(shape, type);
  GgufWriter writer(path, MetadataOf(shape, type), tensors);
  Random random(seed, /*stream=*/10);
  std::map<std::pair<DType, uint64_t>, RowPool> pools;
  for (const GgufTensorPlan& tensor : tensors) {
    if (tensor.shape.size() == 1) {
      writer.Write(RandomVector(tensor, random));
      continue;
    }
    const std::pair key(tensor.dtype, tensor.shape[0]);
    const RowPool& pool = pools.try_emplace(key, tensor.dtype, tensor.shape[0], seed).first->second;
    std::vector<uint8_t> rows;  // some at a time: one call to the system for many
    for (uint64_t row = 0; row < tensor.shape[1]; ++row) {
      const std::span<const uint8_t> bytes = pool.Row(random);
      rows.insert(rows.end(), bytes.begin(), bytes.end());
      if (rows.size() < (size_t{1} << 20)) continue;
      writer.Write(rows);
      rows.clear();
    }
    writer.Write(rows);
  }
  writer.Finish();
}

}  // namespace kvasir::bench
