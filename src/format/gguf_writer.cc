#include "format/gguf_writer.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

template <typename T>
void Put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}
void PutString(std::string& out, std::string_view text) {
  Put<uint64_t>(out, text.size());
  out += text;
}

// One value of a file's type from the wide type it is kept in.
template <typename Kept>
void PutNumber(std::string& out, GgufType type, Kept value) {
  switch (type) {
    case GgufType::kU8:
      return Put(out, static_cast<uint8_t>(value));
    case GgufType::kI8:
      return Put(out, static_cast<int8_t>(value));
    case GgufType::kU16:
      return Put(out, static_cast<uint16_t>(value));
    case GgufType::kI16:
      return Put(out, static_cast<int16_t>(value));
    case GgufType::kU32:
      return Put(out, static_cast<uint32_t>(value));
    case GgufType::kI32:
      return Put(out, static_cast<int32_t>(value));
    case GgufType::kF32:
      return Put(out, static_cast<float>(value));
    case GgufType::kBool:
      return Put(out, static_cast<uint8_t>(value));
    case GgufType::kU64:
      return Put(out, static_cast<uint64_t>(value));
    case GgufType::kI64:
      return Put(out, static_cast<int64_t>(value));
    case GgufType::kF64:
      return Put(out, static_cast<double>(value));
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  CheckFailed(__FILE__, __LINE__, "a number");
}

struct PutValue {
  std::string& out;
  GgufType type;
  template <typename T>
  void operator()(T number) const {
    PutNumber(out, type, number);
  }
  void operator()(const std::string& text) const { PutString(out, text); }
  void operator()(const MetadataArray& array) const {
    Put(out, type);
    Put<uint64_t>(out, array.size());
    std::visit(
        [this](const auto& list) {
          for (const auto& item : list) (*this)(item);
        },
        array.values);
  }
};

std::string KeyValues(const Metadata& metadata) {
  std::vector<const std::pair<const std::string, MetadataEntry>*> entries;
  for (const auto& entry : metadata.all()) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(),
            [](const auto* a, const auto* b) { return a->second.place < b->second.place; });
  std::string out;
  for (const auto* entry : entries) {
    const auto& [key, value] = *entry;
    if (key.empty() || key.size() > kMaxGgufKey) {
      Fail(Code::kInvalid, "the key {} has {} bytes; 1 to {} are allowed", Quoted(key), key.size(),
           kMaxGgufKey);
    }
    PutString(out, key);
    const bool is_array = std::holds_alternative<MetadataArray>(value.value);
    Put(out, is_array ? GgufType::kArray : value.type);
    std::visit(PutValue{out, value.type}, value.value);
  }
  return out;
}

void CheckPlan(const GgufTensorPlan& tensor) {
  const std::string what = "tensor " + Quoted(tensor.name);
  if (tensor.name.empty() || tensor.name.size() > kMaxGgufName) {
    Fail(Code::kInvalid, "{}: the name has {} bytes; 1 to {} are allowed", what, tensor.name.size(),
         kMaxGgufName);
  }
  const bool empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
  if (tensor.shape.empty() || tensor.shape.size() > kMaxGgufDims || empty) {
    Fail(Code::kInvalid, "{}: the shape is {}; 1 to {} dimensions above 0 are expected", what,
         fmt::join(tensor.shape, " x "), kMaxGgufDims);
  }
  if (tensor.shape[0] % Info(tensor.dtype).block != 0) {
    Fail(Code::kInvalid, "{}: rows of {} elements; a multiple of {} is expected for {}", what,
         tensor.shape[0], Info(tensor.dtype).block, Info(tensor.dtype).name);
  }
}

}  // namespace

uint64_t GgufTensorPlan::bytes() const {
  uint64_t elements = 1;
  for (const uint64_t dim : shape) elements = MulOrThrow(elements, dim, name);
  return MulOrThrow(elements / Info(dtype).block, Info(dtype).bytes, name);
}

std::string GgufHeader(const Metadata& metadata, std::span<const GgufTensorPlan> tensors) {
  const uint64_t alignment = GgufAlignment(metadata);
  std::string out = "GGUF";
  Put<uint32_t>(out, 3);
  Put<uint64_t>(out, tensors.size());
  Put<uint64_t>(out, metadata.all().size());
  out += KeyValues(metadata);
  std::unordered_set<std::string_view> names;
  uint64_t offset = 0;
  for (const GgufTensorPlan& tensor : tensors) {
    CheckPlan(tensor);
    if (!names.insert(tensor.name).second) {
      Fail(Code::kInvalid, "the tensor {} occurs twice", Quoted(tensor.name));
    }
    PutString(out, tensor.name);
    Put<uint32_t>(out, static_cast<uint32_t>(tensor.shape.size()));
    for (const uint64_t dim : tensor.shape) Put(out, dim);
    Put<uint32_t>(out, Info(tensor.dtype).gguf_id);
    Put(out, offset);
    offset = RoundUp(AddOrThrow(offset, tensor.bytes(), tensor.name), alignment);
  }
  out.resize(RoundUp<uint64_t>(out.size(), alignment), '\0');
  return out;
}

GgufWriter::GgufWriter(std::string path, const Metadata& metadata,
                       std::vector<GgufTensorPlan> tensors)
    : file_(std::move(path)), tensors_(std::move(tensors)), alignment_(GgufAlignment(metadata)) {
  file_.Write(GgufHeader(metadata, tensors_));
}

void GgufWriter::Write(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  CHECK(tensor_ < tensors_.size() && bytes.size() <= tensors_[tensor_].bytes() - written_);
  file_.Write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  written_ += bytes.size();
  if (written_ == tensors_[tensor_].bytes()) PadTensor();
}

void GgufWriter::PadTensor() {
  const uint64_t end = file_.size();  // the header is padded, so data offsets are file offsets
  file_.Write(std::string(RoundUp(end, alignment_) - end, '\0'));
  ++tensor_;
  written_ = 0;
}

void GgufWriter::Finish() {
  CHECK(tensor_ == tensors_.size());
  file_.Commit();
}

}  // namespace kvasir
