#include "eval/check.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

Estimate Exact(double value) { return {value, std::nullopt}; }
Estimate Exact(uint64_t value) { return Exact(static_cast<double>(value)); }

Estimate PplOf(const QualityFigures& q) {
  Estimate ppl{q.ppl, std::nullopt};
  if (q.dppl.interval) {
    ppl.interval = Interval{q.ppl_dense + q.dppl.interval->lo, q.ppl_dense + q.dppl.interval->hi};
  }
  return ppl;
}

using Result = EvalResult;
struct Figure {
  std::string_view name;
  bool (*there)(const Result&);
  Estimate (*value)(const Result&);
};
bool Always(const Result&) { return true; }
bool HasQuality(const Result& r) { return r.quality.has_value(); }
bool HasScore(const Result& r) { return r.score.has_value(); }
bool HasTrace(const Result& r) { return r.trace.has_value(); }

constexpr Figure kFigures[] = {
    {"ppl", HasQuality, [](const Result& r) { return PplOf(*r.quality); }},
    {"dppl", HasQuality, [](const Result& r) { return r.quality->dppl; }},
    {"kl", HasQuality,
     [](const Result& r) { return Estimate{r.quality->kl.mean, r.quality->kl.interval}; }},
    {"top1", HasQuality, [](const Result& r) { return Exact(r.quality->top1); }},
    {"rms_dp", HasQuality, [](const Result& r) { return Exact(r.quality->rms_dp); }},
    {"score", HasScore, [](const Result& r) { return r.score->score; }},
    {"delta", HasScore, [](const Result& r) { return r.score->delta; }},
    {"len_ratio", HasTrace, [](const Result& r) { return Exact(r.trace->len_ratio); }},
    {"kv_peak_bytes", Always, [](const Result& r) { return Exact(r.memory.kv_peak_bytes); }},
    {"kv_end_bytes", Always, [](const Result& r) { return Exact(r.memory.kv_end_bytes); }},
    {"bytes_per_token", Always, [](const Result& r) { return Exact(r.memory.bytes_per_token); }},
    {"ratio_end", Always, [](const Result& r) { return Exact(r.memory.ratio_end); }},
    {"ratio_mean", Always, [](const Result& r) { return Exact(r.memory.ratio_mean); }},
};

const Figure* FindFigure(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kFigures), std::end(kFigures),
                                         [&](const Figure& f) { return f.name == name; });
  return found == std::end(kFigures) ? nullptr : found;
}

EvalCheck::Reference ParseReference(const std::string& word, std::string_view where,
                                    std::span<const EvalCase> cases) {
  const size_t dot = word.rfind('.');
  const EvalCheck::Reference reference = {
      word.substr(0, dot), dot == std::string::npos ? std::string() : word.substr(dot + 1)};
  if (FindFigure(reference.figure) == nullptr) {
    std::vector<std::string_view> names;
    for (const Figure& figure : kFigures) names.push_back(figure.name);
    Fail(Code::kUsage, "{}: {}: CASE.FIGURE is expected, with one of {}", where, Quoted(word),
         fmt::join(names, ", "));
  }
  if (std::none_of(cases.begin(), cases.end(),
                   [&](const EvalCase& c) { return c.label == reference.case_label; })) {
    Fail(Code::kUsage, "{}: there is no case {}", where, Quoted(reference.case_label));
  }
  return reference;
}

double ParseNumber(const std::string& word, std::string_view where) {
  double number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || end != word.data() + word.size()) {
    Fail(Code::kUsage, "{}: {}: a number is expected", where, Quoted(word));
  }
  return number;
}

