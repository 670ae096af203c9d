// The methods of strings, dicts and lists of callable.h.
#include <algorithm>
#include <array>
#include <iterator>

#include "text/jinja/callable.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"

namespace kvasir::jinja {

namespace {

const std::string& Text(const Value& self, std::string_view method, const Meter& meter) {
  if (self.string() == nullptr) meter.Refuse("{} has no method \"{}\"", TypeName(self), method);
  return *self.string();
}
const Dict& DictOf(const Value& self, std::string_view method, const Meter& meter) {
  if (self.dict() == nullptr) meter.Refuse("{} has no method \"{}\"", TypeName(self), method);
  return *self.dict();
}

Value Stripped(const Value& self, const Bound& arguments, Side side, Meter& meter) {
  const std::string& text = Text(self, "strip", meter);
  return MakeString(std::string(Strip(text, side, arguments.Text(0, meter), meter)), meter);
}
Value StripMethod(const Value& self, const Bound& arguments, Meter& meter) {
  return Stripped(self, arguments, Side::kBoth, meter);
}
Value LeftStrip(const Value& self, const Bound& arguments, Meter& meter) {
  return Stripped(self, arguments, Side::kLeft, meter);
}
Value RightStrip(const Value& self, const Bound& arguments, Meter& meter) {
  return Stripped(self, arguments, Side::kRight, meter);
}

Value Strings(const std::vector<std::string_view>& parts, Meter& meter) {
  std::vector<Value> values;
  for (const std::string_view part : parts) values.push_back(MakeString(std::string(part), meter));
  return MakeList(std::move(values), meter);
}
Value SplitMethod(const Value& self, const Bound& arguments, Meter& meter) {
  return Strings(Split(Text(self, "split", meter), arguments.Text(0, meter),
                       arguments.Int(1, -1, meter), meter),
                 meter);
}
Value RightSplit(const Value& self, const Bound& arguments, Meter& meter) {
  return Strings(SplitFromRight(Text(self, "rsplit", meter), arguments.Text(0, meter),
                                arguments.Int(1, -1, meter), meter),
                 meter);
}
Value SplitLinesMethod(const Value& self, const Bound& arguments, Meter& meter) {
  return Strings(SplitLines(Text(self, "splitlines", meter), arguments.Flag(0, false), meter),
                 meter);
}

// Whether `fits` holds for the argument, or for one of the strings in a tuple.
template <typename F>
Value AnyOf(const Bound& arguments, Meter& meter, F&& fits) {
  const List* list = arguments[0].list();
  if (list == nullptr) {
    const std::string* text = arguments.Text(0, meter);
    if (text == nullptr) meter.Refuse("the method wants a string, not {}", TypeName(arguments[0]));
    return Value::Of(fits(*text));
  }
  for (const Value& item : list->items) {
    meter.Steps(1);
    if (item.string() == nullptr) meter.Refuse("the method wants strings, not {}", TypeName(item));
    if (fits(*item.string())) return Value::Of(true);
  }
  return Value::Of(false);
}
Value StartsWith(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "startswith", meter);
  return AnyOf(arguments, meter, [&](const std::string& part) { return text.starts_with(part); });
}
Value EndsWith(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "endswith", meter);
  return AnyOf(arguments, meter, [&](const std::string& part) { return text.ends_with(part); });
}

Value UpperMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Upper(Text(self, "upper", meter)), meter);
}
Value LowerMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Lower(Text(self, "lower", meter)), meter);
}
Value CapitalizeMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Capitalize(Text(self, "capitalize", meter)), meter);
}
Value IsDigits(const Value& self, const Bound&, Meter& meter) {
  const std::string& text = Text(self, "isdigit", meter);
  return Value::Of(!text.empty() &&
                   std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }));
}

