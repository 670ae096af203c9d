// Template source to trees. Everything outside the subset is refused here, by name and line.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace kvasir::jinja {

// Errors: kCorrupt (syntax), kUnsupported (statements, filters, tests, methods and forms not
// known).
Body Parse(std::string_view source);

}  // namespace kvasir::jinja
