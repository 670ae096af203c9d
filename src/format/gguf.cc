#include "format/gguf.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "format/gguf_types.h"
#include "format/quote.h"

namespace kvasir {

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

// The smallest key-value: length of the key, one letter, type, one byte.
constexpr uint64_t kMinKeyValue = 8 + 1 + 4 + 1;
// The smallest tensor entry: length of the name, one letter, dimensions, one of them, type, offset.
constexpr uint64_t kMinTensorInfo = 8 + 1 + 4 + 8 + 4 + 8;

class Parser {
 public:
  // `problems` receives what is wrong with single tensors.
  Parser(std::span<const uint8_t> bytes, const std::string& name, Problems& problems)
      : size_(bytes.size()),
        reader_(bytes, name),
        gguf_{.metadata = Metadata(name)},
        problems_(problems) {}

  Gguf Parse(bool with_tensors) {
    ReadHeader();
    for (uint64_t i = 0; i < n_key_values_; ++i) ReadKeyValue();
    gguf_.alignment = GgufAlignment(gguf_.metadata);
    if (with_tensors) ReadTensors();
    return std::move(gguf_);
  }

 private:
  void ReadHeader();
  void ReadKeyValue();
  MetadataValue ReadValue(GgufType type, const std::string& what);
  MetadataArray ReadArray(GgufType type, const std::string& what);
  template <typename Disk, typename Kept>
  MetadataArray ReadNumbers(uint64_t count, const std::string& what);
  MetadataArray ReadBools(uint64_t count, const std::string& what);
  MetadataArray ReadStrings(uint64_t count, const std::string& what);
  std::string ReadString(std::string_view what);
  std::string ReadName(std::string_view what, uint64_t limit);
  void CheckCount(uint64_t count, uint64_t least_bytes, std::string_view what);
  void ReadTensors();
  GgufTensor ReadTensor();
  bool MeasureTensor(GgufTensor& tensor);
  bool PlaceTensor(GgufTensor& tensor, uint64_t data_begin);
  void CheckApart(std::vector<const GgufTensor*> tensors);
  void CheckNames();
  const std::string& where() const { return reader_.where(); }

  // A problem of one tensor, after which the table can still be read. False, for the callers to
  // return.
  template <typename... Args>
  bool Refuse(Code code, fmt::format_string<Args...> format, Args&&... args) {
    problems_.Add(code, format, std::forward<Args>(args)...);
    return false;
  }

