#include "format/model_file.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "format/dequantize.h"
#include "format/gguf_parts.h"
#include "format/hf_folder.h"
#include "format/model_tensors.h"
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
  std::vector<uint64_t> shape = InnermostFirst(tensor);
  const TensorView view = ViewOf(tensor.dtype, shape, bytes.data() + tensor.offset);
  return {std::move(tensor.name), std::move(shape), view};
}

}  // namespace

ModelFile ModelFile::Open(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return FromFolder(path);
  ModelFile model;
  model.TakeGguf(OpenGguf(path), path);
  return model;
}

ModelFile ModelFile::View(std::span<const uint8_t> bytes, const std::string& name) {
  std::vector<GgufPart> parts(1);
  parts[0].gguf = ParseGguf(bytes, name);
  parts[0].bytes = bytes;
  CheckNoPart(parts[0].gguf.metadata, name);
  ModelFile model;
  model.TakeGguf(std::move(parts), name);
  return model;
}

void ModelFile::TakeGguf(std::vector<GgufPart> parts, const std::string& name) {
  kind_ = Kind::kGguf;
  path_ = name;
  metadata_ = std::move(parts[0].gguf.metadata);
  for (GgufPart& part : parts) {
    file_bytes_ += part.bytes.size();
    for (GgufTensor& tensor : part.gguf.tensors) {
      tensors_.push_back(ToEntry(std::move(tensor), part.bytes));
    }
    files_.push_back(std::move(part.file));
  }
  IndexNames();
  const TensorEntry* embedding = Find("token_embd.weight");
  config_ = ConfigFromGguf(metadata_, embedding == nullptr ? 0 : embedding->view.rows, name);
  if (tensors_.empty()) {
    Fail(Code::kCorrupt, "{}: holds no tensors (a vocabulary-only file?), a model is expected",
         name);
  }
  config_.tied_embeddings = Find("output.weight") == nullptr;
  CheckTensors();
  ReadRopeDivisors();
}

ModelFile ModelFile::FromFolder(const std::string& path) {
  ModelFile model;
  model.kind_ = Kind::kHuggingFace;
  model.path_ = path;
  HfFolder folder = OpenHfFolder(path);
  model.config_ = std::move(*folder.config);
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

// Llama 3's converter stores the scaling of every frequency instead of its parameters.
void ModelFile::ReadRopeDivisors() {
  constexpr std::string_view kName = "rope_freqs.weight";
  const TensorEntry* tensor = Find(kName);
  if (tensor == nullptr) return;
  const uint64_t n = config_.head_dim / 2;
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
  TensorShapes shapes;
  for (const TensorEntry& tensor : tensors_) shapes.emplace(tensor.name, tensor.shape);
  Problems problems(nullptr);
  CheckModelTensors(config_, shapes, path_, problems);
}

void ModelFile::ReleaseMapped() const {
  for (const MappedFile& file : files_) file.Release(file.bytes());
}

}  // namespace kvasir
