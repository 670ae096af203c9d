#include "text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

// One field's format, of either kind.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // < > ^ =
  char sign = '-';
  bool alternate = false, zero = false;
  char grouping = '\0';
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = '\0';
};

std::string Padded(std::string_view text, const Spec& spec, char align, Meter& meter) {
  const auto have = static_cast<int64_t>(CountUnits(text));
  const int64_t missing = std::max<int64_t>(spec.width - have, 0);
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  meter.Bytes(static_cast<uint64_t>(missing) * spec.fill.size());
  std::string result;
  for (int64_t i = 0; i < left; ++i) result += spec.fill;
  result += text;
  for (int64_t i = left; i < missing; ++i) result += spec.fill;
  return result;
}

std::string TextField(std::string_view text, const Spec& spec, char align, Meter& meter) {
  if (spec.precision.has_value()) {
    size_t end = 0;
    for (int64_t i = 0; i < *spec.precision && end < text.size(); ++i) {
      end += Utf8UnitLength(text.substr(end));
    }
    text = text.substr(0, end);
  }
  return Padded(text, spec, spec.align == '\0' ? align : spec.align, meter);
}

// Digits of a whole number without its sign, in the base that the type names.
std::string Digits(uint64_t magnitude, char type) {
  switch (type) {
    case 'x':
      return fmt::format("{:x}", magnitude);
    case 'X':
      return fmt::format("{:X}", magnitude);
    case 'o':
      return fmt::format("{:o}", magnitude);
    case 'b':
      return fmt::format("{:b}", magnitude);
    default:
      return fmt::format("{}", magnitude);
  }
}

std::string FloatDigits(double magnitude, const Spec& spec) {
  const char type = spec.type == '%' ? 'f' : spec.type;
  if (type == '\0' && !spec.precision.has_value()) return FloatText(magnitude);
  const auto precision = static_cast<int>(spec.precision.value_or(6));
  std::string form = "{:";
  if (spec.alternate) form += '#';
  form += fmt::format(".{}", precision);
  form += type == '\0' ? 'g' : type;
  std::string digits = fmt::format(fmt::runtime(form + "}"), magnitude);
  // Without a type a number shows that it is a float.
  if (type == '\0' && digits.find_first_not_of("0123456789") == std::string::npos) digits += ".0";
  return digits;
}

std::string Grouped(const std::string& digits, char separator) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string result;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % 3 == 0) result += separator;
    result += digits[i];
  }
  return result + digits.substr(end);
}

// Sign, prefix and digits, padded between them or around.
std::string NumberField(bool negative, std::string_view base, std::string digits, const Spec& spec,
                        Meter& meter) {
  if (spec.grouping != '\0') digits = Grouped(digits, spec.grouping);
  std::string prefix;
  if (negative || spec.sign != '-') prefix += negative ? '-' : spec.sign;
  prefix += base;
  const bool zeros = spec.zero && spec.align == '\0';
  if (zeros || spec.align == '=') {
    Spec inside = spec;
    if (zeros) inside.fill.assign(1, '0');
    inside.width -= static_cast<int64_t>(prefix.size());
    return prefix + Padded(digits, inside, '>', meter);
  }
  return Padded(prefix + digits, spec, spec.align == '\0' ? '>' : spec.align, meter);
}

std::string IntField(int64_t number, const Spec& spec, Meter& meter) {
  const bool negative = number < 0;
  const uint64_t magnitude =
      negative ? -static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  std::string prefix;
  if (spec.alternate && spec.type != 'd' && spec.type != '\0') prefix = {'0', spec.type};
  return NumberField(negative, prefix, Digits(magnitude, spec.type), spec, meter);
}

std::string FloatField(double number, const Spec& spec, Meter& meter) {
  const bool negative = std::signbit(number) && !std::isnan(number);
  const double magnitude = std::fabs(number) * (spec.type == '%' ? 100 : 1);
  meter.Bytes(static_cast<uint64_t>(spec.precision.value_or(6)) + 320);
  std::string digits = FloatDigits(magnitude, spec);
  if (spec.type == '%') digits += '%';
  return NumberField(negative, "", std::move(digits), spec, meter);
}

std::string CharacterField(const Value& value, Meter& meter) {
  if (!value.IsInt() || value.AsInt() < 0 || value.AsInt() > 0x10FFFF ||
      (value.AsInt() >= 0xD800 && value.AsInt() < 0xE000)) {
    meter.Refuse("a format wants a character, not {}", TypeName(value));
  }
  std::string text;
  AppendUtf8(static_cast<uint32_t>(value.AsInt()), &text);
  return text;
}

