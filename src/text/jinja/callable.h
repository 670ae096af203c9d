// Filters, tests and methods: functions of a value and arguments, found by name at parse time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace kvasir::jinja {

// Arguments as a call writes them.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Bound;
struct Callable {
  std::string_view name;
  // Names in order, those with "?" may be left out; "*" takes whatever comes.
  std::string_view parameters;
  Value (*function)(const Value& self, const Bound& arguments, Meter& meter);
};

// Arguments in the order of the parameters. Errors: kInvalid for missing, unknown and surplus ones.
class Bound {
 public:
  Bound(const Callable& callable, Arguments arguments, Meter& meter);

  bool Has(size_t i) const { return i < values_.size() && values_[i].has_value(); }
  const Value& operator[](size_t i) const { return *values_[i]; }
  // Typed access for one that may be left out or none. Errors: kInvalid for another type.
  const std::string* Text(size_t i, Meter& meter) const;  // null when absent or none
  int64_t Int(size_t i, int64_t otherwise, Meter& meter) const;
  bool Flag(size_t i, bool otherwise) const;
  const Arguments& all() const { return all_; }  // with "*"

 private:
  const Callable& callable_;
  std::vector<std::optional<Value>> values_;
  Arguments all_;
};

Value Call(const Callable& callable, const Value& self, Arguments arguments, Meter& meter);

// Null when unknown.
const Callable* FindFilter(std::string_view name);
const Callable* FindTest(std::string_view name);
const Callable* FindMethod(std::string_view name);
// Whether Python's type of `value` has a method of this name, which x.name would mean.
bool IsMethodOf(const Value& value, std::string_view name);

// x.name and x["name"] or x[0] as jinja2 looks them up: undefined when there is no such thing.
// Errors: kInvalid on an undefined `object`.
Value Attribute(const Value& object, const std::string& name, Meter& meter);
Value Item(const Value& object, const Value& key, Meter& meter);

}  // namespace kvasir::jinja
