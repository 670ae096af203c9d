#include "text/jinja/filters.h"

#include <algorithm>
#include <charconv>

#include "text/jinja/strings.h"

namespace kvasir::jinja {

const Callable* FindFilter(std::string_view name) {
  for (const std::span<const Callable> group :
       {TextFilters(), NumberFilters(), ListFilters(), ChoiceFilters()}) {
    const auto found = std::ranges::find(group, name, &Callable::name);
    if (found != group.end()) return &*found;
  }
  return nullptr;
}

Value AtPath(Value value, const Value& path, const Value* otherwise, Meter& meter) {
  const auto step = [&](const Value& key) {
    value = Item(value, key, meter);
    if (value.IsUndefined() && otherwise != nullptr && !otherwise->IsNone()) value = *otherwise;
  };
  const std::string* text = path.string();
  if (text == nullptr) {
    step(path);
    return value;
  }
  const std::string dot(1, '.');
  for (const std::string_view part : Split(*text, &dot, -1, meter)) {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_number = error == std::errc() && end == part.data() + part.size() && number >= 0;
    step(is_number ? Value::Of(number) : MakeString(std::string(part), meter));
  }
  return value;
}

Value SortKey(const Value& element, const Value* path, bool case_sensitive, Meter& meter) {
  Value key = path == nullptr || path->IsNone() ? element : AtPath(element, *path, nullptr, meter);
  if (key.string() == nullptr || case_sensitive) return key;
  return MakeString(Lower(*key.string()), meter);
}

}  // namespace kvasir::jinja
