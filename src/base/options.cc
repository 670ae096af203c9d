#include "base/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace kvasir {

namespace {

struct Unit {
  std::string_view name;
  uint64_t bytes;
};
constexpr Unit kUnits[] = {
    {"B", 1},
    {"KiB", uint64_t{1} << 10},
    {"MiB", uint64_t{1} << 20},
    {"GiB", uint64_t{1} << 30},
    {"TiB", uint64_t{1} << 40},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", 1000000000000},
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Whole numbers as people type them: digits only, no sign, no exponent.
bool ParseCount(std::string_view text, uint64_t* count) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), IsDigit)) return false;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *count);
  return error == std::errc() && stop == end;
}

bool ParseReal(std::string_view text, double* real) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *real);
  return error == std::errc() && stop == end && std::isfinite(*real);
}

// A number without a fraction is multiplied exactly; one with a fraction is rounded down to bytes.
bool ParseBytes(std::string_view text, uint64_t* bytes) {
  size_t digits = 0;
  while (digits < text.size() && (IsDigit(text[digits]) || text[digits] == '.')) ++digits;
  const std::string_view number = text.substr(0, digits);
  const std::string_view unit_name = text.substr(digits);
  uint64_t unit = 1;
  if (!unit_name.empty()) {
    const auto* found = std::find_if(std::begin(kUnits), std::end(kUnits),
                                     [&](const Unit& u) { return u.name == unit_name; });
    if (found == std::end(kUnits)) return false;
    unit = found->bytes;
  }
  uint64_t count = 0;
  if (ParseCount(number, &count)) return !__builtin_mul_overflow(count, unit, bytes);
  double real = 0;
  if (number.empty() || !ParseReal(number, &real) || unit == 1) return false;
  real *= static_cast<double>(unit);
  if (real >= 9.2e18) return false;
  *bytes = static_cast<uint64_t>(real);
  return true;
}

bool HasUnit(std::string_view text) { return !text.empty() && text.back() == 'B'; }

std::vector<std::string_view> Choices(const Option& option) {
  std::vector<std::string_view> choices;
  std::string_view rest = option.choices;
  for (;;) {
    const size_t bar = rest.find('|');
    choices.push_back(rest.substr(0, bar));
    if (bar == std::string_view::npos) return choices;
    rest.remove_prefix(bar + 1);
  }
}

// What is wrong with a value for this option, after "NAME=VALUE: "; empty when nothing is.
std::string Objection(const Option& option, std::string_view value) {
  double number = 0;
  uint64_t whole = 0;
  switch (option.type) {
    case OptionType::kText:
      return {};
    case OptionType::kSwitch:
      return value == "on" || value == "off" ? "" : "expected on or off";
    case OptionType::kChoice: {
      const std::vector<std::string_view> choices = Choices(option);
      if (std::find(choices.begin(), choices.end(), value) != choices.end()) return {};
      return fmt::format("expected one of {}", option.choices);
    }
    case OptionType::kCountOrSize:
      if (HasUnit(value)) {
        if (ParseBytes(value, &whole) && whole > 0) return {};
        return "expected a whole number, or bytes like 512MiB";
      }
      if (!ParseCount(value, &whole)) return "expected a whole number, or bytes like 512MiB";
      number = static_cast<double>(whole);
      break;
    case OptionType::kCount:
      if (!ParseCount(value, &whole)) return "expected a whole number";
      number = static_cast<double>(whole);
      break;
    case OptionType::kSize:
      if (!ParseBytes(value, &whole)) return "expected bytes like 4096, 512MiB or 1.5GB";
      number = static_cast<double>(whole);
      break;
    case OptionType::kReal:
      if (!ParseReal(value, &number)) return "expected a number";
      break;
  }
  if (number >= option.min && number <= option.max) return {};
  if (option.type == OptionType::kSize) {
    return fmt::format("must be from {} to {}", FormatSize(static_cast<uint64_t>(option.min)),
                       FormatSize(static_cast<uint64_t>(option.max)));
  }
  return fmt::format("must be from {} to {}", option.min, option.max);
}

}  // namespace

std::vector<std::string> CheckTable(std::span<const Option> table) {
  std::vector<std::string> faults;
  for (size_t i = 0; i < table.size(); ++i) {
    const Option& option = table[i];
    const auto same_name = [&](const Option& other) { return other.name == option.name; };
    if (option.name.empty()) faults.push_back(fmt::format("entry {} has no name", i));
    if (std::any_of(table.begin(), table.begin() + i, same_name)) {
      faults.push_back(fmt::format("{}: defined twice", option.name));
    }
    const bool signed_type = option.type == OptionType::kReal;
    if (!(option.min <= option.max) || (option.min < 0 && !signed_type)) {
      faults.push_back(
          fmt::format("{}: limits from {} to {}", option.name, option.min, option.max));
    }
    if ((option.type == OptionType::kChoice) != !option.choices.empty()) {
      faults.push_back(fmt::format("{}: a choice needs choices, and only a choice", option.name));
    }
    if (option.value.empty()) continue;
    const std::string objection = Objection(option, option.value);
    if (!objection.empty()) {
      faults.push_back(fmt::format("{}: default \"{}\": {}", option.name, option.value, objection));
    }
  }
  return faults;
}

uint64_t ParseSize(std::string_view text, std::string_view what) {
  uint64_t bytes = 0;
  if (!ParseBytes(text, &bytes)) {
    Fail(Code::kUsage, "{}: \"{}\" is no size; expected bytes like 4096, 512MiB or 1.5GB", what,
         text);
  }
  return bytes;
}

