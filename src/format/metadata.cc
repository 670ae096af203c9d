#include "format/metadata.h"

#include <limits>
#include <utility>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

std::string_view KindOf(const MetadataValue& value) {
  constexpr std::string_view kKinds[] = {"a bool",  "an integer", "an integer",
                                         "a float", "a string",   "an array"};
  return kKinds[value.index()];
}

}  // namespace

size_t MetadataArray::size() const {
  return std::visit([](const auto& vector) { return vector.size(); }, values);
}

const MetadataValue* Metadata::Find(std::string_view key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : &found->second.value;
}

bool Metadata::Has(std::string_view key) const { return Find(key) != nullptr; }

const MetadataValue& Metadata::Require(std::string_view key) const {
  const MetadataValue* value = Find(key);
  if (value == nullptr) Fail(Code::kCorrupt, "{}: the key {} is missing", where_, key);
  return *value;
}

void Metadata::WrongType(std::string_view key, std::string_view wanted) const {
  const MetadataValue& value = Require(key);
  const auto* array = std::get_if<MetadataArray>(&value);
  constexpr std::string_view kElements[] = {"bools", "integers", "integers", "floats", "strings"};
  const std::string kind = array == nullptr
                               ? std::string(KindOf(value))
                               : fmt::format("an array of {}", kElements[array->values.index()]);
  Fail(Code::kCorrupt, "{}: the key {} holds {}, {} is expected", where_, key, kind, wanted);
}

uint64_t Metadata::Uint(std::string_view key) const {
  const MetadataValue& value = Require(key);
  if (const auto* number = std::get_if<uint64_t>(&value)) return *number;
  const auto* number = std::get_if<int64_t>(&value);
  if (number == nullptr) WrongType(key, "a whole number");
  if (*number < 0) {
    Fail(Code::kCorrupt, "{}: the key {} is {}, it cannot be negative", where_, key, *number);
  }
  return static_cast<uint64_t>(*number);
}

uint64_t Metadata::Uint(std::string_view key, uint64_t otherwise) const {
  return Has(key) ? Uint(key) : otherwise;
}

double Metadata::Float(std::string_view key) const {
  const MetadataValue& value = Require(key);
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(&value)) return static_cast<double>(*number);
  WrongType(key, "a number");
}

double Metadata::Float(std::string_view key, double otherwise) const {
  return Has(key) ? Float(key) : otherwise;
}

bool Metadata::Bool(std::string_view key, bool otherwise) const {
  const MetadataValue* value = Find(key);
  if (value == nullptr) return otherwise;
  const auto* flag = std::get_if<bool>(value);
  if (flag == nullptr) WrongType(key, "a bool");
  return *flag;
}

const std::string& Metadata::String(std::string_view key) const {
  const auto* text = std::get_if<std::string>(&Require(key));
  if (text == nullptr) WrongType(key, "a string");
  return *text;
}

std::string Metadata::String(std::string_view key, std::string_view otherwise) const {
  return Has(key) ? String(key) : std::string(otherwise);
}

const std::vector<std::string>* Metadata::Strings(std::string_view key) const {
  const MetadataValue* value = Find(key);
  if (value == nullptr) return nullptr;
  const auto* array = std::get_if<MetadataArray>(value);
  const auto* strings =
      array == nullptr ? nullptr : std::get_if<std::vector<std::string>>(&array->values);
  if (strings == nullptr) WrongType(key, "an array of strings");
  return strings;
}

std::vector<int64_t> Metadata::Ints(std::string_view key) const {
  const MetadataValue* value = Find(key);
  if (value == nullptr) return {};
  const auto* array = std::get_if<MetadataArray>(value);
  if (array == nullptr) WrongType(key, "an array of integers");
  if (const auto* ints = std::get_if<std::vector<int64_t>>(&array->values)) return *ints;
  const auto* uints = std::get_if<std::vector<uint64_t>>(&array->values);
  if (uints == nullptr) WrongType(key, "an array of integers");
  for (const uint64_t number : *uints) {
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      Fail(Code::kCorrupt, "{}: the key {} holds {}, more than 63 bits hold", where_, key, number);
    }
  }
  return {uints->begin(), uints->end()};
}

std::vector<double> Metadata::Floats(std::string_view key) const {
  const MetadataValue* value = Find(key);
  if (value == nullptr) return {};
  const auto* array = std::get_if<MetadataArray>(value);
  const auto* floats =
      array == nullptr ? nullptr : std::get_if<std::vector<double>>(&array->values);
  if (floats == nullptr) WrongType(key, "an array of floats");
  return *floats;
}

namespace {

GgufType WidestType(const MetadataValue& value) {
  constexpr GgufType kTypes[] = {GgufType::kBool, GgufType::kI64, GgufType::kU64, GgufType::kF64,
                                 GgufType::kString};
  const auto* array = std::get_if<MetadataArray>(&value);
  return kTypes[array == nullptr ? value.index() : array->values.index()];
}

}  // namespace

void Metadata::Set(std::string key, MetadataValue value) {
  const GgufType type = WidestType(value);
  Set(std::move(key), std::move(value), type);
}

void Metadata::Set(std::string key, MetadataValue value, GgufType type) {
  const auto [place, fresh] =
      entries_.try_emplace(std::move(key), MetadataEntry{std::move(value), type, entries_.size()});
  if (!fresh) Fail(Code::kCorrupt, "{}: the key {} occurs twice", where_, Quoted(place->first));
}

}  // namespace kvasir
