#include "eval/case.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "base/options.h"
#include "format/quote.h"
#include "policy/policy.h"

namespace kvasir {

namespace {

constexpr std::string_view kWhere = "--kv-policy";

// A method that has blocks only when asked for is left as it is.
bool HasBlocks(std::string_view policy_name) {
  const Traits* const traits = FindPolicy(policy_name);
  const Option* const block = traits ? FindOption(traits->options, "block") : nullptr;
  return block != nullptr && !block->value.empty();
}

std::string Replaced(std::string text, const std::string& what, const std::string& value) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
    text.replace(at, what.size(), value);
    at += value.size();
  }
  return text;
}

std::pair<std::string, std::string> SplitCase(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    Fail(Code::kUsage,
         "--case: {}: expected LABEL='FLAGS', as in kd='--kv-policy keydiff:budget=9'",
         Quoted(text));
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

}  // namespace

EngineOptions OptionsFor(const EvalCase& c, const EngineOptions& common, uint32_t block) {
  EngineOptions options = common;
  options.policy = block > 0 ? WithBlock(c.policy, block) : c.policy;
  options.encoding = c.encoding;
  options.kv_memory_explicit = c.kv_memory.has_value();
  if (c.kv_memory) options.kv_memory = *c.kv_memory;
  return options;
}

std::string WithBlock(const std::string& policy, uint32_t block) {
  if (policy.empty() || policy == "none") return policy;
  const NamedSpec spec = SplitSpec(policy, kWhere);
  const bool names_one = std::any_of(spec.values.begin(), spec.values.end(),
                                     [](const auto& value) { return value.first == "block"; });
  if (names_one || !HasBlocks(spec.name)) return policy;
  return fmt::format("{}{}block={}", policy, spec.values.empty() ? ":" : ",", block);
}

std::string PolicyName(std::string_view spec) {
  return std::string(spec.substr(0, spec.find(':')));
}

std::string PolicyValue(std::string_view spec, std::string_view key) {
  if (spec.find(':') == std::string_view::npos) return {};
  for (const auto& [name, value] : SplitSpec(spec, kWhere).values) {
    if (name == key) return value;
  }
  return {};
}

std::optional<double> NominalRatio(std::string_view spec, uint64_t tokens) {
  const Traits* const traits = FindPolicy(PolicyName(spec));
  if (traits && traits->hides) return std::nullopt;  // its budget is not one of memory
  const auto value = [&](std::string_view key) {
    return std::strtod(PolicyValue(spec, key).c_str(), nullptr);
  };
  if (const double ratio = value("ratio"); ratio > 0) return ratio;
  if (const double keep = value("keep"); keep > 0) return 1 / keep;
  if (const double budget = value("budget"); budget > 0) {
    return std::max(1.0, static_cast<double>(tokens) / budget);
  }
  return std::nullopt;
}

Sweep ParseSweep(std::string_view text) {
  const size_t equals = text.find('=');
  Sweep sweep{std::string(text.substr(0, equals)), {}};
  std::string_view rest = equals == std::string_view::npos ? "" : text.substr(equals + 1);
  while (true) {
    const size_t comma = rest.find(',');
    sweep.values.emplace_back(rest.substr(0, comma));
    if (sweep.name.empty() || sweep.values.back().empty()) {
      Fail(Code::kUsage, "--sweep: {}: expected NAME=VALUE,VALUE, as in budget=512,1024",
           Quoted(text));
    }
    if (comma == std::string_view::npos) return sweep;
    rest.remove_prefix(comma + 1);
  }
}

std::vector<std::pair<std::string, std::string>> ExpandCases(const std::vector<std::string>& texts,
                                                             const std::optional<Sweep>& sweep) {
  std::vector<std::pair<std::string, std::string>> cases;
  bool swept = false;
  for (const std::string& text : texts) {
    const auto [label, flags] = SplitCase(text);
    const std::string place = sweep ? fmt::format("{{{}}}", sweep->name) : "";
    if (!sweep || text.find(place) == std::string::npos) {
      cases.emplace_back(label, flags);
      continue;
    }
    swept = true;
    for (const std::string& value : sweep->values) {
      const std::string name = label.find(place) == std::string::npos ? label + "@" + place : label;
      cases.emplace_back(Replaced(name, place, value), Replaced(flags, place, value));
    }
  }
  if (sweep && !swept) {
    Fail(Code::kUsage, "--sweep: no case has {{{}}} in its flags", sweep->name);
  }
  std::set<std::string> labels = {"dense"};
  for (const auto& [label, flags] : cases) {
    if (!labels.insert(label).second) {
      Fail(Code::kUsage, "--case: the label {} is {}", Quoted(label),
           label == "dense" ? "that of the reference" : "given twice");
    }
  }
  return cases;
}

}  // namespace kvasir