Value ReplaceMethod(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string* from = arguments.Text(0, meter);
  const std::string* to = arguments.Text(1, meter);
  if (from == nullptr || to == nullptr) meter.Refuse("replace wants two strings");
  return MakeString(
      Replace(Text(self, "replace", meter), *from, *to, arguments.Int(2, -1, meter), meter), meter);
}
Value FindMethodOfText(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "find", meter);
  const std::string* part = arguments.Text(0, meter);
  if (part == nullptr) meter.Refuse("find wants a string");
  const size_t hit = Find(text, *part, 0, meter);
  if (hit == std::string::npos) return Value::Of(int64_t{-1});
  return Value::Of(static_cast<int64_t>(CountUnits(std::string_view(text).substr(0, hit))));
}
Value Count(const Value& self, const Bound& arguments, Meter& meter) {
  int64_t count = 0;
  if (const List* list = self.list()) {
    for (const Value& item : list->items) count += Equal(item, arguments[0], meter) ? 1 : 0;
    return Value::Of(count);
  }
  const std::string& text = Text(self, "count", meter);
  const std::string* part = arguments.Text(0, meter);
  if (part == nullptr) meter.Refuse("count wants a string");
  if (part->empty()) return Value::Of(Length(self, meter) + 1);
  size_t at = 0;
  for (size_t hit; (hit = Find(text, *part, at, meter)) != std::string::npos; ++count) {
    at = hit + part->size();
  }
  return Value::Of(count);
}
Value JoinMethod(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& separator = Text(self, "join", meter);
  std::string result;
  bool first = true;
  for (const Value& element : Elements(arguments[0], meter)) {
    if (element.string() == nullptr) meter.Refuse("join wants strings, not {}", TypeName(element));
    meter.Bytes(separator.size() + element.string()->size());
    if (!first) result += separator;
    result += *element.string();
    first = false;
  }
  return MakeString(std::move(result), meter);
}
Value RemovePrefix(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "removeprefix", meter);
  const std::string* part = arguments.Text(0, meter);
  return part != nullptr && text.starts_with(*part) ? MakeString(text.substr(part->size()), meter)
                                                    : self;
}
Value RemoveSuffix(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "removesuffix", meter);
  const std::string* part = arguments.Text(0, meter);
  return part != nullptr && text.ends_with(*part)
             ? MakeString(text.substr(0, text.size() - part->size()), meter)
             : self;
}

Value Get(const Value& self, const Bound& arguments, Meter& meter) {
  const Dict& dict = DictOf(self, "get", meter);
  const std::string* key = arguments[0].string();
  const Value* found = key == nullptr ? nullptr : dict.Find(*key);
  if (found != nullptr) return *found;
  return arguments.Has(1) ? arguments[1] : Value::NoneValue();
}
Value ItemsMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeList(Pairs(DictOf(self, "items", meter), meter), meter, List::Kind::kView);
}
Value Keys(const Value& self, const Bound&, Meter& meter) {
  DictOf(self, "keys", meter);
  return MakeList(Elements(self, meter), meter, List::Kind::kView);
}
Value Values(const Value& self, const Bound&, Meter& meter) {
  std::vector<Value> values;
  for (const auto& [key, value] : DictOf(self, "values", meter).items) values.push_back(value);
  return MakeList(std::move(values), meter, List::Kind::kView);
}

// Known so that a template that never gets there can be used; jinja2's sandbox stops there too.
Value Forbidden(const Value& self, const Bound&, Meter& meter) {
  meter.Refuse("templates may not change a {}", TypeName(self));
}

constexpr Callable kMethods[] = {
    {"append", "*", Forbidden},
    {"capitalize", "", CapitalizeMethod},
    {"clear", "*", Forbidden},
    {"count", "sub", Count},
    {"endswith", "suffix", EndsWith},
    {"extend", "*", Forbidden},
    {"find", "sub", FindMethodOfText},
    {"get", "key default?", Get},
    {"insert", "*", Forbidden},
    {"isdigit", "", IsDigits},
    {"items", "", ItemsMethod},
    {"join", "iterable", JoinMethod},
    {"keys", "", Keys},
    {"lower", "", LowerMethod},
    {"lstrip", "chars?", LeftStrip},
    {"pop", "*", Forbidden},
    {"removeprefix", "prefix", RemovePrefix},
    {"removesuffix", "suffix", RemoveSuffix},
    {"replace", "old new count?", ReplaceMethod},
    {"rsplit", "sep? maxsplit?", RightSplit},
    {"rstrip", "chars?", RightStrip},
    {"split", "sep? maxsplit?", SplitMethod},
    {"splitlines", "keepends?", SplitLinesMethod},
    {"startswith", "prefix", StartsWith},
    {"strip", "chars?", StripMethod},
    {"update", "*", Forbidden},
    {"upper", "", UpperMethod},
    {"values", "", Values},
};

constexpr std::array<std::string_view, 11> kDictMethods = {
    "clear", "copy",    "fromkeys",   "get",    "items", "keys",
    "pop",   "popitem", "setdefault", "update", "values"};
constexpr std::array<std::string_view, 11> kListMethods = {"append", "clear",   "copy",   "count",
                                                           "extend", "index",   "insert", "pop",
                                                           "remove", "reverse", "sort"};

}  // namespace

const Callable* FindMethod(std::string_view name) {
  const auto* found = std::ranges::find(kMethods, name, &Callable::name);
  return found == std::end(kMethods) ? nullptr : found;
}

bool IsMethodOf(const Value& value, std::string_view name) {
  if (value.dict() != nullptr) return std::ranges::find(kDictMethods, name) != kDictMethods.end();
  if (value.list() != nullptr) return std::ranges::find(kListMethods, name) != kListMethods.end();
  return value.string() != nullptr && FindMethod(name) != nullptr;
}

}  // namespace kvasir::jinja
