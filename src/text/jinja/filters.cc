// The filters of callable.h.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "text/jinja/callable.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"

namespace kvasir::jinja {

namespace {

Value Generator(std::vector<Value> elements, Meter& meter) {
  return MakeList(std::move(elements), meter, List::Kind::kGenerator);
}
bool IsGenerator(const Value& value) {
  return value.list() != nullptr && value.list()->kind == List::Kind::kGenerator;
}

Value Absolute(const Value& self, const Bound&, Meter& meter) {
  if (!self.IsNumber()) meter.Refuse("abs wants a number, not {}", TypeName(self));
  if (!self.IsInt()) return Value::Of(std::fabs(self.AsDouble()));
  const int64_t number = self.AsInt();
  if (number == std::numeric_limits<int64_t>::min()) meter.Refuse("abs leaves 64 bits");
  return Value::Of(number < 0 ? -number : number);
}

Value CapitalizeFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Capitalize(ToText(self, meter)), meter);
}
Value UpperFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Upper(ToText(self, meter)), meter);
}
Value LowerFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Lower(ToText(self, meter)), meter);
}
// Each run of characters after white space, "-" or an opening bracket is a word.
Value Title(const Value& self, const Bound&, Meter& meter) {
  const std::string text = ToText(self, meter);
  constexpr std::string_view kBorders = " \t\n\r\f\v-({[<";
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t border = std::min(text.find_first_of(kBorders, at), text.size());
    result += Capitalize(std::string_view(text).substr(at, border - at));
    at = std::min(text.find_first_not_of(kBorders, border), text.size());
    result.append(text, border, at - border);
  }
  return MakeString(std::move(result), meter);
}

Value Default(const Value& self, const Bound& arguments, Meter& meter) {
  const bool replaced = self.IsUndefined() || (arguments.Flag(1, false) && !Truthy(self));
  if (!replaced) return self;
  return arguments.Has(0) ? arguments[0] : MakeString("", meter);
}

Value First(const Value& self, const Bound&, Meter& meter) {
  const List* list = self.list();
  if (list != nullptr && !list->items.empty() && !IsGenerator(self)) return list->items.front();
  const std::vector<Value> elements = Elements(self, meter);
  return elements.empty() ? Value() : elements.front();
}
Value Last(const Value& self, const Bound&, Meter& meter) {
  if (IsGenerator(self)) meter.Refuse("a generator cannot be read from its end");
  const List* list = self.list();
  if (list != nullptr && !list->items.empty()) return list->items.back();
  const std::vector<Value> elements = Elements(self, meter);
  return elements.empty() ? Value() : elements.back();
}

// What Python's int() and float() read from text: white space around it and one "+" do not count.
template <typename T>
std::optional<T> Parsed(std::string_view text, Meter& meter) {
  text = Strip(text, Side::kBoth, nullptr, meter);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}
std::optional<double> ToDouble(const Value& value, Meter& meter) {
  if (value.IsNumber()) return value.AsDouble();
  if (value.string() != nullptr) return Parsed<double>(*value.string(), meter);
  return std::nullopt;
}
Value Float(const Value& self, const Bound& arguments, Meter& meter) {
  if (const std::optional<double> number = ToDouble(self, meter)) return Value::Of(*number);
  return arguments.Has(0) ? arguments[0] : Value::Of(0.0);
}
Value Int(const Value& self, const Bound& arguments, Meter& meter) {
  if (self.IsInt()) return Value::Of(self.AsInt());
  if (self.string() != nullptr) {
    const std::optional<int64_t> number = Parsed<int64_t>(*self.string(), meter);
    if (number.has_value()) return Value::Of(*number);
  }
  const std::optional<double> number = ToDouble(self, meter);
  if (number.has_value() && std::fabs(*number) < 0x1p63) {
    return Value::Of(static_cast<int64_t>(*number));
  }
  return arguments.Has(0) ? arguments[0] : Value::Of(int64_t{0});
}

Value Indent(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string text = ToText(self, meter) + "\n";
  std::string margin;
  if (arguments.Has(0) && arguments[0].string() != nullptr) {
    margin = *arguments[0].string();
  } else {
    const int64_t width = arguments.Int(0, 4, meter);
    meter.Bytes(static_cast<uint64_t>(std::max<int64_t>(width, 0)));
    margin.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const bool first = arguments.Flag(1, false), blank = arguments.Flag(2, false);
  std::string result;
  const std::vector<std::string_view> lines = SplitLines(text, false, meter);
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool indented = i == 0 ? first : blank || !lines[i].empty();
    meter.Bytes(lines[i].size() + (indented ? margin.size() : 0) + 1);
    if (i > 0) result += '\n';
    if (indented) result += margin;
    result += lines[i];
  }
  return MakeString(std::move(result), meter);
}

