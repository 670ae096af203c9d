#include "text/jinja/print.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "text/unicode_class.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

bool IsPrintable(uint32_t c) {
  if (c < 0x7F) return c >= 0x20;
  return !InUnicodeClass(c, UnicodeClass::kUnprintable);
}

std::string ReprOf(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string result(1, quote);
  for (size_t at = 0; at < text.size();) {
    const std::string_view unit = text.substr(at, Utf8UnitLength(text.substr(at)));
    const uint32_t c = DecodeUtf8Unit(unit);
    if (c == static_cast<uint32_t>(quote) || c == '\\') {
      result += '\\';
      result += unit;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (IsPrintable(c)) {
      result += unit;
    } else {
      result += c < 0x100     ? fmt::format("\\x{:02x}", c)
                : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                              : fmt::format("\\U{:08x}", c);
    }
    at += unit.size();
  }
  return result + quote;
}

class Printer {
 public:
  explicit Printer(Meter& meter) : meter_(meter) {}

  std::string Take() { return std::move(out_); }

  void Repr(const Value& value) {
    meter_.Steps(1);
    if (const std::string* text = value.string()) {
      Put(value.Is<Markup>() ? fmt::format("Markup({})", ReprOf(*text)) : ReprOf(*text));
    } else if (const List* list = value.list(); list != nullptr && list->has_text()) {
      const bool is_tuple = list->kind == List::Kind::kTuple;
      Put(is_tuple ? "(" : "[");
      for (size_t i = 0; i < list->items.size(); ++i) {
        if (i > 0) Put(", ");
        Repr(list->items[i]);
      }
      if (is_tuple) Put(list->items.size() == 1 ? ",)" : ")");
      if (!is_tuple) Put("]");
    } else if (list != nullptr && list->kind == List::Kind::kRange) {
      Put(RangeText(*list));
    } else if (const Dict* dict = value.dict()) {
      Put("{");
      for (size_t i = 0; i < dict->items.size(); ++i) {
        if (i > 0) Put(", ");
        Put(ReprOf(dict->items[i].first));
        Put(": ");
        Repr(dict->items[i].second);
      }
      Put("}");
    } else if (value.IsUndefined()) {
      Put("Undefined");
    } else {
      Put(ScalarText(value));
    }
  }

  static std::string RangeText(const List& range) {
    const std::vector<Value>& items = range.items;
    if (items.empty()) return "range(0, 0)";
    const int64_t first = items[0].AsInt();
    const int64_t step = items.size() < 2 ? 1 : items[1].AsInt() - first;
    const int64_t end = items.back().AsInt() + step;
    return step == 1 ? fmt::format("range({}, {})", first, end)
                     : fmt::format("range({}, {}, {})", first, end, step);
  }
  std::string ScalarText(const Value& value) const {
    if (value.IsNone()) return "None";
    if (value.Is<bool>()) return value.AsInt() != 0 ? "True" : "False";
    if (value.IsInt()) return fmt::format("{}", value.AsInt());
    if (value.Is<double>()) return FloatText(value.AsDouble());
    if (value.Is<BigInt>()) return *std::get<BigInt>(value.data()).digits;
    if (const Loop* loop = value.loop()) {
      return fmt::format("<LoopContext {}/{}>", loop->index + 1, loop->items.size());
    }
    meter_.Refuse("a {} has no text", TypeName(value));
  }

 private:
  void Put(std::string_view text) {
    meter_.Bytes(text.size());
    out_ += text;
  }

  Meter& meter_;
  std::string out_;
};

class JsonPrinter {
 public:
  JsonPrinter(const JsonStyle& style, Meter& meter) : style_(style), meter_(meter) {}

  std::string Take() { return std::move(out_); }

  void Print(const Value& value, size_t level) {
    meter_.Steps(1);
    if (const std::string* text = value.string()) {
      String(*text);
    } else if (const List* list = value.list(); list != nullptr && list->has_text()) {
      Group('[', ']', list->items.size(), level,
            [&](size_t i) { Print(list->items[i], level + 1); });
    } else if (const Dict* dict = value.dict()) {
      std::vector<size_t> order(dict->items.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      if (style_.sort_keys) {
        std::ranges::sort(order, {},
                          [&](size_t i) { return std::string_view(dict->items[i].first); });
      }
      Group('{', '}', order.size(), level, [&](size_t i) {
        String(dict->items[order[i]].first);
        Put(style_.key_separator);
        Print(dict->items[order[i]].second, level + 1);
      });
    } else {
      Scalar(value);
    }
  }

 private:
  template <typename F>
  void Group(char open, char close, size_t n, size_t level, F&& element) {
    Put(std::string_view(&open, 1));
    for (size_t i = 0; i < n; ++i) {
      if (i > 0) Put(style_.item_separator);
      NewLine(level + 1);
      element(i);
    }
    if (n > 0) NewLine(level);
    Put(std::string_view(&close, 1));
  }
  void NewLine(size_t level) {
    if (!style_.indent.has_value()) return;
    Put("\n");
    for (size_t i = 0; i < level; ++i) Put(*style_.indent);
  }

  void Scalar(const Value& value) {
    if (value.IsNone()) {
      Put("null");
    } else if (value.Is<bool>()) {
      Put(value.AsInt() != 0 ? "true" : "false");
    } else if (value.IsInt()) {
      Put(fmt::format("{}", value.AsInt()));
    } else if (value.Is<BigInt>()) {
      Put(*std::get<BigInt>(value.data()).digits);
    } else if (value.Is<double>()) {
      const double number = value.AsDouble();
      Put(std::isnan(number)   ? "NaN"
          : std::isinf(number) ? (number < 0 ? "-Infinity" : "Infinity")
                               : FloatText(number));
    } else {
      meter_.Refuse("tojson: JSON has no {}", TypeName(value));
    }
  }

  void String(std::string_view text) {
    std::string quoted = "\"";
    for (size_t at = 0; at < text.size();) {
      const std::string_view unit = text.substr(at, Utf8UnitLength(text.substr(at)));
      Character(unit, DecodeUtf8Unit(unit), &quoted);
      at += unit.size();
    }
    Put(quoted + '"');
  }
  void Character(std::string_view unit, uint32_t c, std::string* quoted) const {
    constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f";
    constexpr std::string_view kLetters = "\"\\nrtbf";
    const size_t at = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (at != std::string_view::npos) {
      *quoted += '\\';
      *quoted += kLetters[at];
    } else if (c < 0x20 || (style_.ensure_ascii && c > 0x7F && c < 0x10000)) {
      *quoted += fmt::format("\\u{:04x}", c);
    } else if (style_.ensure_ascii && c >= 0x10000 && c <= 0x10FFFF) {
      *quoted += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10),
                             0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      *quoted += unit;
    }
  }
  void Put(std::string_view text) {
    meter_.Bytes(text.size());
    out_ += text;
  }

  const JsonStyle& style_;
  Meter& meter_;
  std::string out_;
};

}  // namespace

// The shortest digits that read back, with a point or an exponent, as Python's repr has it.
std::string FloatText(double number) {
  std::string text = fmt::format("{}", number);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

std::string ToRepr(const Value& value, Meter& meter) {
  Printer printer(meter);
  printer.Repr(value);
  return printer.Take();
}

std::string ToText(const Value& value, Meter& meter) {
  meter.Steps(1);
  if (value.IsUndefined()) return {};
  if (const std::string* text = value.string()) {
    meter.Bytes(text->size());
    return *text;
  }
  return ToRepr(value, meter);
}

std::string ToJson(const Value& value, const JsonStyle& style, Meter& meter) {
  JsonPrinter printer(style, meter);
  printer.Print(value, 0);
  return printer.Take();
}

}  // namespace kvasir::jinja
