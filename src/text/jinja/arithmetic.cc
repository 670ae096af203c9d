#include "text/jinja/arithmetic.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "text/jinja/format.h"
#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

std::string_view Symbol(Op op) {
  constexpr std::string_view kSymbols[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[static_cast<size_t>(op)];
}

[[noreturn]] void RefuseTypes(Op op, const Value& a, const Value& b, const Meter& meter) {
  meter.Refuse("{} {} {} has no meaning", TypeName(a), Symbol(op), TypeName(b));
}

int64_t Power(int64_t base, int64_t exponent, Meter& meter) {
  int64_t result = 1;
  // Every base but these leaves 64 bits after 63 products.
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) meter.Refuse("** leaves 64 bits");
  }
  return result;
}

Value IntArithmetic(Op op, int64_t a, int64_t b, Meter& meter) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Op::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Op::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Op::kFloorDivide:
    case Op::kModulo: {
      if (b == 0) meter.Refuse("division by zero");
      if (b == -1) {
        overflow = op == Op::kFloorDivide && __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      // Python rounds down, and the remainder has the divisor's sign.
      const bool down = a % b != 0 && (a < 0) != (b < 0);
      result = op == Op::kModulo ? a % b + (down ? b : 0) : a / b - (down ? 1 : 0);
      break;
    }
    default:
      return Value::Of(Power(a, b, meter));
  }
  if (overflow) meter.Refuse("{} leaves 64 bits", Symbol(op));
  return Value::Of(result);
}

