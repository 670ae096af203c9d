// Values as text: Python's str() and repr(), and json.dumps as transformers calls it.
#pragma once

#include <optional>
#include <string>

#include "text/jinja/value.h"

namespace kvasir::jinja {

// Errors: kInvalid for values that Python prints with an address (namespaces, macros).
std::string ToText(const Value& value, Meter& meter);
std::string ToRepr(const Value& value, Meter& meter);
std::string FloatText(double number);

struct JsonStyle {
  std::optional<std::string> indent;  // of one level; absent: all on one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ensure_ascii = false;
};
// Errors: kInvalid for values that JSON lacks.
std::string ToJson(const Value& value, const JsonStyle& style, Meter& meter);

}  // namespace kvasir::jinja
