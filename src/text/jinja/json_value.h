// JSON from outside as values of a template, as Python's json reads it: the order of keys stays, a
// key that occurs again takes the later value, and integers keep all their digits.
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace kvasir::jinja {

// `where` opens error messages. Errors: kCorrupt for anything that is not one JSON value, kInvalid
// for one that nests deeper than kMaxValueDepth. Cost: some tens of times the text's size.
Value ParseJsonValue(std::string_view text, const std::string& where);

}  // namespace kvasir::jinja