Value FloatArithmetic(Op op, double a, double b, Meter& meter) {
  const bool divides = op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo;
  if (divides && b == 0) meter.Refuse("division by zero");
  switch (op) {
    case Op::kAdd:
      return Value::Of(a + b);
    case Op::kSubtract:
      return Value::Of(a - b);
    case Op::kMultiply:
      return Value::Of(a * b);
    case Op::kDivide:
      return Value::Of(a / b);
    case Op::kFloorDivide:
      return Value::Of(std::floor(a / b));
    case Op::kModulo: {
      const double rest = std::fmod(a, b);
      return Value::Of(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
    }
    default: {
      const double power = std::pow(a, b);
      if (!std::isfinite(power)) meter.Refuse("** gives no finite number");
      return Value::Of(power);
    }
  }
}

Value Repeat(const Value& value, int64_t times, Meter& meter) {
  const auto n = static_cast<uint64_t>(std::max<int64_t>(times, 0));
  uint64_t total = 0;
  const uint64_t size = value.string() != nullptr ? value.string()->size()
                                                  : value.list()->items.size() * sizeof(Value);
  if (__builtin_mul_overflow(size, n, &total)) meter.Refuse("a repetition is too long");
  meter.Bytes(total);
  if (const std::string* text = value.string()) {
    std::string result;
    for (uint64_t i = 0; size > 0 && i < n; ++i) result += *text;
    return MakeString(std::move(result), value, meter);
  }
  std::vector<Value> items;
  for (uint64_t i = 0; size > 0 && i < n; ++i) {
    items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
  }
  return MakeList(std::move(items), meter, value.list()->kind);
}

// Whatever is joined with Markup is escaped first, and the whole is Markup.
Value Join(const Value& a, const Value& b, Meter& meter) {
  const bool markup = a.Is<Markup>() || b.Is<Markup>();
  const auto part = [&](const Value& v) {
    return markup && !v.Is<Markup>() ? Escape(*v.string(), meter) : *v.string();
  };
  meter.Bytes(a.string()->size() + b.string()->size() + 64);
  std::string text;
  text.reserve(a.string()->size() + b.string()->size());
  text.append(markup ? part(a) : *a.string()).append(markup ? part(b) : *b.string());
  return markup ? MakeMarkup(std::move(text), meter) : Value::Of(std::move(text));
}

Value Arithmetic(Op op, const Value& a, const Value& b, Meter& meter) {
  if (a.IsNumber() && b.IsNumber()) {
    const bool whole =
        a.IsInt() && b.IsInt() && op != Op::kDivide && !(op == Op::kPower && b.AsInt() < 0);
    return whole ? IntArithmetic(op, a.AsInt(), b.AsInt(), meter)
                 : FloatArithmetic(op, a.AsDouble(), b.AsDouble(), meter);
  }
  if (op == Op::kAdd && a.string() != nullptr && b.string() != nullptr) {
    return Join(a, b, meter);
  }
  if (op == Op::kAdd && a.list() != nullptr && b.list() != nullptr &&
      a.list()->kind == b.list()->kind && a.list()->has_text()) {
    std::vector<Value> items = Elements(a, meter);
    const std::vector<Value> more = Elements(b, meter);
    items.insert(items.end(), more.begin(), more.end());
    return MakeList(std::move(items), meter, a.list()->kind);
  }
  const auto repeats = [](const Value& v) {
    return v.string() != nullptr || (v.list() != nullptr && v.list()->has_text());
  };
  if (op == Op::kMultiply && repeats(a) && b.IsInt()) return Repeat(a, b.AsInt(), meter);
  if (op == Op::kMultiply && repeats(b) && a.IsInt()) return Repeat(b, a.AsInt(), meter);
  if (op == Op::kModulo && a.string() != nullptr) {
    return MakeString(FormatPercent(*a.string(), b, a.Is<Markup>(), meter), a, meter);
  }
  RefuseTypes(op, a, b, meter);
}

std::optional<int64_t> SliceBound(const Value& value, Meter& meter) {
  if (value.IsUndefined() || value.IsNone()) return std::nullopt;
  if (!value.IsInt()) meter.Refuse("a slice wants integers, not {}", TypeName(value));
  return value.AsInt();
}

// Python's rule for a slice of `size` elements: the indices, in order.
std::vector<size_t> SliceIndices(int64_t size, std::optional<int64_t> begin,
                                 std::optional<int64_t> end, int64_t step) {
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto place = [&](int64_t i) { return std::clamp(i < 0 ? i + size : i, low, high); };
  const int64_t first = begin.has_value() ? place(*begin) : step > 0 ? low : high;
  const int64_t last = end.has_value() ? place(*end) : step > 0 ? high : low;
  std::vector<size_t> indices;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    indices.push_back(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return indices;
}

}  // namespace

Value Combine(Op op, const Value& a, const Value& b, Meter& meter) {
  switch (op) {
    case Op::kEqual:
      return Value::Of(Equal(a, b, meter));
    case Op::kNotEqual:
      return Value::Of(!Equal(a, b, meter));
    case Op::kLess:
      return Value::Of(Less(a, b, meter));
    case Op::kLessEqual:
      return Value::Of(Less(a, b, meter) || Equal(a, b, meter));
    case Op::kGreater:
      return Value::Of(Less(b, a, meter));
    case Op::kGreaterEqual:
      return Value::Of(Less(b, a, meter) || Equal(a, b, meter));
    case Op::kIn:
      return Value::Of(Contains(b, a, meter));
    case Op::kNotIn:
      return Value::Of(!Contains(b, a, meter));
    default:
      return Arithmetic(op, a, b, meter);
  }
}

Value Negative(const Value& value, Meter& meter) {
  if (value.Is<double>()) return Value::Of(-value.AsDouble());
  if (!value.IsInt()) meter.Refuse("\"-\" wants a number, not {}", TypeName(value));
  return IntArithmetic(Op::kSubtract, 0, value.AsInt(), meter);
}

Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step,
            Meter& meter) {
  const std::string* text = value.string();
  if (value.IsUndefined() || value.dict() != nullptr) {
    meter.Refuse("{} cannot be sliced", TypeName(value));
  }
  if (text == nullptr && (value.list() == nullptr || !value.list()->has_subscripts())) {
    return Value();
  }
  const int64_t stride = SliceBound(step, meter).value_or(1);
  if (stride == 0) meter.Refuse("a slice's step cannot be 0");
  const int64_t size = Length(value, meter);
  meter.Steps(static_cast<uint64_t>(size) / 16);
  const std::vector<size_t> indices =
      SliceIndices(size, SliceBound(begin, meter), SliceBound(end, meter), stride);
  if (text == nullptr) {
    std::vector<Value> items;
    for (const size_t i : indices) items.push_back(value.list()->items[i]);
    return MakeList(std::move(items), meter, value.list()->kind);
  }
  std::vector<std::string_view> units;
  for (std::string_view rest = *text; !rest.empty(); rest.remove_prefix(units.back().size())) {
    units.push_back(rest.substr(0, Utf8UnitLength(rest)));
  }
  std::string result;
  for (const size_t i : indices) result += units[i];
  return MakeString(std::move(result), value, meter);
}

}  // namespace kvasir::jinja
