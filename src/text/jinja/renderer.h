// Walks a parsed template and writes its text.
#pragma once

#include <string>

#include "text/jinja/ast.h"

namespace kvasir::jinja {

// `context`: the variables that the template sees. Errors: kInvalid, with the template's own words
// from raise_exception; kUnsupported for filters and tests named by a value.
std::string Render(const Body& body, const Dict& context, const Limits& limits);

}  // namespace kvasir::jinja
