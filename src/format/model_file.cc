#include "format/model_file.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "format/dequantize.h"
#include "format/gguf.h"
#include "format/hf_folder.h"
#include "format/quote.h"

namespace kvasir {

namespace {

TensorView ViewOf(DType dtype, const std::vector<uint64_t>& shape, const uint8_t* data) {
  return {.dtype = dtype, .rows = shape.size() > 1 ? shape[1] : 1, .cols = shape[0], .data = data};
}

TensorEntry ToEntry(GgufTensor&& tensor, std::span<const uint8_t> bytes) {
  const TensorView view = ViewOf(tensor.dtype, tensor.shape, bytes.data() + tensor.offset);
  return {std::move(tensor.name), std::move(tensor.shape), view};
}

TensorEntry ToEntry(SafeTensor&& tensor, std::span<const uint8_t> bytes) {
  std::vector<uint64_t> shape(tensor.shape.rbegin(), tensor.shape.rend());
  if (shape.empty()) shape.push_back(1);  // a scalar
  const TensorView view = ViewOf(tensor.dtype, shape, bytes.data() + tensor.offset);
  return {std::move(tensor.name), std::move(shape), view};
}

std::string ShapeText(std::span<const uint64_t> shape) {
  return fmt::format("{}", fmt::join(shape, " x "));
}

// The part after "blk.N.", or the whole name.
std::string_view InLayer(std::string_view name) {
  if (!name.starts_with("blk.")) return name;
  const size_t dot = name.find('.', 4);
  return dot == name.npos ? name : name.substr(dot + 1);
}

// Tensors whose presence changes what a model of these families computes.
void RefuseUnknownForms(std::span<const TensorEntry> tensors, const ModelConfig& config,
                        const std::string& path) {
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
  for (const TensorEntry& tensor : tensors) {
    const std::string_view part = InLayer(tensor.name);
    if (config.qk_norm && (part == "attn_q_norm.weight" || part == "attn_k_norm.weight")) continue;
    if (std::find(std::begin(kRefused), std::end(kRefused), part) != std::end(kRefused)) {
      Fail(Code::kUnsupported,
           "{}: the tensor {} belongs to a form of the model that is not known; models without it "
           "are",
           path, Quoted(tensor.name));
    }
  }
}

}  // namespace

ModelFile ModelFile::Open(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return FromFolder(path);
  MappedFile file(path);
  ModelFile model = FromGguf(file.bytes(), path);
  model.files_.push_back(std::move(file));
  return model;
}

ModelFile ModelFile::View(std::span<const uint8_t> bytes, const std::string& name) {
  return FromGguf(bytes, name);
}

ModelFile ModelFile::FromGguf(std::span<const uint8_t> bytes, const std::string& name) {
  ModelFile model;
  model.kind_ = Kind::kGguf;
  model.path_ = name;
  model.file_bytes_ = bytes.size();
  Gguf gguf = ParseGguf(bytes, name);
  model.metadata_ = std::move(gguf.metadata);
  for (GgufTensor& tensor : gguf.tensors) {
    model.tensors_.push_back(ToEntry(std::move(tensor), bytes));
  }
  model.IndexNames();
  const TensorEntry* embedding = model.Find("token_embd.weight");
  model.config_ =
      ConfigFromGguf(model.metadata_, embedding == nullptr ? 0 : embedding->view.rows, name);
  if (model.tensors_.empty()) {
    Fail(Code::kCorrupt, "{}: holds no tensors (a vocabulary-only file?), a model is expected",
         name);
  }
  model.config_.tied_embeddings = model.Find("output.weight") == nullptr;
  model.ReadRopeDivisors();
  model.CheckTensors();
  return model;
}

ModelFile ModelFile::FromFolder(const std::string& path) {
  ModelFile model;
  model.kind_ = Kind::kHuggingFace;
  model.path_ = path;
  HfFolder folder = OpenHfFolder(path);
  model.config_ = std::move(folder.config);
  model.files_ = std::move(folder.files);
  for (HfFolder::Tensor& tensor : folder.tensors) {
    model.tensors_.push_back(ToEntry(std::move(tensor.info), model.files_[tensor.file].bytes()));
  }
  for (const MappedFile& file : model.files_) model.file_bytes_ += file.bytes().size();
  model.IndexNames();
  model.CheckTensors();
  return model;
}

void ModelFile::IndexNames() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  const auto name = [this](uint32_t i) -> const std::string& { return tensors_[i].name; };
  std::sort(by_name_.begin(), by_name_.end(),
            [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                        [&](uint32_t a, uint32_t b) { return name(a) == name(b); });
  if (twice != by_name_.end()) {
    Fail(Code::kCorrupt, "{}: the tensor {} occurs twice", path_, Quoted(name(*twice)));
  }
}

const TensorEntry* ModelFile::Find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [this](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return found == by_name_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
}

void ModelFile::CheckTensor(std::string_view name, std::span<const uint64_t> shape,
                            Presence presence) const {
  const TensorEntry* tensor = Find(name);
  if (tensor == nullptr) {
    if (presence != Presence::kRequired) return;
    Fail(Code::kCorrupt, "{}: the tensor {} is missing; its shape would be {}", path_, name,
         ShapeText(shape));
  }
  if (presence == Presence::kForbidden) {
    Fail(Code::kCorrupt, "{}: the tensor {} contradicts the configuration, which has none", path_,
         name);
  }
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    Fail(Code::kCorrupt, "{}: the tensor {} has the shape {}; {} is expected", path_, name,
         ShapeText(tensor->shape), ShapeText(shape));
  }
}

