// GGUF key-value metadata: typed values that were checked against the file's size when read.
//
// Integers widen to 64 bits and reals to f64; beside each value stands the type the file gave it,
// so that writing it again gives the same bytes.
//
// Cost     Values are copied out of the file: integers and reals as 64 bits each, so at most eight
//          times the bytes they take in the file.
// Errors   kCorrupt naming the source and the key: a key that is absent, repeated or of another
// type. Threads  Immutable once read.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "format/gguf_types.h"

namespace kvasir {

struct MetadataArray;
using MetadataValue = std::variant<bool, int64_t, uint64_t, double, std::string, MetadataArray>;

// Arrays keep one of these kinds; nested arrays are refused when a file is read.
struct MetadataArray {
  std::variant<std::vector<bool>, std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
               std::vector<std::string>>
      values;
  size_t size() const;
};

struct MetadataEntry {
  MetadataValue value;
  GgufType type;  // of the value in the file; of the elements, where it is an array
  size_t place;   // in the order of the file
};

class Metadata {
 public:
  // `where` opens error messages: the name of the file.
  explicit Metadata(std::string where = "metadata") : where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  bool Has(std::string_view key) const;
  // nullptr when absent.
  const MetadataValue* Find(std::string_view key) const;
  // Typed access. The two-argument forms answer `otherwise` when the key is absent; the
  // one-argument forms throw kCorrupt naming the key. Any integer type serves Uint where the value
  // fits.
  uint64_t Uint(std::string_view key) const;
  uint64_t Uint(std::string_view key, uint64_t otherwise) const;
  double Float(std::string_view key) const;
  double Float(std::string_view key, double otherwise) const;
  bool Bool(std::string_view key, bool otherwise) const;
  const std::string& String(std::string_view key) const;
  std::string String(std::string_view key, std::string_view otherwise) const;
  // nullptr when absent; throws kCorrupt when the key holds another type.
  const std::vector<std::string>* Strings(std::string_view key) const;
  std::vector<int64_t> Ints(std::string_view key) const;   // empty when absent
  std::vector<double> Floats(std::string_view key) const;  // empty when absent

  const std::map<std::string, MetadataEntry, std::less<>>& all() const { return entries_; }
  // Throws kCorrupt on a repeated key. Without a type: the widest one of the value's kind.
  void Set(std::string key, MetadataValue value);
  void Set(std::string key, MetadataValue value, GgufType type);

 private:
  const MetadataValue& Require(std::string_view key) const;
  [[noreturn]] void WrongType(std::string_view key, std::string_view wanted) const;

  std::string where_;
  std::map<std::string, MetadataEntry, std::less<>> entries_;
};

}  // namespace kvasir
