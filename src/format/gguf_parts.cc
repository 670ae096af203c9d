#include "format/gguf_parts.h"

#include <charconv>
#include <utility>

namespace kvasir {

namespace {

constexpr std::string_view kSuffix = ".gguf", kOf = "-of-";
constexpr size_t kDigits = 5;
constexpr uint64_t kMostParts = 99999;
constexpr size_t kMostMissing = 20;  // after which a survey gives up

// Five digits, or 0.
uint32_t ParseNumber(std::string_view digits) {
  uint32_t number = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && stop == digits.data() + digits.size() ? number : 0;
}

GgufPart ReadPart(const std::string& path, Problems& problems) {
  MappedFile file(path);
  const std::span<const uint8_t> bytes = file.bytes();
  Gguf gguf = SurveyGguf(bytes, path, problems);
  return {std::move(file), bytes, std::move(gguf)};
}

// What part `i` says about itself.
void CheckPart(const Metadata& metadata, uint64_t i, uint64_t count, Problems& problems) {
  const uint64_t stated = metadata.Uint("split.count", 1), number = metadata.Uint("split.no", 0);
  if (stated != count) {
    problems.Add(Code::kCorrupt, "{}: split.count is {}; {} is expected, as in the first part",
                 metadata.where(), stated, count);
  }
  if (number != i) {
    problems.Add(Code::kCorrupt, "{}: split.no is {}; {} is expected by the file's name",
                 metadata.where(), number, i);
  }
}

void CheckTotal(const std::vector<GgufPart>& parts, Problems& problems) {
  const Metadata& metadata = parts[0].gguf.metadata;
  uint64_t found = 0;
  for (const GgufPart& part : parts) found += part.gguf.tensors.size();
  const uint64_t stated = metadata.Uint("split.tensors.count", found);
  if (stated != found) {
    problems.Add(Code::kCorrupt, "{}: split.tensors.count is {}; its parts hold {} tensors",
                 metadata.where(), stated, found);
  }
}

}  // namespace

std::optional<GgufPartName> ParseGgufPartName(std::string_view path) {
  constexpr size_t kTail = 1 + kDigits + kOf.size() + kDigits;
  if (!path.ends_with(kSuffix)) return std::nullopt;
  path.remove_suffix(kSuffix.size());
  if (path.size() <= kTail) return std::nullopt;
  const std::string_view tail = path.substr(path.size() - kTail);
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf) return std::nullopt;
  GgufPartName name = {std::string(path.substr(0, path.size() - kTail)),
                       ParseNumber(tail.substr(1, kDigits)),
                       ParseNumber(tail.substr(kTail - kDigits))};
  if (name.number < 1 || name.number > name.count) return std::nullopt;
  return name;
}

std::string ToPath(const GgufPartName& name) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", name.prefix, name.number, name.count);
}

std::vector<GgufPart> OpenGguf(const std::string& path) {
  Problems problems(nullptr);
  return OpenGguf(path, problems);
}

std::vector<GgufPart> OpenGguf(const std::string& path, Problems& problems) {
  std::vector<GgufPart> parts;
  parts.push_back(ReadPart(path, problems));
  const Metadata& first = parts[0].gguf.metadata;
  const uint64_t count = first.Uint("split.count", 1), number = first.Uint("split.no", 0);
  if (count <= 1) return parts;
  if (count > kMostParts) {
    problems.Add(Code::kCorrupt, "{}: split.count is {}; up to {} parts are known", path, count,
                 kMostParts);
    return parts;
  }
  std::optional<GgufPartName> name = ParseGgufPartName(path);
  if (number > 0) {
    GgufPartName wanted = name.value_or(GgufPartName{.prefix = "NAME"});
    wanted.number = 1;
    wanted.count = static_cast<uint32_t>(count);
    problems.Add(Code::kInvalid, "{}: part {} of {} of a model; name the first part, {}", path,
                 number + 1, count, ToPath(wanted));
    return parts;
  }
  if (!name || name->number != 1 || name->count != count) {
    problems.Add(Code::kInvalid,
                 "{}: the first of {} parts; its name should end in -00001-of-{:05}.gguf, so that "
                 "the others are found beside it",
                 path, count, count);
    return parts;
  }
  bool complete = true;
  for (uint32_t i = 1; i < count; ++i) {
    name->number = i + 1;
    try {
      GgufPart part = ReadPart(ToPath(*name), problems);
      CheckPart(part.gguf.metadata, i, count, problems);
      parts.push_back(std::move(part));
    } catch (const Error& error) {
      complete = false;
      problems.Add(error.code() == Code::kNotFound
                       ? Error(Code::kNotFound, fmt::format("{}: missing; it is part {} of {}",
                                                            ToPath(*name), i + 1, count))
                       : error);
      if (i + 1 - parts.size() == kMostMissing) break;
    }
  }
  if (complete) CheckTotal(parts, problems);
  return parts;
}

void CheckNoPart(const Metadata& metadata, const std::string& where) {
  const uint64_t count = metadata.Uint("split.count", 1);
  if (count > 1) {
    Fail(Code::kUnsupported, "{}: one of {} parts of a model; the others are needed too", where,
         count);
  }
}

}  // namespace kvasir