class Reader {
 public:
  Reader(std::string_view text, Meter& meter) : rest_(text), meter_(meter) {}

  bool empty() const { return rest_.empty(); }
  char Peek(size_t i = 0) const { return i < rest_.size() ? rest_[i] : '\0'; }
  void Skip(size_t n) { rest_.remove_prefix(n); }
  bool SkipIf(char c) {
    if (Peek() != c || rest_.empty()) return false;
    Skip(1);
    return true;
  }
  std::string_view UpTo(std::string_view ends) {
    const std::string_view part = rest_.substr(0, rest_.find_first_of(ends));
    Skip(part.size());
    return part;
  }
  std::string_view Unit() {
    const std::string_view unit = rest_.substr(0, Utf8UnitLength(rest_));
    Skip(unit.size());
    return unit;
  }
  std::string_view rest() const { return rest_; }
  std::optional<int64_t> Number() {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    if (Peek() == '-' || end == rest_.data()) return std::nullopt;
    if (error != std::errc() || number > kMaxFieldWidth) {
      meter_.Refuse("a format with a number beyond {}", kMaxFieldWidth);
    }
    Skip(static_cast<size_t>(end - rest_.data()));
    return number;
  }

 private:
  std::string_view rest_;
  Meter& meter_;
};

class PercentFormatter {
 public:
  PercentFormatter(const std::string& format, const Value& values, bool escapes, Meter& meter)
      : reader_(format, meter), values_(values), escapes_(escapes), meter_(meter) {
    const List* list = values.list();
    if (list != nullptr && list->kind == List::Kind::kTuple) items_ = list;
  }

  std::string Run() {
    std::string out;
    while (!reader_.empty()) {
      const std::string_view plain = reader_.UpTo("%");
      meter_.Bytes(plain.size());
      out += plain;
      if (!reader_.SkipIf('%')) break;
      meter_.Steps(1);
      out += Field();
    }
    const size_t given = items_ != nullptr ? items_->items.size() : 1;
    if (used_ < given && !(items_ == nullptr && values_.dict() != nullptr)) {
      meter_.Refuse("not all values of a format are used");
    }
    return out;
  }

 private:
  const Value& Next() {
    const size_t given = items_ != nullptr ? items_->items.size() : 1;
    if (used_ >= given) meter_.Refuse("too few values for a format");
    ++used_;
    return items_ != nullptr ? items_->items[used_ - 1] : values_;
  }
  int64_t NumberOrStar() {
    if (!reader_.SkipIf('*')) return reader_.Number().value_or(0);
    const Value& value = Next();
    if (!value.IsInt() || std::abs(value.AsInt() / 2) > kMaxFieldWidth / 2) {
      meter_.Refuse("a format's * wants a small integer");
    }
    return value.AsInt();
  }

  std::string Field() {
    const Value* value = nullptr;
    if (reader_.SkipIf('(')) {
      const std::string key(reader_.UpTo(")"));
      reader_.SkipIf(')');
      if (values_.dict() == nullptr) meter_.Refuse("a format with names wants a mapping");
      value = values_.dict()->Find(key);
      if (value == nullptr) meter_.Refuse("a format names \"{}\", which is not there", key);
    }
    Spec spec;
    bool left = false;
    for (;; reader_.Skip(1)) {
      const char c = reader_.Peek();
      if (c == '-') {
        left = true;
      } else if (c == '0') {
        spec.zero = true;
      } else if (c == '#') {
        spec.alternate = true;
      } else if (c == '+' || (c == ' ' && spec.sign != '+')) {
        spec.sign = c;
      } else if (c != ' ') {
        break;
      }
    }
    spec.width = NumberOrStar();
    if (spec.width < 0) left = true, spec.width = -spec.width;
    if (left) spec.align = '<';
    if (reader_.SkipIf('.')) spec.precision = std::max<int64_t>(NumberOrStar(), 0);
    while (reader_.Peek() == 'h' || reader_.Peek() == 'l' || reader_.Peek() == 'L') reader_.Skip(1);
    if (reader_.empty()) meter_.Refuse("a format ends in the middle of a field");
    spec.type = reader_.Peek();
    reader_.Skip(1);
    if (spec.type == '%') return "%";
    return Convert(value != nullptr ? *value : Next(), spec);
  }