std::string FormatSize(uint64_t bytes) {
  constexpr std::string_view kNames[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.95 would print as 1024.0: the next unit says 1.0 instead.
  while (value >= 1023.95 && unit + 1 < std::size(kNames)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kNames[unit]);
}

std::string_view Nearest(std::string_view word, std::span<const std::string_view> candidates) {
  // Edits: insert, delete, replace, swap of neighbours (optimal string alignment).
  const auto distance = [&](std::string_view other) {
    std::vector<size_t> before, above(other.size() + 1), row(other.size() + 1);
    std::iota(above.begin(), above.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      row[0] = i;
      for (size_t j = 1; j <= other.size(); ++j) {
        const bool equal = word[i - 1] == other[j - 1];
        row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (equal ? 0 : 1)});
        if (i > 1 && j > 1 && word[i - 1] == other[j - 2] && word[i - 2] == other[j - 1]) {
          row[j] = std::min(row[j], before[j - 2] + 1);
        }
      }
      before = above;
      above = row;
    }
    return above[other.size()];
  };
  std::string_view best;
  size_t best_distance = std::clamp<size_t>(word.size() / 3, 1, 3) + 1;
  for (const std::string_view candidate : candidates) {
    const size_t d = distance(candidate);
    // As many edits as letters would turn any word into any other.
    if (d < best_distance && d < std::max(word.size(), candidate.size())) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

OptionValues::OptionValues(std::string where, std::span<const Option> table)
    : where_(std::move(where)), table_(table) {
  const std::vector<std::string> faults = CheckTable(table);
  CHECK_MSG(faults.empty(), "option table of {}: {}", where_, faults.front());
}

void OptionValues::Set(std::string_view name, std::string_view value) {
  const auto option =
      std::find_if(table_.begin(), table_.end(), [&](const Option& o) { return o.name == name; });
  if (option == table_.end()) {
    std::vector<std::string_view> names;
    for (const Option& o : table_) names.push_back(o.name);
    const std::string_view nearest = Nearest(name, names);
    if (!nearest.empty()) {
      Fail(Code::kUsage, "{}: unknown key \"{}\"; did you mean {}?", where_, name, nearest);
    }
    Fail(Code::kUsage, "{}: unknown key \"{}\"; known are {}", where_, name,
         fmt::join(names, ", "));
  }
  const std::string objection = Objection(*option, value);
  if (!objection.empty()) Fail(Code::kUsage, "{}: {}={}: {}", where_, name, value, objection);
  if (!values_.emplace(name, value).second) {
    Fail(Code::kUsage, "{}: {} is given twice", where_, name);
  }
}

const Option* FindOption(std::span<const Option> table, std::string_view name) {
  const auto option =
      std::find_if(table.begin(), table.end(), [&](const Option& o) { return o.name == name; });
  return option == table.end() ? nullptr : &*option;
}

const Option& OptionValues::Find(std::string_view name) const {
  const Option* const option = FindOption(table_, name);
  CHECK_MSG(option != nullptr, "{} has no option {}", where_, name);
  return *option;
}

std::string_view OptionValues::Value(std::string_view name, OptionType type) const {
  const Option& option = Find(name);
  CHECK_MSG(option.type == type || option.type == OptionType::kCountOrSize, "{}: type of {}",
            where_, name);
  const auto set = values_.find(name);
  if (set != values_.end()) return set->second;
  CHECK_MSG(!option.value.empty(), "{}: {} has no value", where_, name);
  return option.value;
}

bool OptionValues::Given(std::string_view name) const {
  Find(name);
  return values_.find(name) != values_.end();
}

bool OptionValues::Has(std::string_view name) const {
  return !Find(name).value.empty() || Given(name);
}

// Values were checked by Set and CheckTable, so that parsing them again cannot fail.
uint64_t OptionValues::Count(std::string_view name) const {
  uint64_t count = 0;
  CHECK(ParseCount(Value(name, OptionType::kCount), &count));
  return count;
}

double OptionValues::Real(std::string_view name) const {
  double real = 0;
  CHECK(ParseReal(Value(name, OptionType::kReal), &real));
  return real;
}

uint64_t OptionValues::Size(std::string_view name) const {
  uint64_t bytes = 0;
  CHECK(ParseBytes(Value(name, OptionType::kSize), &bytes));
  return bytes;
}

bool OptionValues::IsSize(std::string_view name) const {
  return HasUnit(Value(name, OptionType::kCountOrSize));
}

bool OptionValues::On(std::string_view name) const {
  // A switch without a default is off unless it is given.
  return Has(name) && Value(name, OptionType::kSwitch) == "on";
}

std::string OptionValues::Text(std::string_view name) const {
  const Option& option = Find(name);
  return std::string(Value(name, option.type));
}

NamedSpec SplitSpec(std::string_view spec, std::string_view where) {
  const size_t colon = spec.find(':');
  NamedSpec result;
  result.name = std::string(spec.substr(0, colon));
  if (result.name.empty()) {
    Fail(Code::kUsage, "{}: \"{}\" names nothing; expected NAME:key=value,key=value", where, spec);
  }
  if (colon == std::string_view::npos) return result;
  std::string_view rest = spec.substr(colon + 1);
  for (;;) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const size_t equals = item.find('=');
    const std::string_view key = item.substr(0, equals);
    if (key.empty()) {
      Fail(Code::kUsage, "{}: \"{}\" has an item without a key; expected NAME:key=value,key=value",
           where, spec);
    }
    result.values.emplace_back(key,
                               equals == std::string_view::npos ? "on" : item.substr(equals + 1));
    if (comma == std::string_view::npos) return result;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace kvasir