// With words: suite, left, comparison, number, and perhaps * and right.
EvalCheck ParseCheck(const std::vector<std::string>& words, const std::string& where,
                     std::span<const EvalCase> cases) {
  constexpr std::string_view kComparisons[] = {"<=", "<", ">=", ">"};
  const bool form = (words.size() == 4 || (words.size() == 6 && words[4] == "*")) &&
                    std::find(std::begin(kComparisons), std::end(kComparisons), words[2]) !=
                        std::end(kComparisons);
  if (!form) {
    Fail(Code::kUsage,
         "{}: {}: expected SUITE CASE.FIGURE <=|<|>=|> NUMBER [* CASE.FIGURE], words apart", where,
         Quoted(fmt::format("{}", fmt::join(words, " "))));
  }
  EvalCheck check;
  check.text = fmt::format("{}", fmt::join(words, " "));
  check.where = where;
  check.suite = words[0];
  check.left = ParseReference(words[1], where, cases);
  check.comparison = words[2];
  check.factor = ParseNumber(words[3], where);
  if (words.size() == 6) check.right = ParseReference(words[5], where, cases);
  return check;
}

bool Concerns(const EvalCheck& check, const EvalResult& result) {
  return result.suite == check.suite || result.task == check.suite;
}

Estimate ValueOf(const EvalCheck& check, const EvalCheck::Reference& reference,
                 const EvalResult& result) {
  const Figure& figure = *FindFigure(reference.figure);
  if (!figure.there(result)) {
    Fail(Code::kUsage, "{}: {} has no {}", check.where, result.task, reference.figure);
  }
  return figure.value(result);
}

// The bound's other case in the same suite, task, mode and length.
const EvalResult& Beside(const EvalCheck& check, const EvalResult& left, const EvalReport& report) {
  for (const EvalResult& result : report.results) {
    if (result.case_label == check.right->case_label && result.spec == left.spec &&
        result.task == left.task && result.mode == left.mode && result.length == left.length) {
      return result;
    }
  }
  Fail(Code::kUsage, "{}: {} has no result of {}", check.where, check.suite,
       check.right->case_label);
}

bool Holds(const EvalCheck& check, const Estimate& value, double bound) {
  const Interval range = value.interval.value_or(Interval{value.v, value.v});
  if (check.comparison == "<=") return range.lo <= bound;
  if (check.comparison == "<") return range.lo < bound;
  if (check.comparison == ">=") return range.hi >= bound;
  return range.hi > bound;
}

}  // namespace

std::vector<EvalCheck> ParseChecks(std::string_view text, std::string_view where,
                                   std::span<const EvalCase> cases) {
  std::vector<EvalCheck> checks;
  std::istringstream lines{std::string(text)};
  size_t n = 0;
  for (std::string line; std::getline(lines, line);) {
    ++n;
    std::istringstream stream(line.substr(0, line.find('#')));
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    if (words.empty()) continue;
    checks.push_back(ParseCheck(words, fmt::format("{}, line {}", where, n), cases));
  }
  return checks;
}

std::vector<std::string> FailedChecks(std::span<const EvalCheck> checks, const EvalReport& report) {
  std::vector<std::string> failed;
  for (const EvalCheck& check : checks) {
    bool any = false;
    for (const EvalResult& result : report.results) {
      if (!Concerns(check, result) || result.case_label != check.left.case_label) continue;
      any = true;
      const Estimate value = ValueOf(check, check.left, result);
      double bound = check.factor;
      if (check.right) bound *= ValueOf(check, *check.right, Beside(check, result, report)).v;
      if (Holds(check, value, bound)) continue;
      std::string interval;
      if (value.interval) {
        interval = fmt::format(" [{:.6g}, {:.6g}]", value.interval->lo, value.interval->hi);
      }
      failed.push_back(fmt::format("{}: {}: {} {} has {:.6g}{}, the bound is {:.6g}", check.where,
                                   check.text, result.task, result.mode, value.v, interval, bound));
    }
    if (!any) {
      Fail(Code::kUsage, "{}: there is no result of {} in {}", check.where, check.left.case_label,
           check.suite);
    }
  }
  return failed;
}

}  // namespace kvasir
