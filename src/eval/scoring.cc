#include "eval/scoring.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace kvasir {

namespace {

struct NamedMetric {
  Metric metric;
  std::string_view name;
};
constexpr NamedMetric kMetrics[] = {
    {Metric::kAll, "all"},       {Metric::kAny, "any"},
    {Metric::kExact, "exact"},   {Metric::kFirstInteger, "first_integer"},
    {Metric::kAnswer, "answer"},
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool IsLetter(char c) { return Lower(c) >= 'a' && Lower(c) <= 'z'; }

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return Lower(c); });
  return lower;
}

size_t Found(std::span<const std::string> refs, std::string_view output, bool any_case) {
  const std::string text = any_case ? Lower(output) : std::string(output);
  return static_cast<size_t>(std::count_if(refs.begin(), refs.end(), [&](const std::string& ref) {
    return !ref.empty() && text.find(any_case ? Lower(ref) : ref) != std::string::npos;
  }));
}

std::string_view WithoutLeadingZeros(std::string_view digits) {
  const size_t first = std::min(digits.find_first_not_of('0'), digits.size() - 1);
  return digits.substr(first);
}

// Integers in the order of the text; `grouped`: "12,345" is one.
std::vector<std::string> Integers(std::string_view text, bool grouped) {
  std::vector<std::string> integers;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!IsDigit(text[i])) continue;
    const bool negative = i > 0 && text[i - 1] == '-' &&
                          (i == 1 || (!IsDigit(text[i - 2]) && !IsLetter(text[i - 2])));
    std::string digits;
    for (; i < text.size(); ++i) {
      if (IsDigit(text[i])) {
        digits += text[i];
      } else if (!grouped || text[i] != ',' || i + 1 == text.size() || !IsDigit(text[i + 1])) {
        break;
      }
    }
    const std::string_view value = WithoutLeadingZeros(digits);
    integers.push_back(fmt::format("{}{}", negative && value != "0" ? "-" : "", value));
  }
  return integers;
}

bool FirstIntegerIs(std::string_view ref, std::string_view output) {
  const auto* const first = std::find_if(output.begin(), output.end(), IsDigit);
  const auto* const last = std::find_if_not(first, output.end(), IsDigit);
  return !ref.empty() && ref == std::string_view(first, last);
}

constexpr std::string_view kMarks = " \t\r*#>-`_$\"'.";

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kMarks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kMarks) - first + 1);
}

bool AnswerIs(std::string_view ref, std::string_view output) {
  const std::optional<AnswerPlace> place = FindAnswer(output);
  if (!place) return false;
  const std::string_view value = output.substr(place->begin, place->end - place->begin);
  const std::vector<std::string> expected = Integers(ref, /*grouped=*/false);
  if (expected.empty())
    return !Trimmed(ref).empty() && Lower(Trimmed(ref)) == Lower(Trimmed(value));
  return Integers(value, /*grouped=*/expected.size() == 1) == expected;
}

// Takes `word` and the marks after it off the front; false when the text opens otherwise.
bool Skip(std::string_view word, std::string_view* text) {
  if (text->size() < word.size() || Lower(text->substr(0, word.size())) != word) return false;
  if (text->size() > word.size() && IsLetter((*text)[word.size()])) return false;
  text->remove_prefix(word.size());
  text->remove_prefix(std::min(text->find_first_not_of(kMarks), text->size()));
  return true;
}

// The value's part of a line, or empty when it is no final-answer line.
std::string_view AnswerIn(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(kMarks), line.size()));
  while (Skip("the", &line) || Skip("so", &line) || Skip("my", &line) || Skip("final", &line)) {
  }
  if (!Skip("answer", &line)) return {};
  if (line.empty()) return {};
  const bool opens = line[0] == ':' || line[0] == '=';
  if (opens) line.remove_prefix(1);
  if (!opens && !Skip("is", &line)) return {};
  while (!line.empty() && (line[0] == ':' || line[0] == ' ' || line[0] == '*')) {
    line.remove_prefix(1);
  }
  return Trimmed(line).empty() ? std::string_view{} : line;
}

}  // namespace

std::string_view Name(Metric metric) {
  const auto* const found =
      std::find_if(std::begin(kMetrics), std::end(kMetrics),
                   [&](const NamedMetric& named) { return named.metric == metric; });
  CHECK(found != std::end(kMetrics));
  return found->name;
}

std::optional<Metric> FindMetric(std::string_view name) {
  const auto* const found =
      std::find_if(std::begin(kMetrics), std::end(kMetrics),
                   [&](const NamedMetric& named) { return named.name == name; });
  if (found == std::end(kMetrics)) return std::nullopt;
  return found->metric;
}

double Score(Metric metric, std::span<const std::string> refs, std::string_view output) {
  if (refs.empty()) return 0;
  const auto share = [&](size_t found) {
    return static_cast<double>(found) / static_cast<double>(refs.size());
  };
  switch (metric) {
    case Metric::kAll:
      return share(Found(refs, output, /*any_case=*/true));
    case Metric::kAny:
      return Found(refs, output, /*any_case=*/true) > 0 ? 1 : 0;
    case Metric::kExact:
      return share(Found(refs, output, /*any_case=*/false));
    case Metric::kFirstInteger:
      return FirstIntegerIs(refs[0], output) ? 1 : 0;
    case Metric::kAnswer:
      return AnswerIs(refs[0], output) ? 1 : 0;
  }
  return 0;
}

std::optional<AnswerPlace> FindAnswer(std::string_view output) {
  for (size_t begin = 0; begin < output.size();) {
    const size_t end = std::min(output.find('\n', begin), output.size());
    const std::string_view value = AnswerIn(output.substr(begin, end - begin));
    if (!value.empty()) return AnswerPlace{end - value.size(), end};
    begin = end + 1;
  }
  return std::nullopt;
}

}  // namespace kvasir
