// The tests ("x is ...") of callable.h.
#include <algorithm>
#include <iterator>

#include "text/jinja/callable.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"

namespace kvasir::jinja {

namespace {

using B = const Bound&;

int64_t IntOf(const Value& value, Meter& meter) {
  if (!value.IsInt()) meter.Refuse("the test wants an integer, not {}", TypeName(value));
  return value.AsInt();
}
Value DivisibleBy(const Value& self, B arguments, Meter& meter) {
  const int64_t by = IntOf(arguments[0], meter);
  if (by == 0) meter.Refuse("division by zero");
  return Value::Of(by == -1 || IntOf(self, meter) % by == 0);
}

Value Compare(const Value& a, const Value& b, bool less, bool or_equal, Meter& meter) {
  return Value::Of(less ? Less(a, b, meter) || (or_equal && Equal(a, b, meter))
                        : Less(b, a, meter) || (or_equal && Equal(a, b, meter)));
}

Value IsEqual(const Value& v, B a, Meter& m) { return Value::Of(Equal(v, a[0], m)); }
Value IsNotEqual(const Value& v, B a, Meter& m) { return Value::Of(!Equal(v, a[0], m)); }
Value IsLess(const Value& v, B a, Meter& m) { return Compare(v, a[0], true, false, m); }
Value IsLessEqual(const Value& v, B a, Meter& m) { return Compare(v, a[0], true, true, m); }
Value IsGreater(const Value& v, B a, Meter& m) { return Compare(v, a[0], false, false, m); }
Value IsGreaterEqual(const Value& v, B a, Meter& m) { return Compare(v, a[0], false, true, m); }

Value IsFilter(const Value& v, B, Meter&) {
  return Value::Of(v.string() != nullptr && FindFilter(*v.string()) != nullptr);
}
Value IsTest(const Value& v, B, Meter&) {
  return Value::Of(v.string() != nullptr && FindTest(*v.string()) != nullptr);
}
// The same object: of what a template can hold, values of one type that are equal, but for
// containers, which must be one.
Value IsSame(const Value& v, B a, Meter& m) {
  if (v.data().index() != a[0].data().index()) return Value::Of(false);
  if (v.list() != nullptr) return Value::Of(v.list() == a[0].list());
  if (v.dict() != nullptr) return Value::Of(v.dict() == a[0].dict());
  return Value::Of(Equal(v, a[0], m));
}

constexpr Callable kTests[] = {
    {"!=", "other", IsNotEqual},
    {"<", "other", IsLess},
    {"<=", "other", IsLessEqual},
    {"==", "other", IsEqual},
    {">", "other", IsGreater},
    {">=", "other", IsGreaterEqual},
    {"boolean", "", [](const Value& v, B, Meter&) { return Value::Of(v.Is<bool>()); }},
    {"callable", "", [](const Value& v, B, Meter&) { return Value::Of(v.IsCallable()); }},
    {"defined", "", [](const Value& v, B, Meter&) { return Value::Of(!v.IsUndefined()); }},
    {"divisibleby", "num", DivisibleBy},
    {"eq", "other", IsEqual},
    {"equalto", "other", IsEqual},
    {"escaped", "", [](const Value& v, B, Meter&) { return Value::Of(v.Is<Markup>()); }},
    {"even", "", [](const Value& v, B, Meter& m) { return Value::Of(IntOf(v, m) % 2 == 0); }},
    {"false", "",
     [](const Value& v, B, Meter&) { return Value::Of(v.Is<bool>() && v.AsInt() == 0); }},
    {"filter", "", IsFilter},
    {"float", "", [](const Value& v, B, Meter&) { return Value::Of(v.Is<double>()); }},
    {"ge", "other", IsGreaterEqual},
    {"greaterthan", "other", IsGreater},
    {"gt", "other", IsGreater},
    {"in", "seq", [](const Value& v, B a, Meter& m) { return Value::Of(Contains(a[0], v, m)); }},
    {"integer", "",
     [](const Value& v, B, Meter&) { return Value::Of(v.Is<int64_t>() || v.Is<BigInt>()); }},
    {"iterable", "",
     [](const Value& v, B, Meter&) {
       return Value::Of(v.IsUndefined() || v.string() != nullptr || v.list() != nullptr ||
                        v.dict() != nullptr || v.loop() != nullptr);
     }},
    {"le", "other", IsLessEqual},
    {"lessthan", "other", IsLess},
    {"lower", "", [](const Value& v, B, Meter& m) { return Value::Of(IsLower(ToText(v, m))); }},
    {"lt", "other", IsLess},
    {"mapping", "", [](const Value& v, B, Meter&) { return Value::Of(v.dict() != nullptr); }},
    {"ne", "other", IsNotEqual},
    {"none", "", [](const Value& v, B, Meter&) { return Value::Of(v.IsNone()); }},
    {"number", "",
     [](const Value& v, B, Meter&) { return Value::Of(v.IsNumber() || v.Is<BigInt>()); }},
    {"odd", "", [](const Value& v, B, Meter& m) { return Value::Of(IntOf(v, m) % 2 != 0); }},
    {"sameas", "other", IsSame},
    {"sequence", "",
     [](const Value& v, B, Meter&) {
       return Value::Of(v.IsUndefined() || v.string() != nullptr || v.dict() != nullptr ||
                        (v.list() != nullptr && v.list()->has_subscripts()));
     }},
    {"string", "", [](const Value& v, B, Meter&) { return Value::Of(v.string() != nullptr); }},
    {"test", "", IsTest},
    {"true", "",
     [](const Value& v, B, Meter&) { return Value::Of(v.Is<bool>() && v.AsInt() == 1); }},
    {"undefined", "", [](const Value& v, B, Meter&) { return Value::Of(v.IsUndefined()); }},
    {"upper", "", [](const Value& v, B, Meter& m) { return Value::Of(IsUpper(ToText(v, m))); }},
};

}  // namespace

const Callable* FindTest(std::string_view name) {
  const auto* found = std::ranges::find(kTests, name, &Callable::name);
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace kvasir::jinja