// Llama 3's converter stores the scaling of every frequency instead of its parameters.
void ModelFile::ReadRopeDivisors() {
  constexpr std::string_view kName = "rope_freqs.weight";
  const TensorEntry* tensor = Find(kName);
  if (tensor == nullptr) return;
  const uint64_t n = config_.head_dim / 2;
  CheckTensor(kName, std::array{n}, Presence::kRequired);
  if (tensor->view.dtype != DType::kF32) {
    Fail(Code::kCorrupt, "{}: the tensor {} has the type {}; F32 is expected", path_, kName,
         Info(tensor->view.dtype).name);
  }
  config_.rope.divisors.resize(n);
  DequantizeRow(tensor->view.dtype, tensor->view.data, config_.rope.divisors.data(), n);
  for (const float divisor : config_.rope.divisors) {
    ToPositive(double{divisor}, 1e30, fmt::format("{}: a value of {}", path_, kName));
  }
}

void ModelFile::CheckTensors() const {
  RefuseUnknownForms(tensors_, config_, path_);
  const uint64_t hidden = config_.hidden, intermediate = config_.intermediate;
  const uint64_t q_rows = uint64_t{config_.n_heads} * config_.head_dim;
  const uint64_t kv_rows = uint64_t{config_.n_kv_heads} * config_.head_dim;
  const auto vector = [&](const std::string& name, uint64_t n,
                          Presence presence = Presence::kRequired) {
    CheckTensor(name, std::array{n}, presence);
  };
  const auto matrix = [&](const std::string& name, uint64_t cols, uint64_t rows) {
    CheckTensor(name, std::array{cols, rows}, Presence::kRequired);
  };
  matrix("token_embd.weight", hidden, config_.vocab_size);
  if (!config_.tied_embeddings) matrix("output.weight", hidden, config_.vocab_size);
  vector("output_norm.weight", hidden);
  for (uint32_t layer = 0; layer < config_.n_layers; ++layer) {
    const std::string block = fmt::format("blk.{}.", layer);
    vector(block + "attn_norm.weight", hidden);
    matrix(block + "attn_q.weight", hidden, q_rows);
    matrix(block + "attn_k.weight", hidden, kv_rows);
    matrix(block + "attn_v.weight", hidden, kv_rows);
    matrix(block + "attn_output.weight", q_rows, hidden);
    vector(block + "attn_q.bias", q_rows, config_.qkv_bias);
    vector(block + "attn_k.bias", kv_rows, config_.qkv_bias);
    vector(block + "attn_v.bias", kv_rows, config_.qkv_bias);
    vector(block + "attn_output.bias", hidden, config_.output_bias);
    if (config_.qk_norm) {
      vector(block + "attn_q_norm.weight", config_.head_dim);
      vector(block + "attn_k_norm.weight", config_.head_dim);
    }
    vector(block + "ffn_norm.weight", hidden);
    matrix(block + "ffn_gate.weight", hidden, intermediate);
    matrix(block + "ffn_up.weight", hidden, intermediate);
    matrix(block + "ffn_down.weight", intermediate, hidden);
    vector(block + "ffn_gate.bias", intermediate, config_.mlp_bias);
    vector(block + "ffn_up.bias", intermediate, config_.mlp_bias);
    vector(block + "ffn_down.bias", hidden, config_.mlp_bias);
  }
}

void ModelFile::ReleaseMapped() const {
  for (const MappedFile& file : files_) file.Release(file.bytes());
}

}  // namespace kvasir
