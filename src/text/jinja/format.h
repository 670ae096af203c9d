// Python's two ways to put values into a text: "%s" % x and "{}".format(x).
//
// Bound  Numbers have 64 bits; a field may be kMaxFieldWidth wide.
#pragma once

#include <string>

#include "text/jinja/callable.h"

namespace kvasir::jinja {

inline constexpr int64_t kMaxFieldWidth = 100'000;

// `escapes`: the format is Markup, so that what goes into it is escaped.
//
// `format % values`. Errors: kInvalid where Python raises; kUnsupported for %a.
std::string FormatPercent(const std::string& format, const Value& values, bool escapes,
                          Meter& meter);
// `format.format(arguments)`. Errors: likewise; kUnsupported for nested fields and the type n.
std::string FormatBraces(const std::string& format, const Arguments& arguments, bool escapes,
                         Meter& meter);

}  // namespace kvasir::jinja
