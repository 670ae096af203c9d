#include "cli/options.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

template <typename F>
void ForEachWord(std::string_view list, F&& f) {
  while (!list.empty()) {
    const size_t bar = list.find('|');
    f(list.substr(0, bar));
    list = bar == std::string_view::npos ? std::string_view() : list.substr(bar + 1);
  }
}

bool ListHas(std::string_view list, std::string_view word) {
  bool has = false;
  ForEachWord(list, [&](std::string_view item) { has |= item == word; });
  return has;
}

// By a flag as typed: "--kv-memory", "-ctk". The verb's own entry, else another verb's; nullptr:
// none.
const CliOption* FindFlag(const CliVerb& verb, std::string_view flag) {
  const bool is_long = flag.starts_with("--");
  const std::string_view name = flag.substr(is_long ? 2 : 1);
  const CliOption* others = nullptr;
  for (const CliOption& option : AllOptions()) {
    if (is_long ? option.option.name == name || ListHas(option.aliases, name)
                : option.short_form == name) {
      if (option.verbs & verb.bit) return &option;
      if (!others) others = &option;
    }
  }
  return others;
}

[[noreturn]] void RefuseFlag(const CliVerb& verb, std::string_view flag) {
  for (const FlagHint& hint : AllHints()) {
    if (ListHas(hint.flags, flag)) Fail(Code::kUsage, "{}: {}: {}", verb.name, flag, hint.hint);
  }
  std::vector<std::string> names;
  for (const CliOption& option : AllOptions()) {
    if ((option.verbs & verb.bit) == 0) continue;
    names.push_back(fmt::format("--{}", option.option.name));
    ForEachWord(option.aliases,
                [&](std::string_view a) { names.push_back(fmt::format("--{}", a)); });
    if (!option.short_form.empty()) names.push_back(fmt::format("-{}", option.short_form));
  }
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string_view nearest = Nearest(flag, views);
  if (!nearest.empty()) {
    Fail(Code::kUsage, "{}: unknown flag {}; did you mean {}?", verb.name, Quoted(flag), nearest);
  }
  Fail(Code::kUsage, "{}: unknown flag {}; kvasir help {} lists them", verb.name, Quoted(flag),
       verb.name);
}

// The option that the next word without a dash is the value of; empty: none.
std::string_view NextPositional(const CliVerb& verb, const Arguments& parsed) {
  std::string_view next;
  ForEachWord(verb.positional, [&](std::string_view name) {
    if (next.empty() && !parsed.Given(name)) next = name;
  });
  return next;
}

std::string VerbsOf(const CliOption& option) {
  std::vector<std::string_view> names;
  for (const CliVerb& verb : AllVerbs()) {
    if (option.verbs & verb.bit) names.push_back(verb.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::span<const Option> TableOf(const CliVerb& verb) {
  static const std::map<Verb, std::vector<Option>> tables = [] {
    std::map<Verb, std::vector<Option>> made;
    for (const CliVerb& v : AllVerbs()) {
      for (const CliOption& option : AllOptions()) {
        if (option.verbs & v.bit) made[v.bit].push_back(option.option);
      }
    }
    return made;
  }();
  return tables.at(verb.bit);
}

Arguments::Arguments(const CliVerb& verb)
    : verb_(&verb), values_(std::string(verb.name), TableOf(verb)) {}

bool Arguments::Given(std::string_view name) const {
  return values_.Given(name) || std::any_of(repeated_.begin(), repeated_.end(),
                                            [&](const auto& value) { return value.first == name; });
}

std::vector<std::string> Arguments::List(std::string_view name) const {
  std::vector<std::string> list;
  for (const auto& [option, value] : repeated_) {
    if (option == name) list.push_back(value);
  }
  return list;
}

void Arguments::Set(const CliOption& option, std::string_view value) {
  if (option.repeatable) {
    repeated_.emplace_back(option.option.name, value);
  } else {
    values_.Set(option.option.name, value);
  }
}

const CliVerb& FindVerb(std::span<const std::string_view> args, size_t* n_words) {
  CHECK(!args.empty());
  std::vector<std::string_view> names;
  for (const CliVerb& verb : AllVerbs()) {
    const size_t space = verb.name.find(' ');
    const bool two = space != std::string_view::npos;
    if (verb.name.substr(0, space) == args[0] &&
        (!two || (args.size() > 1 && verb.name.substr(space + 1) == args[1]))) {
      *n_words = two ? 2 : 1;
      return verb;
    }
    names.push_back(verb.name.substr(0, space));
  }
  if (args[0].starts_with("-")) {
    Fail(Code::kUsage, "{}: a verb comes first: one of {}", Quoted(args[0]),
         fmt::join(names, ", "));
  }
  const std::string_view nearest = Nearest(args[0], names);
  if (!nearest.empty()) {
    Fail(Code::kUsage, "unknown verb {}; did you mean {}?", Quoted(args[0]), nearest);
  }
  Fail(Code::kUsage, "unknown verb {}; known are {}", Quoted(args[0]), fmt::join(names, ", "));
}

Arguments ParseArguments(const CliVerb& verb, std::span<const std::string_view> args) {
  Arguments parsed(verb);
  for (const std::string_view arg : args) {
    if (arg == "--help" || arg == "-h") {
      parsed.help_ = true;
      return parsed;
    }
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string_view arg = args[i];
    if (arg.size() < 2 || arg[0] != '-') {
      const std::string_view positional = NextPositional(verb, parsed);
      if (positional.empty()) {
        Fail(Code::kUsage, "{}: {}: no flag; a value follows its flag", verb.name, Quoted(arg));
      }
      parsed.values_.Set(positional, arg);
      continue;
    }
    const size_t equals = arg.find('=');
    const std::string_view flag = arg.substr(0, equals);
    const CliOption* option = FindFlag(verb, flag);
    if (!option) RefuseFlag(verb, flag);
    if ((option->verbs & verb.bit) == 0) {
      Fail(Code::kUsage, "{}: {} does not belong here; it is a flag of {}", verb.name, flag,
           VerbsOf(*option));
    }
    if (equals != std::string_view::npos) {
      parsed.Set(*option, arg.substr(equals + 1));
    } else if (option->option.type == OptionType::kSwitch) {
      parsed.Set(*option, "on");
    } else if (i + 1 < args.size()) {
      parsed.Set(*option, args[++i]);
    } else {
      Fail(Code::kUsage, "{}: {} needs a value: {} {}", verb.name, flag, flag, option->metavar);
    }
  }
  return parsed;
}

}  // namespace kvasir
