// The filters in their groups; FindFilter of callable.h looks through all of them.
#pragma once

#include <span>

#include "text/jinja/callable.h"

namespace kvasir::jinja {

std::span<const Callable> TextFilters();    // filters_text.cc
std::span<const Callable> NumberFilters();  // filters_number.cc
std::span<const Callable> ListFilters();    // filters_list.cc: orders, parts, sums
std::span<const Callable> ChoiceFilters();  // filters_choice.cc: map, select and their like

inline Value Generator(std::vector<Value> elements, Meter& meter) {
  return MakeList(std::move(elements), meter, List::Kind::kGenerator);
}
inline bool IsGenerator(const Value& value) {
  return value.list() != nullptr && value.list()->kind == List::Kind::kGenerator;
}

// The part of `value` that a dotted path names, "a.0.b". Where a part is undefined `otherwise`
// stands for it, if there is one.
Value AtPath(Value value, const Value& path, const Value* otherwise, Meter& meter);
// What is compared for `element`: it, or what `path` (if not null or none) names of it; strings in
// lower case unless `case_sensitive`.
Value SortKey(const Value& element, const Value* path, bool case_sensitive, Meter& meter);

}  // namespace kvasir::jinja
