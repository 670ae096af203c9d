#include "format/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "format/json.h"
#include "format/quote.h"

namespace kvasir {

namespace {

using nlohmann::json;

constexpr size_t kMaxDims = 8;

std::string ParseTypeName(const json& entry, const std::string& what) {
  const auto type = entry.find("dtype");
  if (type == entry.end() || !type->is_string()) {
    Fail(Code::kCorrupt, "{}: \"dtype\" is missing or no string", what);
  }
  return type->get<std::string>();
}

std::optional<DType> FindType(std::string_view name) {
  for (const DType known : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == Info(known).name) return known;
  }
  return std::nullopt;
}

std::vector<uint64_t> ParseNumbers(const json& entry, const char* key, size_t at_most,
                                   const std::string& what) {
  const auto list = entry.find(key);
  if (list == entry.end() || !list->is_array() || list->size() > at_most) {
    Fail(Code::kCorrupt, "{}: \"{}\" is missing or no list of up to {} numbers", what, key,
         at_most);
  }
  std::vector<uint64_t> numbers;
  for (const json& number : *list) {
    if (!number.is_number_unsigned()) {
      Fail(Code::kCorrupt, "{}: \"{}\" holds something else than whole numbers", what, key);
    }
    numbers.push_back(number.get<uint64_t>());
  }
  return numbers;
}

// `offset` of the result is relative to the data.
SafeTensor ParseEntry(const std::string& name, const json& entry, uint64_t data_bytes,
                      const std::string& where, Problems& problems) {
  const std::string what = fmt::format("{}: tensor {}", where, Quoted(name));
  if (!entry.is_object()) Fail(Code::kCorrupt, "{} is not described by an object", what);
  SafeTensor tensor{.name = name};
  tensor.type = ParseTypeName(entry, what);
  const std::optional<DType> dtype = FindType(tensor.type);
  if (!dtype) {
    problems.Add(Code::kUnsupported, "{}: type {}; F32, F16 and BF16 are known", what,
                 Quoted(tensor.type));
  }
  tensor.shape = ParseNumbers(entry, "shape", kMaxDims, what);
  const auto range = ParseNumbers(entry, "data_offsets", 2, what);
  if (range.size() != 2 || range[0] > range[1] || range[1] > data_bytes) {
    Fail(Code::kCorrupt,
         "{}: \"data_offsets\" must be [begin, end] in ascending order inside {} bytes of data",
         what, data_bytes);
  }
  tensor.offset = range[0];
  tensor.bytes = range[1] - range[0];
  if (!dtype) return tensor;
  tensor.dtype = *dtype;
  uint64_t needed = Info(tensor.dtype).bytes;
  for (const uint64_t dim : tensor.shape) needed = MulOrThrow(needed, dim, what);
  if (needed != tensor.bytes) {
    Fail(Code::kCorrupt, "{}: its shape needs {} bytes, its \"data_offsets\" span {}", what, needed,
         tensor.bytes);
  }
  return tensor;
}

std::map<std::string, std::string> ParseMetadata(const json& object, const std::string& where) {
  std::map<std::string, std::string> metadata;
  if (!object.is_object()) Fail(Code::kCorrupt, "{}: \"__metadata__\" is no object", where);
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) {
      Fail(Code::kCorrupt, "{}: \"__metadata__\" holds {} which is no string", where, Quoted(key));
    }
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

// Sorts by offset; the format allows neither holes nor overlaps, nor bytes that nobody owns.
void CheckCover(std::vector<SafeTensor>& tensors, uint64_t data_bytes, const std::string& where) {
  std::sort(tensors.begin(), tensors.end(), [](const SafeTensor& a, const SafeTensor& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  uint64_t end = 0;
  for (const SafeTensor& tensor : tensors) {
    if (tensor.offset != end) {
      Fail(Code::kCorrupt, "{}: tensor {} begins at byte {} of the data, {} is expected", where,
           Quoted(tensor.name), tensor.offset, end);
    }
    end += tensor.bytes;
  }
  if (end != data_bytes) {
    Fail(Code::kCorrupt, "{}: {} bytes of data, the tensors take {}", where, data_bytes, end);
  }
}

}  // namespace

std::vector<uint64_t> InnermostFirst(const SafeTensor& tensor) {
  if (tensor.shape.empty()) return {1};
  return {tensor.shape.rbegin(), tensor.shape.rend()};
}

Safetensors ParseSafetensors(std::span<const uint8_t> bytes, const std::string& name) {
  Problems problems(nullptr);
  return SurveySafetensors(bytes, name, problems);
}

Safetensors SurveySafetensors(std::span<const uint8_t> bytes, const std::string& name,
                              Problems& problems) {
  ByteReader reader(bytes, name);
  const auto header_bytes = reader.Read<uint64_t>("length of the header");
  if (header_bytes > kMaxSafetensorsHeader) {
    Fail(Code::kCorrupt, "{}: a header of {} bytes; up to {} are allowed", name, header_bytes,
         kMaxSafetensorsHeader);
  }
  const auto header = reader.Take(header_bytes, "header");
  const json root =
      ParseJson({reinterpret_cast<const char*>(header.data()), header.size()}, name + ": header");
  if (!root.is_object()) Fail(Code::kCorrupt, "{}: the header is no JSON object", name);

  Safetensors result;
  const uint64_t data_begin = reader.offset(), data_bytes = reader.remaining();
  for (const auto& [key, value] : root.items()) {
    if (key == "__metadata__") {
      result.metadata = ParseMetadata(value, name);
    } else {
      result.tensors.push_back(ParseEntry(key, value, data_bytes, name, problems));
    }
  }
  CheckCover(result.tensors, data_bytes, name);
  for (SafeTensor& tensor : result.tensors) tensor.offset += data_begin;
  return result;
}

}  // namespace kvasir
