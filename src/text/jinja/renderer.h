// Walks a parsed template and writes its text.
#pragma once

#include <ctime>
#include <string>

#include "text/jinja/ast.h"

namespace kvasir::jinja {

// `context`: the variables that the template sees; `now`: what strftime_now formats. Errors:
// kInvalid, with the template's own words from raise_exception; kUnsupported for filters and tests
// named by a value.
std::string Render(const Body& body, const Dict& context, const Limits& limits, const std::tm& now);

}  // namespace kvasir::jinja
