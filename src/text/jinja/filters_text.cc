// Filters that make text.
#include <algorithm>
#include <iterator>

#include "text/jinja/filters.h"
#include "text/jinja/format.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"
#include "text/unicode_class.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

Value CapitalizeFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Capitalize(ToText(self, meter)), self, meter);
}
Value UpperFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Upper(ToText(self, meter)), self, meter);
}
Value LowerFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Lower(ToText(self, meter)), self, meter);
}
// Each run of characters after white space, "-" or an opening bracket is a word.
Value TitleFilter(const Value& self, const Bound&, Meter& meter) {
  const std::string text = ToText(self, meter);
  std::string result, word;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view unit = rest.substr(0, Utf8UnitLength(rest));
    rest.remove_prefix(unit.size());
    if (std::string_view("-({[<").find(unit) != std::string_view::npos ||
        IsUnicodeSpace(DecodeUtf8Unit(unit))) {
      result += Capitalize(word);
      word.clear();
      result += unit;
    } else {
      word += unit;
    }
  }
  return MakeString(result + Capitalize(word), meter);
}

Value CenterFilter(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string text = ToText(self, meter);
  return MakeString(Center(text, arguments.Int(0, 80, meter), " ", meter), self, meter);
}

Value EscapeFilter(const Value& self, const Bound&, Meter& meter) {
  if (self.Is<Markup>()) return self;
  return MakeMarkup(Escape(ToText(self, meter), meter), meter);
}
Value ForceEscape(const Value& self, const Bound&, Meter& meter) {
  return MakeMarkup(Escape(ToText(self, meter), meter), meter);
}
Value Safe(const Value& self, const Bound&, Meter& meter) {
  return self.Is<Markup>() ? self : MakeMarkup(ToText(self, meter), meter);
}
Value String(const Value& self, const Bound&, Meter& meter) {
  return self.string() != nullptr ? self : MakeString(ToText(self, meter), meter);
}

Value FormatFilter(const Value& self, const Bound& bound, Meter& meter) {
  const Arguments& all = bound.all();
  if (!all.positional.empty() && !all.named.empty()) {
    meter.Refuse("format takes values or named values, not both");
  }
  Value values;
  if (all.named.empty()) {
    values = MakeList(all.positional, meter, List::Kind::kTuple);
  } else {
    Dict dict;
    for (const auto& [name, value] : all.named) dict.Set(name, value);
    values = Value::Of(std::move(dict));
  }
  return MakeString(FormatPercent(ToText(self, meter), values, self.Is<Markup>(), meter), self,
                    meter);
}