  uint64_t size_;
  ByteReader reader_;
  Gguf gguf_;
  Problems& problems_;
  uint64_t n_tensors_ = 0, n_key_values_ = 0;
};

void Parser::ReadHeader() {
  const auto magic = reader_.Take(4, "magic");
  const std::string_view letters(reinterpret_cast<const char*>(magic.data()), magic.size());
  if (letters != "GGUF") {
    Fail(Code::kCorrupt, "{}: starts with {}, a GGUF file starts with \"GGUF\"", where(),
         Quoted(letters));
  }
  gguf_.version = reader_.Read<uint32_t>("version");
  const uint32_t swapped = __builtin_bswap32(gguf_.version);
  if (swapped >= 1 && swapped <= 3) {
    Fail(Code::kUnsupported, "{}: a big-endian GGUF file; only little-endian ones are known",
         where());
  }
  if (gguf_.version != 2 && gguf_.version != 3) {
    Fail(Code::kUnsupported, "{}: GGUF version {}; versions 2 and 3 are known", where(),
         gguf_.version);
  }
  n_tensors_ = reader_.Read<uint64_t>("number of tensors");
  n_key_values_ = reader_.Read<uint64_t>("number of key-values");
  CheckCount(n_tensors_, kMinTensorInfo, "tensors");
  CheckCount(n_key_values_, kMinKeyValue, "key-values");
}

void Parser::CheckCount(uint64_t count, uint64_t least_bytes, std::string_view what) {
  if (count > reader_.remaining() / least_bytes) {
    Fail(Code::kCorrupt, "{}: {} {} announced before byte {} cannot fit into the {} bytes left",
         where(), count, what, reader_.offset(), reader_.remaining());
  }
}

std::string Parser::ReadString(std::string_view what) {
  const uint64_t length = reader_.Read<uint64_t>(what);
  const auto bytes = reader_.Take(length, what);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Parser::ReadName(std::string_view what, uint64_t limit) {
  const size_t at = reader_.offset();
  std::string name = ReadString(what);
  if (name.empty() || name.size() > limit) {
    Fail(Code::kCorrupt, "{}: {} at byte {} has {} bytes; 1 to {} are allowed", where(), what, at,
         name.size(), limit);
  }
  return name;
}

void Parser::ReadKeyValue() {
  std::string key = ReadName("key", kMaxGgufKey);
  const std::string what = "the key " + Quoted(key);
  auto type = static_cast<GgufType>(reader_.Read<uint32_t>("type of a value"));
  if (type == GgufType::kArray) {
    type = static_cast<GgufType>(reader_.Read<uint32_t>(what));
    gguf_.metadata.Set(std::move(key), ReadArray(type, what), type);
  } else {
    gguf_.metadata.Set(std::move(key), ReadValue(type, what), type);
  }
}

bool ToBool(uint8_t byte, const std::string& where, const std::string& what) {
  if (byte > 1) {
    Fail(Code::kCorrupt, "{}: {} is {}; 0 or 1 is expected", where, what, byte);
  }
  return byte == 1;
}

MetadataValue Parser::ReadValue(GgufType type, const std::string& what) {
  switch (type) {
    case GgufType::kU8:
      return uint64_t{reader_.Read<uint8_t>(what)};
    case GgufType::kI8:
      return int64_t{reader_.Read<int8_t>(what)};
    case GgufType::kU16:
      return uint64_t{reader_.Read<uint16_t>(what)};
    case GgufType::kI16:
      return int64_t{reader_.Read<int16_t>(what)};
    case GgufType::kU32:
      return uint64_t{reader_.Read<uint32_t>(what)};
    case GgufType::kI32:
      return int64_t{reader_.Read<int32_t>(what)};
    case GgufType::kF32:
      return double{reader_.Read<float>(what)};
    case GgufType::kBool:
      return ToBool(reader_.Read<uint8_t>(what), where(), what);
    case GgufType::kString:
      return ReadString(what);
    case GgufType::kArray:
      break;
    case GgufType::kU64:
      return reader_.Read<uint64_t>(what);
    case GgufType::kI64:
      return reader_.Read<int64_t>(what);
    case GgufType::kF64:
      return reader_.Read<double>(what);
  }
  Fail(Code::kCorrupt, "{}: {} has value type {}; 0 to 12 are known", where(), what,
       static_cast<uint32_t>(type));
}

template <typename Disk, typename Kept>
MetadataArray Parser::ReadNumbers(uint64_t count, const std::string& what) {
  CheckCount(count, sizeof(Disk), "elements of " + what);
  const auto bytes = reader_.Take(count * sizeof(Disk), what);
  std::vector<Kept> kept(count);
  for (uint64_t i = 0; i < count; ++i) {
    Disk value;
    std::memcpy(&value, bytes.data() + i * sizeof(Disk), sizeof(Disk));
    kept[i] = value;
  }
  return {std::move(kept)};
}

MetadataArray Parser::ReadBools(uint64_t count, const std::string& what) {
  const auto bytes = reader_.Take(count, what);
  std::vector<bool> kept(count);
  for (uint64_t i = 0; i < count; ++i) kept[i] = ToBool(bytes[i], where(), what);
  return {std::move(kept)};
}

MetadataArray Parser::ReadStrings(uint64_t count, const std::string& what) {
  CheckCount(count, sizeof(uint64_t), "elements of " + what);
  std::vector<std::string> kept;
  kept.reserve(count);
  for (uint64_t i = 0; i < count; ++i) kept.push_back(ReadString(what));
  return {std::move(kept)};
}

MetadataArray Parser::ReadArray(GgufType type, const std::string& what) {
  const auto count = reader_.Read<uint64_t>(what);
  switch (type) {
    case GgufType::kU8:
      return ReadNumbers<uint8_t, uint64_t>(count, what);
    case GgufType::kI8:
      return ReadNumbers<int8_t, int64_t>(count, what);
    case GgufType::kU16:
      return ReadNumbers<uint16_t, uint64_t>(count, what);
    case GgufType::kI16:
      return ReadNumbers<int16_t, int64_t>(count, what);
    case GgufType::kU32:
      return ReadNumbers<uint32_t, uint64_t>(count, what);
    case GgufType::kI32:
      return ReadNumbers<int32_t, int64_t>(count, what);
    case GgufType::kF32:
      return ReadNumbers<float, double>(count, what);
    case GgufType::kBool:
      return ReadBools(count, what);
    case GgufType::kString:
      return ReadStrings(count, what);
    case GgufType::kArray:
      Fail(Code::kUnsupported, "{}: {} holds an array of arrays; flat ones are known", where(),
           what);
    case GgufType::kU64:
      return ReadNumbers<uint64_t, uint64_t>(count, what);
    case GgufType::kI64:
      return ReadNumbers<int64_t, int64_t>(count, what);
    case GgufType::kF64:
      return ReadNumbers<double, double>(count, what);
  }
  Fail(Code::kCorrupt, "{}: {} has element type {}; 0 to 12 are known", where(), what,
       static_cast<uint32_t>(type));
}

// "IQ2_XXS", or the number where it has no name.
std::string TypeInWords(uint32_t type) {
  const std::string_view name = ForeignGgufType(type);
  return name.empty() ? fmt::format("number {}", type) : std::string(name);
}

std::string KnownTypes() {
  std::string names;
  for (int i = 0; i < kDTypes; ++i) {
    if (i > 0) names += ' ';
    names += Info(static_cast<DType>(i)).name;
  }
  return names;
}

// One entry of the table as it stands, unchecked but for what the next one hangs on.
GgufTensor Parser::ReadTensor() {
  GgufTensor tensor;
  tensor.name = ReadName("name of a tensor", kMaxGgufName);
  const std::string what = "tensor " + Quoted(tensor.name);
  const auto n_dims = reader_.Read<uint32_t>(what);
  if (n_dims < 1 || n_dims > kMaxGgufDims) {
    Fail(Code::kCorrupt, "{}: {} has {} dimensions; 1 to {} are allowed", where(), what, n_dims,
         kMaxGgufDims);
  }
  for (uint32_t i = 0; i < n_dims; ++i) tensor.shape.push_back(reader_.Read<uint64_t>(what));
  tensor.type = reader_.Read<uint32_t>(what);
  tensor.offset = reader_.Read<uint64_t>(what);
  return tensor;
}

// Type and bytes of a tensor.
bool Parser::MeasureTensor(GgufTensor& tensor) {
  uint64_t elements = 1;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) {
      return Refuse(Code::kCorrupt, "{}: dimension {} of tensor {} is zero", where(), i,
                    Quoted(tensor.name));
    }
    if (__builtin_mul_overflow(elements, tensor.shape[i], &elements)) {
      return Refuse(Code::kCorrupt, "{}: the elements of tensor {}, {}, do not fit into 64 bits",
                    where(), Quoted(tensor.name), fmt::join(tensor.shape, " x "));
    }
  }
  const DTypeInfo* info = FindGgufType(tensor.type);
  if (info == nullptr) {
    return Refuse(Code::kUnsupported, "{}: tensor {} has the type {}; known types are {}", where(),
                  Quoted(tensor.name), TypeInWords(tensor.type), KnownTypes());
  }
  tensor.dtype = info->dtype;
  if (tensor.shape[0] % info->block != 0) {
    return Refuse(Code::kCorrupt,
                  "{}: rows of tensor {} have {} elements, no multiple of the {} of a {} block",
                  where(), Quoted(tensor.name), tensor.shape[0], info->block, info->name);
  }
  if (__builtin_mul_overflow(elements / info->block, uint64_t{info->bytes}, &tensor.bytes)) {
    tensor.bytes = 0;
    return Refuse(Code::kCorrupt, "{}: the bytes of tensor {} do not fit into 64 bits", where(),
                  Quoted(tensor.name));
  }
  return true;
}

