// Python's operators on values. Integers have 64 bits here: what leaves them is refused.
#pragma once

#include "text/jinja/ast.h"

namespace kvasir::jinja {

// Arithmetic (kAdd to kPower) and comparisons (kEqual to kNotIn). Errors: kInvalid for types that
// Python does not combine, division by zero, overflow.
Value Combine(Op op, const Value& a, const Value& b, Meter& meter);
Value Negative(const Value& value, Meter& meter);
// value[begin:end:step], each undefined or none where left out.
Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step,
            Meter& meter);

}  // namespace kvasir::jinja
