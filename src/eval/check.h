// Assertions about a report, one a line:
//
//   ppl kd.kl <= 0.05
//   ppl kd.kv_peak_bytes <= 0.5 * dense.kv_peak_bytes
//
// The first word is a suite or task; where several results have it, each must hold. An assertion
// fails only if the whole interval of its left side is on the wrong side of the bound. Empty lines
// and what follows a # are comments.
//
// Threads  Pure functions.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/report.h"

namespace kvasir {

struct EvalCheck {
  struct Reference {
    std::string case_label, figure;
  };
  std::string text;   // the line, for messages
  std::string where;  // "file, line 3"
  std::string suite;  // or task
  Reference left;
  std::string comparison;  // <= < >= >
  double factor = 0;       // the bound, or times `right`
  std::optional<Reference> right;
};

// Errors: kUsage naming `where` and the line (its form, a figure or a case that is not known).
std::vector<EvalCheck> ParseChecks(std::string_view text, std::string_view where,
                                   std::span<const EvalCase> cases);

// A line for each that fails, with value, interval and bound. Errors: kUsage for a suite or a
// figure that the report's results do not have.
std::vector<std::string> FailedChecks(std::span<const EvalCheck> checks, const EvalReport& report);

}  // namespace kvasir