// Turns the offset inside the data section into one inside the file.
bool Parser::PlaceTensor(GgufTensor& tensor, uint64_t data_begin) {
  if (tensor.offset % gguf_.alignment != 0) {
    return Refuse(Code::kCorrupt, "{}: tensor {} is at offset {}, no multiple of the alignment {}",
                  where(), Quoted(tensor.name), tensor.offset, gguf_.alignment);
  }
  const uint64_t data_bytes = size_ > data_begin ? size_ - data_begin : 0;
  if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
    return Refuse(Code::kCorrupt,
                  "{}: tensor {} needs {} bytes at offset {} of a data section of {} bytes",
                  where(), Quoted(tensor.name), tensor.bytes, tensor.offset, data_bytes);
  }
  tensor.offset += data_begin;
  return true;
}

void Parser::CheckNames() {
  std::unordered_set<std::string_view> names;
  for (const GgufTensor& tensor : gguf_.tensors) {
    if (!names.insert(tensor.name).second) {
      Refuse(Code::kCorrupt, "{}: the tensor {} occurs twice", where(), Quoted(tensor.name));
    }
  }
}

void Parser::CheckApart(std::vector<const GgufTensor*> tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < tensors.size(); ++i) {
    if (tensors[i - 1]->offset + tensors[i - 1]->bytes > tensors[i]->offset) {
      Refuse(Code::kCorrupt, "{}: the tensors {} and {} overlap", where(),
             Quoted(tensors[i - 1]->name), Quoted(tensors[i]->name));
    }
  }
}

