// Filters that make numbers.
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "text/jinja/filters.h"
#include "text/jinja/strings.h"

namespace kvasir::jinja {

namespace {

Value Absolute(const Value& self, const Bound&, Meter& meter) {
  if (!self.IsNumber()) meter.Refuse("abs wants a number, not {}", TypeName(self));
  if (!self.IsInt()) return Value::Of(std::fabs(self.AsDouble()));
  const int64_t number = self.AsInt();
  if (number == std::numeric_limits<int64_t>::min()) meter.Refuse("abs leaves 64 bits");
  return Value::Of(number < 0 ? -number : number);
}

// Digits as Python reads them: white space around them, one sign and single "_" between them do not
// count. Absent: no such number.
std::optional<std::string> Plain(std::string_view text, Meter& meter) {
  text = Strip(text, Side::kBoth, nullptr, meter);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  std::string plain;
  const auto is_digit = [&](size_t i) {
    return i < text.size() && text[i] >= '0' && text[i] <= '9';
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && i > 0 && is_digit(i - 1) && is_digit(i + 1)) continue;
    plain += text[i];
  }
  return plain;
}

// A whole number in `base`, or a float with base 0. Errors: kInvalid beyond 64 bits.
template <typename T>
std::optional<T> Parsed(std::string_view text, int base, Meter& meter) {
  const std::optional<std::string> plain = Plain(text, meter);
  if (!plain.has_value() || plain->empty()) return std::nullopt;
  T number{};
  std::from_chars_result result{};
  if constexpr (std::is_same_v<T, double>) {
    result = std::from_chars(plain->data(), plain->data() + plain->size(), number);
  } else {
    result = std::from_chars(plain->data(), plain->data() + plain->size(), number, base);
  }
  if (result.ptr != plain->data() + plain->size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) {
    meter.Refuse("the text of a number beyond 64 bits");
  }
  return result.ec == std::errc() ? std::optional<T>(number) : std::nullopt;
}
std::optional<double> ToDouble(const Value& value, Meter& meter) {
  if (value.IsUndefined()) meter.Refuse("an undefined value is no number");
  if (value.IsNumber()) return value.AsDouble();
  if (value.string() != nullptr) return Parsed<double>(*value.string(), 0, meter);
  return std::nullopt;
}

// "0x1f" in base 16 is "1f".
std::string WithoutPrefix(std::string_view text, int64_t base, Meter& meter) {
  text = Strip(text, Side::kBoth, nullptr, meter);
  const std::string_view letters = base == 16 ? "xX" : base == 8 ? "oO" : base == 2 ? "bB" : "";
  const bool prefixed =
      text.size() > 2 && text[0] == '0' && letters.find(text[1]) != std::string_view::npos;
  return std::string(prefixed ? text.substr(2) : text);
}

Value Float(const Value& self, const Bound& arguments, Meter& meter) {
  if (const std::optional<double> number = ToDouble(self, meter)) return Value::Of(*number);
  return arguments.Has(0) ? arguments[0] : Value::Of(0.0);
}
Value Int(const Value& self, const Bound& arguments, Meter& meter) {
  if (self.IsInt()) return Value::Of(self.AsInt());
  if (self.Is<BigInt>()) return self;
  if (self.string() != nullptr) {
    const int64_t base = arguments.Int(1, 10, meter);
    if (base < 2 || base > 36) meter.Refuse("int: a base from 2 to 36");
    std::string digits = *self.string();
    if (base != 10) digits = WithoutPrefix(digits, base, meter);
    const auto number = Parsed<int64_t>(digits, static_cast<int>(base), meter);
    if (number.has_value()) return Value::Of(*number);
  }
  const std::optional<double> number = ToDouble(self, meter);
  if (number.has_value() && std::fabs(*number) < 0x1p63) {
    return Value::Of(static_cast<int64_t>(*number));
  }
  if (number.has_value() && !self.string()) meter.Refuse("int leaves 64 bits");
  return arguments.Has(0) ? arguments[0] : Value::Of(int64_t{0});
}

// To the even digit where two are as near, on the exact value of the number, as Python does.
double Rounded(double number, int64_t precision, Meter& meter) {
  if (!std::isfinite(number) || precision > 330) return number;
  if (precision < 0) meter.Refuse("round: a precision below 0");
  const std::string text = fmt::format("{:.{}f}", number, precision);
  double result = 0;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}
Value Round(const Value& self, const Bound& arguments, Meter& meter) {
  if (!self.IsNumber()) meter.Refuse("round wants a number, not {}", TypeName(self));
  const int64_t precision = arguments.Int(0, 0, meter);
  const std::string* given = arguments.Text(1, meter);
  const std::string method = given == nullptr ? "common" : *given;
  if (method == "common") {
    if (self.IsInt() && precision >= 0) return Value::Of(self.AsInt());
    return Value::Of(Rounded(self.AsDouble(), precision, meter));
  }
  if (method != "ceil" && method != "floor") meter.Refuse("round: common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = self.AsDouble() * scale;
  if (!std::isfinite(scaled) || scale == 0) meter.Refuse("round gives no finite number");
  return Value::Of((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value LengthFilter(const Value& self, const Bound&, Meter& meter) {
  return Value::Of(Length(self, meter));
}

constexpr Callable kFilters[] = {
    {"abs", "", Absolute},        {"count", "", LengthFilter},
    {"float", "default?", Float}, {"int", "default? base?", Int},
    {"length", "", LengthFilter}, {"round", "precision? method?", Round},
};

}  // namespace

std::span<const Callable> NumberFilters() { return kFilters; }

}  // namespace kvasir::jinja