Value Items(const Value& self, const Bound&, Meter& meter) {
  if (self.IsUndefined()) return Generator({}, meter);
  if (self.dict() == nullptr) meter.Refuse("items wants a mapping, not {}", TypeName(self));
  return Generator(Pairs(*self.dict(), meter), meter);
}

// The part of `value` that a dotted path names, "a.0.b".
Value AtPath(Value value, const Value& path, Meter& meter) {
  const std::string* text = path.string();
  if (text == nullptr) return Item(value, path, meter);
  const std::string dot(1, '.');
  for (const std::string_view part : Split(*text, &dot, -1, meter)) {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_number = error == std::errc() && end == part.data() + part.size() && number >= 0;
    value =
        Item(value, is_number ? Value::Of(number) : MakeString(std::string(part), meter), meter);
  }
  return value;
}

Value Join(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string separator = arguments.Has(0) ? ToText(arguments[0], meter) : std::string();
  std::string result;
  bool first = true;
  for (Value element : Elements(self, meter)) {
    if (arguments.Has(1) && !arguments[1].IsNone()) element = AtPath(element, arguments[1], meter);
    if (!first) {
      meter.Bytes(separator.size());
      result += separator;
    }
    result += ToText(element, meter);
    first = false;
  }
  return MakeString(std::move(result), meter);
}

Value LengthFilter(const Value& self, const Bound&, Meter& meter) {
  return Value::Of(Length(self, meter));
}
Value ListFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeList(Elements(self, meter), meter);
}
Value Reverse(const Value& self, const Bound&, Meter& meter) {
  const bool was_generator = IsGenerator(self);
  std::vector<Value> elements = Elements(self, meter);
  std::ranges::reverse(elements);
  if (was_generator) return MakeList(std::move(elements), meter);
  if (self.string() == nullptr) return Generator(std::move(elements), meter);
  std::string text;
  for (const Value& element : elements) text += *element.string();
  return MakeString(std::move(text), meter);
}
Value String(const Value& self, const Bound&, Meter& meter) {
  return MakeString(ToText(self, meter), meter);
}
Value ReplaceFilter(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string text = ToText(self, meter), from = ToText(arguments[0], meter),
                    to = ToText(arguments[1], meter);
  return MakeString(Replace(text, from, to, arguments.Int(2, -1, meter), meter), meter);
}
Value Trim(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string text = ToText(self, meter);
  return MakeString(std::string(Strip(text, Side::kBoth, arguments.Text(0, meter), meter)), meter);
}

Value ToJsonFilter(const Value& self, const Bound& arguments, Meter& meter) {
  JsonStyle style;
  style.ensure_ascii = arguments.Flag(0, false);
  if (arguments.Has(1) && !arguments[1].IsNone()) {
    const bool is_text = arguments[1].string() != nullptr;
    const int64_t width = is_text ? 0 : std::max<int64_t>(arguments.Int(1, 0, meter), 0);
    meter.Bytes(static_cast<uint64_t>(width));
    style.indent = is_text ? *arguments[1].string() : std::string(static_cast<size_t>(width), ' ');
    style.item_separator.resize(1);  // no space before a line end
  }
  if (arguments.Has(2) && !arguments[2].IsNone()) {
    const std::vector<Value> separators = Elements(arguments[2], meter);
    if (separators.size() != 2 || separators[0].string() == nullptr ||
        separators[1].string() == nullptr) {
      meter.Refuse("tojson: separators are two strings");
    }
    style.item_separator = *separators[0].string();
    style.key_separator = *separators[1].string();
  }
  style.sort_keys = arguments.Flag(3, false);
  return MakeString(ToJson(self, style, meter), meter);
}

Value Unique(const Value& self, const Bound& arguments, Meter& meter) {
  std::vector<Value> kept, keys;
  for (const Value& element : Elements(self, meter)) {
    Value key =
        arguments.Has(1) && !arguments[1].IsNone() ? AtPath(element, arguments[1], meter) : element;
    if (key.string() != nullptr && !arguments.Flag(0, false)) {
      key = MakeString(Lower(*key.string()), meter);
    }
    const auto same = [&](const Value& other) { return Equal(key, other, meter); };
    if (std::ranges::any_of(keys, same)) continue;
    keys.push_back(std::move(key));
    kept.push_back(element);
  }
  return Generator(std::move(kept), meter);
}