void Parser::ReadTensors() {
  CheckCount(n_tensors_, kMinTensorInfo, "tensors");
  gguf_.tensors.reserve(n_tensors_);
  for (uint64_t i = 0; i < n_tensors_; ++i) gguf_.tensors.push_back(ReadTensor());
  const uint64_t data_begin = RoundUp<uint64_t>(reader_.offset(), gguf_.alignment);
  std::vector<const GgufTensor*> placed;
  for (GgufTensor& tensor : gguf_.tensors) {
    if (MeasureTensor(tensor) && PlaceTensor(tensor, data_begin)) placed.push_back(&tensor);
  }
  CheckNames();
  CheckApart(std::move(placed));
}

}  // namespace

uint64_t GgufAlignment(const Metadata& metadata) {
  const uint64_t alignment = metadata.Uint("general.alignment", 32);
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > 65536) {
    Fail(Code::kCorrupt, "{}: general.alignment is {}; a power of two from 8 to 65536 is expected",
         metadata.where(), alignment);
  }
  return alignment;
}

std::string GgufTypeName(uint32_t gguf_id) {
  const DTypeInfo* info = FindGgufType(gguf_id);
  return info != nullptr ? std::string(info->name) : TypeInWords(gguf_id);
}

Gguf ParseGguf(std::span<const uint8_t> bytes, const std::string& name) {
  Problems problems(nullptr);
  return SurveyGguf(bytes, name, problems);
}

Gguf SurveyGguf(std::span<const uint8_t> bytes, const std::string& name, Problems& problems) {
  return Parser(bytes, name, problems).Parse(/*with_tensors=*/true);
}

Metadata ParseGgufMetadata(std::span<const uint8_t> bytes, const std::string& name) {
  Problems problems(nullptr);
  return Parser(bytes, name, problems).Parse(/*with_tensors=*/false).metadata;
}

Metadata ReadGgufMetadata(const std::string& path) {
  const MappedFile file(path);
  return ParseGgufMetadata(file.bytes(), path);
}

}  // namespace kvasir