Value Indent(const Value& self, const Bound& arguments, Meter& meter) {
  if (self.string() == nullptr) meter.Refuse("indent wants a string, not {}", TypeName(self));
  const std::string text = *self.string() + "\n";
  std::string margin;
  if (arguments.Has(0) && arguments[0].string() != nullptr) {
    margin = *arguments[0].string();
  } else {
    const int64_t width = std::max<int64_t>(arguments.Int(0, 4, meter), 0);
    meter.Bytes(static_cast<uint64_t>(width));
    margin.assign(static_cast<size_t>(width), ' ');
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
  return MakeString(std::move(result), self, meter);
}

Value Join(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string separator = arguments.Has(0) ? ToText(arguments[0], meter) : std::string();
  const bool by_path = arguments.Has(1) && !arguments[1].IsNone();
  std::string result;
  bool first = true;
  for (const Value& element : Elements(self, meter)) {
    if (!first) {
      meter.Bytes(separator.size());
      result += separator;
    }
    result += ToText(by_path ? AtPath(element, arguments[1], nullptr, meter) : element, meter);
    first = false;
  }
  return MakeString(std::move(result), meter);
}

Value ReplaceFilter(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string text = ToText(self, meter), from = ToText(arguments[0], meter),
                    to = ToText(arguments[1], meter);
  return MakeString(Replace(text, from, to, arguments.Int(2, -1, meter), meter), meter);
}
Value Trim(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string text = ToText(self, meter);
  return MakeString(std::string(Strip(text, Side::kBoth, arguments.Text(0, meter), meter)), self,
                    meter);
}

std::string_view FirstUnits(std::string_view text, int64_t n) {
  size_t end = 0;
  for (; n > 0 && end < text.size(); --n) end += Utf8UnitLength(text.substr(end));
  return text.substr(0, end);
}
Value Truncate(const Value& self, const Bound& arguments, Meter& meter) {
  const int64_t length = arguments.Int(0, 255, meter), leeway = arguments.Int(3, 5, meter);
  const std::string* given = arguments.Text(2, meter);
  const std::string end = given == nullptr ? "..." : *given;
  const auto end_length = static_cast<int64_t>(CountUnits(end));
  if (length < end_length || leeway < 0 || leeway > INT64_MAX - length) {
    meter.Refuse("truncate: a length below that of its end");
  }
  if (Length(self, meter) <= length + leeway) return self;
  if (self.string() == nullptr) meter.Refuse("truncate wants a string, not {}", TypeName(self));
  std::string_view kept = FirstUnits(*self.string(), length - end_length);
  const size_t space = arguments.Flag(1, false) ? std::string_view::npos : kept.rfind(' ');
  if (space != std::string_view::npos) kept = kept.substr(0, space);
  return MakeString(std::string(kept) + end, self, meter);
}

std::string Quoted(std::string_view text, bool query) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos;
    if (plain || (c == '/' && !query)) {
      result += c;
    } else if (c == ' ' && query) {
      result += '+';
    } else {
      result += fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
  return result;
}
Value UrlEncode(const Value& self, const Bound&, Meter& meter) {
  if (self.string() != nullptr || (self.list() == nullptr && self.dict() == nullptr)) {
    if (self.IsUndefined()) return MakeString("", meter);
    return MakeString(Quoted(ToText(self, meter), false), meter);
  }
  std::string result;
  const auto pairs = self.dict() != nullptr ? Pairs(*self.dict(), meter) : Elements(self, meter);
  for (const Value& item : pairs) {
    const std::vector<Value> pair = Elements(item, meter);
    if (pair.size() != 2) meter.Refuse("urlencode wants pairs");
    if (!result.empty()) result += '&';
    result += Quoted(ToText(pair[0], meter), true) + "=" + Quoted(ToText(pair[1], meter), true);
  }
  return MakeString(std::move(result), meter);
}

Value WordCount(const Value& self, const Bound&, Meter& meter) {
  const std::string text = ToText(self, meter);
  int64_t words = 0;
  bool inside = false;
  for (std::string_view rest = text; !rest.empty();) {
    const uint32_t c = DecodeUtf8Unit(rest.substr(0, Utf8UnitLength(rest)));
    rest.remove_prefix(Utf8UnitLength(rest));
    const bool word = c == '_' || InUnicodeClass(c, UnicodeClass::kAlphanumeric);
    words += word && !inside ? 1 : 0;
    inside = word;
    meter.Steps(1);
  }
  return Value::Of(words);
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

constexpr Callable kFilters[] = {
    {"capitalize", "", CapitalizeFilter},
    {"center", "width?", CenterFilter},
    {"e", "", EscapeFilter},
    {"escape", "", EscapeFilter},
    {"forceescape", "", ForceEscape},
    {"format", "*", FormatFilter},
    {"indent", "width? first? blank?", Indent},
    {"join", "d? attribute?", Join},
    {"lower", "", LowerFilter},
    {"replace", "old new count?", ReplaceFilter},
    {"safe", "", Safe},
    {"string", "", String},
    {"title", "", TitleFilter},
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", ToJsonFilter},
    {"trim", "chars?", Trim},
    {"truncate", "length? killwords? end? leeway?", Truncate},
    {"upper", "", UpperFilter},
    {"urlencode", "", UrlEncode},
    {"wordcount", "", WordCount},
};

}  // namespace

std::span<const Callable> TextFilters() { return kFilters; }

}  // namespace kvasir::jinja