const Value* Named(const Arguments& arguments, std::string_view name) {
  for (const auto& [key, value] : arguments.named) {
    if (key == name) return &value;
  }
  return nullptr;
}

// The callable that the argument at `at` names, and the arguments after it.
const Callable& Lookup(const Arguments& all, size_t at, const Callable* (*find)(std::string_view),
                       std::string_view what, Arguments* rest, Meter& meter) {
  const std::string* name = all.positional[at].string();
  const Callable* callable = name == nullptr ? nullptr : find(*name);
  if (callable == nullptr) {
    Fail(Code::kUnsupported, "chat template, line {}: the {} \"{}\"", meter.line, what,
         name == nullptr ? TypeName(all.positional[at]) : *name);
  }
  rest->positional.assign(all.positional.begin() + static_cast<ptrdiff_t>(at) + 1,
                          all.positional.end());
  rest->named = all.named;
  return *callable;
}

// map(attribute="a.b"[, default=x]) or map("filter", arguments...)
Value Map(const Value& self, const Bound& bound, Meter& meter) {
  const Arguments& all = bound.all();
  const Value* path = Named(all, "attribute");
  const Value* otherwise = Named(all, "default");
  std::vector<Value> results;
  if (path != nullptr) {
    for (const Value& element : Elements(self, meter)) {
      Value found = AtPath(element, *path, meter);
      results.push_back(found.IsUndefined() && otherwise != nullptr ? *otherwise : found);
    }
  } else if (!all.positional.empty()) {
    Arguments rest;
    const Callable& filter = Lookup(all, 0, FindFilter, "filter", &rest, meter);
    for (const Value& element : Elements(self, meter)) {
      results.push_back(Call(filter, element, rest, meter));
    }
  } else {
    meter.Refuse("map wants a filter or an attribute");
  }
  return Generator(std::move(results), meter);
}

// Elements for which a test holds (`wanted`) or fails: of themselves, or of an attribute.
Value Sieve(const Value& self, const Bound& bound, bool by_attribute, bool wanted, Meter& meter) {
  const Arguments& all = bound.all();
  const size_t at = by_attribute ? 1 : 0;
  if (by_attribute && all.positional.empty()) meter.Refuse("selecting by attribute wants its name");
  Arguments rest;
  const Callable* test =
      all.positional.size() > at ? &Lookup(all, at, FindTest, "test", &rest, meter) : nullptr;
  std::vector<Value> kept;
  for (const Value& element : Elements(self, meter)) {
    const Value tested = by_attribute ? AtPath(element, all.positional[0], meter) : element;
    const Value answer = test == nullptr ? tested : Call(*test, tested, rest, meter);
    if (Truthy(answer) == wanted) kept.push_back(element);
  }
  return Generator(std::move(kept), meter);
}
Value Select(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, false, true, meter);
}
Value Reject(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, false, false, meter);
}
Value SelectAttr(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, true, true, meter);
}
Value RejectAttr(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, true, false, meter);
}

constexpr Callable kFilters[] = {
    {"abs", "", Absolute},
    {"capitalize", "", CapitalizeFilter},
    {"count", "", LengthFilter},
    {"d", "default_value? boolean?", Default},
    {"default", "default_value? boolean?", Default},
    {"first", "", First},
    {"float", "default?", Float},
    {"indent", "width? first? blank?", Indent},
    {"int", "default?", Int},
    {"items", "", Items},
    {"join", "d? attribute?", Join},
    {"last", "", Last},
    {"length", "", LengthFilter},
    {"list", "", ListFilter},
    {"lower", "", LowerFilter},
    {"map", "*", Map},
    {"reject", "*", Reject},
    {"rejectattr", "*", RejectAttr},
    {"replace", "old new count?", ReplaceFilter},
    {"reverse", "", Reverse},
    {"select", "*", Select},
    {"selectattr", "*", SelectAttr},
    {"string", "", String},
    {"title", "", Title},
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", ToJsonFilter},
    {"trim", "chars?", Trim},
    {"unique", "case_sensitive? attribute?", Unique},
    {"upper", "", UpperFilter},
};

}  // namespace

const Callable* FindFilter(std::string_view name) {
  const auto* found = std::ranges::find(kFilters, name, &Callable::name);
  return found == std::end(kFilters) ? nullptr : found;
}

}  // namespace kvasir::jinja
