// What an output is worth against its references, by rules that a program can apply.
//
//   all            share of references that occur in the output; ASCII letters of either case
//   any            1 if one of them does
//   exact          as `all`, letters must agree
//   first_integer  1 if the first run of digits in the output is the (only) reference
//   answer         1 if the final-answer line says what the (only) reference says
//
// A reference has to occur in one piece: a uuid broken over two lines does not count. Words are no
// borders: "no" occurs in "north". Where text ends (end of turn, a stop text) is up to the caller.
//
// The final-answer line is the first line whose first word is "answer", after marks (* # > - ` and
// spaces) and the words "the", "so", "my", "final", followed by a colon, "is" or "=", and something
// to read. Readings: integers, in order, without leading zeros, whatever stands between them; where
// the reference is one integer, commas between digits are skipped. A reference without digits is
// compared as a text, without case and marks around it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kvasir {

enum class Metric { kAll, kAny, kExact, kFirstInteger, kAnswer };

std::string_view Name(Metric metric);
std::optional<Metric> FindMetric(std::string_view name);

// From 0 to 1; without references 0.
double Score(Metric metric, std::span<const std::string> refs, std::string_view output);

// Where the final-answer line's value stands in `output`. The line is whole once a newline follows
// at `end`; generation may stop there.
struct AnswerPlace {
  size_t begin = 0, end = 0;
};
std::optional<AnswerPlace> FindAnswer(std::string_view output);

}  // namespace kvasir
