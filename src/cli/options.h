// The one table of command-line flags, and the parser, the hints and the help made from it.
//
// Forms    --name VALUE, --name=VALUE, -x VALUE, -ctk VALUE (short forms of any length), switches
//          without a value. A flag's value is whatever follows it, also when it begins with a dash.
// Errors   kUsage: an unknown flag (with the nearest one), a flag of other engines that means
// nothing here (with
//          its replacement), a flag the verb does not take, a missing or wrong value.
// Threads  The tables are constant.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/options.h"

namespace kvasir {

// Verbs, as bits of CliOption::verbs.
enum Verb : uint32_t {
  kRun = 1 << 0,
  kBatch = 1 << 1,
  kEvalPpl = 1 << 2,
  kTokenize = 1 << 3,
  kTemplate = 1 << 4,
  kInspect = 1 << 5,
  kDoctor = 1 << 6,
  kBenchServe = 1 << 7,
  kServe = 1 << 8,
  kQuantize = 1 << 9,
  kBench = 1 << 10,
  kEvalKeep = 1 << 11,
  kEval = 1 << 12,
};

struct CliVerb {
  Verb bit;
  std::string_view name;      // as typed: "eval ppl"
  std::string_view synopsis;  // what follows the name
  std::string_view summary;
  // What words without a dash stand for, one after another: options' names, separated by '|';
  // empty: none is taken.
  std::string_view positional;
};
std::span<const CliVerb> AllVerbs();

// Entries of different verbs may share a name where it means something else to them.
struct CliOption {
  Option option;
  uint32_t verbs = 0;
  std::string_view short_form = {};  // without the dash
  std::string_view aliases = {};     // long names that mean the same, separated by '|'
  std::string_view metavar = {};     // what --help writes for the value
  bool repeatable = false;
};
std::span<const CliOption> AllOptions();

// A flag of another engine that is refused with what to do instead.
struct FlagHint {
  std::string_view flags;  // with dashes, separated by '|'
  std::string_view hint;
};
std::span<const FlagHint> AllHints();

// What was typed, checked.
class Arguments {
 public:
  explicit Arguments(const CliVerb& verb);

  const CliVerb& verb() const { return *verb_; }
  // Values by an option's name; repeatable ones through List.
  const OptionValues& values() const { return values_; }
  OptionValues& values() { return values_; }
  bool Given(std::string_view name) const;
  // Values of a repeatable option in the order typed.
  std::vector<std::string> List(std::string_view name) const;
  bool help() const { return help_; }

 private:
  friend Arguments ParseArguments(const CliVerb& verb, std::span<const std::string_view> args);
  void Set(const CliOption& option, std::string_view value);

  const CliVerb* verb_;
  OptionValues values_;
  std::vector<std::pair<std::string_view, std::string>> repeated_;
  bool help_ = false;
};

// The verb that `args` begin with, and how many words name it. Errors: kUsage with the nearest
// verb.
const CliVerb& FindVerb(std::span<const std::string_view> args, size_t* n_words);
// `args`: what follows the verb. With --help nothing else is checked.
Arguments ParseArguments(const CliVerb& verb, std::span<const std::string_view> args);

// The options of a verb as one plain table, with static lifetime.
std::span<const Option> TableOf(const CliVerb& verb);

}  // namespace kvasir