  std::string Escaped(std::string text, const Value& value) {
    return escapes_ && !value.Is<Markup>() ? Escape(text, meter_) : text;
  }
  std::string Convert(const Value& value, Spec spec) {
    switch (spec.type) {
      case 's':
        return TextField(Escaped(ToText(value, meter_), value), spec, '>', meter_);
      case 'r':
        return TextField(Escaped(ToRepr(value, meter_), value), spec, '>', meter_);
      case 'c':
        if (value.string() != nullptr && CountUnits(*value.string()) == 1) {
          return TextField(*value.string(), spec, '>', meter_);
        }
        return TextField(CharacterField(value, meter_), spec, '>', meter_);
      case 'a':
        Fail(Code::kUnsupported, "chat template, line {}: the format %a", meter_.line);
      case 'd':
      case 'i':
      case 'u':
        spec.type = 'd';
        return Whole(value, spec, /*from_float=*/true);
      case 'x':
      case 'X':
      case 'o':
        return Whole(value, spec, /*from_float=*/false);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.IsNumber()) meter_.Refuse("a format wants a number, not {}", TypeName(value));
        return FloatField(value.AsDouble(), spec, meter_);
      default:
        meter_.Refuse("a format of the unknown type \"{}\"", spec.type);
    }
  }
  std::string Whole(const Value& value, const Spec& spec, bool from_float) {
    if (value.Is<BigInt>() && spec.type == 'd') {
      return TextField(ToText(value, meter_), spec, '>', meter_);
    }
    if (value.IsInt()) return WithPrecision(value.AsInt(), spec);
    if (!from_float || !value.Is<double>() || !(std::fabs(value.AsDouble()) < 0x1p63)) {
      meter_.Refuse("a format wants an integer, not {}", TypeName(value));
    }
    return WithPrecision(static_cast<int64_t>(value.AsDouble()), spec);
  }
  // Precision is the least number of digits.
  std::string WithPrecision(int64_t number, const Spec& spec) {
    if (!spec.precision.has_value()) return IntField(number, spec, meter_);
    Spec digits;
    digits.type = spec.type;
    digits.zero = true;
    digits.width = *spec.precision + (number < 0 ? 1 : 0);
    std::string text = IntField(number, digits, meter_);
    const bool negative = number < 0;
    return NumberField(negative, "", text.substr(negative ? 1 : 0), spec, meter_);
  }

  Reader reader_;
  const Value& values_;
  const List* items_ = nullptr;
  size_t used_ = 0;
  const bool escapes_;
  Meter& meter_;
};

class BraceFormatter {
 public:
  BraceFormatter(const std::string& format, const Arguments& arguments, bool escapes, Meter& meter)
      : reader_(format, meter), arguments_(arguments), escapes_(escapes), meter_(meter) {}

  std::string Run() {
    std::string out;
    while (!reader_.empty()) {
      const std::string_view plain = reader_.UpTo("{}");
      meter_.Bytes(plain.size());
      out += plain;
      if (reader_.empty()) break;
      meter_.Steps(1);
      const char brace = reader_.Peek();
      reader_.Skip(1);
      if (reader_.SkipIf(brace)) {
        out += brace;
      } else if (brace == '}') {
        meter_.Refuse("a format with a single \"}}\"");
      } else {
        out += Field();
      }
    }
    return out;
  }

 private:
  std::string Field() {
    Value value = Argument(std::string(reader_.UpTo(".[!:}{")));
    while (reader_.Peek() == '.' || reader_.Peek() == '[') {
      if (reader_.SkipIf('.')) {
        const std::string name(reader_.UpTo(".[!:}{"));
        value = Attribute(value, name, meter_);
      } else {
        reader_.Skip(1);
        const std::string key(reader_.UpTo("]"));
        if (!reader_.SkipIf(']')) meter_.Refuse("a format with an open bracket");
        int64_t index = 0;
        const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
        const bool whole = error == std::errc() && end == key.data() + key.size() && index >= 0;
        value = Item(value, whole ? Value::Of(index) : MakeString(key, meter_), meter_);
      }
      if (value.IsUndefined()) meter_.Refuse("a format names a part that is not there");
    }
    if (reader_.SkipIf('!')) {
      const char conversion = reader_.Peek();
      if (conversion != 's' && conversion != 'r') meter_.Refuse("a format's conversion is s or r");
      reader_.Skip(1);
      value = MakeString(conversion == 's' ? ToText(value, meter_) : ToRepr(value, meter_), meter_);
    }
    std::string_view spec;
    if (reader_.SkipIf(':')) spec = reader_.UpTo("{}");
    if (reader_.Peek() == '{') {
      Fail(Code::kUnsupported, "chat template, line {}: a field inside a format's field",
           meter_.line);
    }
    if (!reader_.SkipIf('}')) meter_.Refuse("a format's field is not closed");
    const std::string text = Convert(value, spec);
    return escapes_ && !value.Is<Markup>() ? Escape(text, meter_) : text;
  }

