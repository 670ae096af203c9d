// One table entry defines an option once: name, type, limits, default, help. Parsers, --help and
// documents are made from such tables; policies and codecs register the same kind of table.
//
// Invariant  A default obeys its own limits: OptionValues CHECKs the table it is given, so a table
//            that contradicts itself cannot be used at all.
// Cost       Parsing is for start-up and requests, not for inner loops: values are kept as text.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir {

enum class OptionType {
  kSwitch,  // present or not; in a spec: on|off
  kCount,   // whole number
  kReal,
  kSize,         // bytes, with KiB MiB GiB TiB (1024) or KB MB GB TB (1000)
  kCountOrSize,  // a whole number within the limits, or bytes when a unit follows
  kText,
  kChoice,  // one of `choices`, separated by '|'
};

struct Option {
  std::string_view name;  // long name without dashes: "kv-memory"
  OptionType type = OptionType::kText;
  double min = 0, max = 1e18;     // for kCount, kReal, kSize, the count of kCountOrSize
  std::string_view value = {};    // default as typed; empty: none
  std::string_view choices = {};  // for kChoice
  std::string_view help = {};
};

// What is wrong with a table, one line each: doubled names, limits that exclude each other, choices
// on the wrong type, a default that its own entry refuses. Empty for a table that can be used.
std::vector<std::string> CheckTable(std::span<const Option> table);

// The entry of this name; null when there is none.
const Option* FindOption(std::span<const Option> table, std::string_view name);

// Bytes of "512MiB", "1.5GB", "4096". Errors: kUsage naming `what`.
uint64_t ParseSize(std::string_view text, std::string_view what);
std::string FormatSize(uint64_t bytes);  // "188.0 MiB"

// The candidate nearest to `word` by edit distance, or empty when none is near.
std::string_view Nearest(std::string_view word, std::span<const std::string_view> candidates);

// Values of a set of options, checked against the table when set.
class OptionValues {
 public:
  // `where` opens error messages: "--kv-policy keydiff".
  OptionValues(std::string where, std::span<const Option> table);

  // Errors (kUsage): unknown name (with the nearest one), a value of the wrong form or outside its
  // limits, a name set twice.
  void Set(std::string_view name, std::string_view value);

  bool Given(std::string_view name) const;  // set explicitly
  bool Has(std::string_view name) const;    // set, or has a default
  uint64_t Count(std::string_view name) const;
  double Real(std::string_view name) const;
  uint64_t Size(std::string_view name) const;
  bool IsSize(std::string_view name) const;  // of a kCountOrSize: bytes were given
  bool On(std::string_view name) const;
  std::string Text(std::string_view name) const;
  std::span<const Option> table() const { return table_; }
  const std::string& where() const { return where_; }  // to open further messages with

 private:
  const Option& Find(std::string_view name) const;  // CHECKs: names in code are right
  std::string_view Value(std::string_view name, OptionType type) const;
  std::string where_;
  std::span<const Option> table_;
  std::map<std::string, std::string, std::less<>> values_;
};

// "NAME:key=value,key=value" split at the first colon; keys without '=' are switches set to "on".
// Errors: kUsage opening with `where` (no name, an empty item, a key without a name).
struct NamedSpec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;
};
NamedSpec SplitSpec(std::string_view spec, std::string_view where);

}  // namespace kvasir