  Value Argument(const std::string& name) {
    int64_t index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool numbered =
        !name.empty() && error == std::errc() && index >= 0 && end == name.data() + name.size();
    if (name.empty() || numbered) {
      if (automatic_.value_or(name.empty()) != name.empty()) {
        meter_.Refuse("a format that numbers some fields and others not");
      }
      automatic_ = name.empty();
      const size_t at = name.empty() ? next_++ : static_cast<size_t>(index);
      if (at >= arguments_.positional.size()) meter_.Refuse("too few values for a format");
      return arguments_.positional[at];
    }
    for (const auto& [known, value] : arguments_.named) {
      if (known == name) return value;
    }
    meter_.Refuse("a format names \"{}\", which is not there", name);
  }

  // [[fill]align][sign][#][0][width][grouping][.precision][type]
  Spec ReadSpec(std::string_view text) {
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    Spec spec;
    Reader reader(text, meter_);
    const size_t first = text.empty() ? 0 : Utf8UnitLength(text);
    if (first > 0 && is_align(reader.Peek(first))) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      reader.Skip(first + 1);
    } else if (is_align(reader.Peek())) {
      spec.align = reader.Peek();
      reader.Skip(1);
    }
    if (const char c = reader.Peek(); c == '+' || c == '-' || c == ' ') {
      spec.sign = c;
      reader.Skip(1);
    }
    spec.alternate = reader.SkipIf('#');
    spec.zero = reader.SkipIf('0');
    spec.width = reader.Number().value_or(0);
    if (const char c = reader.Peek(); c == ',' || c == '_') {
      spec.grouping = c;
      reader.Skip(1);
    }
    if (reader.SkipIf('.')) {
      spec.precision = reader.Number();
      if (!spec.precision.has_value()) meter_.Refuse("a format without its precision");
    }
    spec.type = reader.Peek();
    if (!reader.empty()) reader.Skip(1);
    if (!reader.empty()) meter_.Refuse("a format that is none: \"{}\"", text);
    return spec;
  }

  std::string Convert(const Value& value, std::string_view text) {
    if (text.empty()) return ToText(value, meter_);
    Spec spec = ReadSpec(text);
    if (const std::string* string = value.string()) {
      const bool numeric = spec.align == '=' || spec.sign != '-' || spec.alternate ||
                           spec.grouping != '\0' || (spec.type != 's' && spec.type != '\0');
      if (numeric) meter_.Refuse("a format for numbers, and a string");
      if (spec.zero && spec.align == '\0') spec.fill.assign(1, '0');
      return TextField(*string, spec, '<', meter_);
    }
    if (spec.type == 'n') {
      Fail(Code::kUnsupported, "chat template, line {}: a format of the type n", meter_.line);
    }
    const bool as_float =
        std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos && spec.type != '\0';
    if (value.IsNumber() && (as_float || (value.Is<double>() && spec.type == '\0'))) {
      return FloatField(value.AsDouble(), spec, meter_);
    }
    if (!value.IsInt() || spec.precision.has_value()) {
      meter_.Refuse("a format that does not fit {}", TypeName(value));
    }
    if (spec.type == 'c') return TextField(CharacterField(value, meter_), spec, '<', meter_);
    if (std::string_view("dxXob").find(spec.type) == std::string_view::npos && spec.type != '\0') {
      meter_.Refuse("a format of the unknown type \"{}\"", spec.type);
    }
    return IntField(value.AsInt(), spec, meter_);
  }

  Reader reader_;
  const Arguments& arguments_;
  std::optional<bool> automatic_;
  size_t next_ = 0;
  const bool escapes_;
  Meter& meter_;
};

}  // namespace

std::string FormatPercent(const std::string& format, const Value& values, bool escapes,
                          Meter& meter) {
  return PercentFormatter(format, values, escapes, meter).Run();
}

std::string FormatBraces(const std::string& format, const Arguments& arguments, bool escapes,
                         Meter& meter) {
  return BraceFormatter(format, arguments, escapes, meter).Run();
}

}  // namespace kvasir::jinja
