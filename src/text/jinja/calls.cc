// The interpreter's calls: of macros, of loops, and of the functions every template has.
#include <algorithm>

#include "base/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/print.h"

namespace kvasir::jinja {

namespace {

// jinja2's sandbox has the same bound.
constexpr int64_t kMaxRange = 100'000;
constexpr size_t kMaxTimeText = 64 << 10;

}  // namespace

Value Interpreter::CallValue(const Value& callee, const Expr& expr, Arguments arguments) {
  if (const auto* macro = std::get_if<const Macro*>(&callee.data())) {
    return CallMacro(**macro, std::move(arguments));
  }
  if (callee.loop() != nullptr) return CallLoop(*callee.loop(), arguments);
  if (callee.Is<Builtin>()) {
    return CallBuiltin(std::get<Builtin>(callee.data()), std::move(arguments));
  }
  if (const BoundMethod* method = callee.method(); method && method->callable) {
    return Call(*method->callable, method->self, std::move(arguments), meter_);
  }
  const Expr& called = *expr.args[0];
  meter_.Refuse("{} is {}, which cannot be called",
                called.name.empty() ? "a value" : fmt::format("\"{}\"", called.name),
                TypeName(callee));
}

Value Interpreter::CallMacro(const Macro& macro, Arguments arguments) {
  const int line = meter_.line;
  const MacroDefinition& definition = *macro.definition;
  Inner inner(this, *macro.closure);
  BindMacro(definition, std::move(arguments), *inner);
  std::string text;
  Execute(definition.body, *inner, &text);
  meter_.line = line;
  return MakeString(std::move(text), meter_);
}

void Interpreter::BindMacro(const MacroDefinition& macro, Arguments arguments, Scope& scope) {
  const size_t n = macro.parameters.size(), given = arguments.positional.size();
  for (size_t i = 0; i < std::min(n, given); ++i) {
    scope.variables[macro.parameters[i].name] = std::move(arguments.positional[i]);
  }
  Dict kwargs;
  Value caller;
  for (auto& [name, value] : arguments.named) {
    const auto parameter =
        std::ranges::find(macro.parameters, name, &MacroDefinition::Parameter::name);
    if (parameter != macro.parameters.end() && !scope.variables.contains(parameter->name)) {
      scope.variables[parameter->name] = std::move(value);
    } else if (macro.takes_caller && name == "caller" && parameter == macro.parameters.end()) {
      caller = std::move(value);
    } else if (macro.takes_kwargs) {
      kwargs.Set(name, std::move(value));
    } else {
      meter_.Refuse("the macro \"{}\" takes no argument \"{}\" here", macro.name, name);
    }
  }
  if (given > n && !macro.takes_varargs) {
    meter_.Refuse("the macro \"{}\" takes at most {} arguments", macro.name, n);
  }
  for (const MacroDefinition::Parameter& parameter : macro.parameters) {
    if (scope.variables.contains(parameter.name)) continue;
    Value value = parameter.otherwise == nullptr ? Value() : Evaluate(*parameter.otherwise, scope);
    scope.variables[parameter.name] = std::move(value);
  }
  // Names that are parameters keep what a call gave them.
  if (macro.takes_caller) scope.variables.try_emplace("caller", std::move(caller));
  if (macro.takes_kwargs) scope.variables.try_emplace("kwargs", Value::Of(std::move(kwargs)));
  if (macro.takes_varargs) {
    std::vector<Value> rest(
        arguments.positional.begin() + static_cast<ptrdiff_t>(std::min(n, given)),
        arguments.positional.end());
    scope.variables.try_emplace("varargs", MakeList(std::move(rest), meter_, List::Kind::kTuple));
  }
}

// A recursive loop once more, over other elements, one level deeper.
Value Interpreter::CallLoop(const Loop& loop, const Arguments& arguments) {
  if (loop.stmt == nullptr || !loop.stmt->recursive) {
    meter_.Refuse("a loop can be called inside itself, and if it is marked \"recursive\"");
  }
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    meter_.Refuse("loop(...) wants what to loop over");
  }
  const int line = meter_.line;
  std::string text;
  ForLoop(*loop.stmt, Elements(arguments.positional[0], meter_), loop.depth0 + 1, *loop.scope,
          &text);
  meter_.line = line;
  return MakeString(std::move(text), meter_);
}

Value Interpreter::CallBuiltin(Builtin builtin, Arguments arguments) {
  switch (builtin) {
    case Builtin::kRange:
      return Range(arguments);
    case Builtin::kStrftimeNow:
      return StrftimeNow(arguments);
    case Builtin::kRaiseException: {
      const auto& message = arguments.positional.empty() && arguments.named.size() == 1 &&
                                    arguments.named[0].first == "message"
                                ? arguments.named[0].second
                                : Value();
      if (arguments.positional.size() + arguments.named.size() != 1) {
        meter_.Refuse("raise_exception wants one message");
      }
      throw Error(Code::kInvalid,
                  ToText(arguments.positional.empty() ? message : arguments.positional[0], meter_));
    }
    default:
      return Mapping(std::move(arguments), builtin);
  }
}

Value Interpreter::Range(const Arguments& arguments) {
  int64_t bounds[3] = {0, 0, 1};  // begin, end, step
  const size_t n = arguments.positional.size();
  if (n < 1 || n > 3 || !arguments.named.empty()) meter_.Refuse("range wants 1 to 3 integers");
  for (size_t i = 0; i < n; ++i) {
    const Value& value = arguments.positional[i];
    if (!value.IsInt()) meter_.Refuse("range wants integers, not {}", TypeName(value));
    bounds[n == 1 ? 1 : i] = value.AsInt();
  }
  const auto [begin, end, step] = bounds;
  if (step == 0) meter_.Refuse("range's step cannot be 0");
  std::vector<Value> numbers;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (numbers.size() >= kMaxRange) meter_.Refuse("a range of more than {} numbers", kMaxRange);
    numbers.push_back(Value::Of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return MakeList(std::move(numbers), meter_, List::Kind::kRange);
}

// dict(...) and namespace(...): a mapping or pairs, then names.
Value Interpreter::Mapping(Arguments arguments, Builtin builtin) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    meter_.Refuse("dict and namespace want a mapping or named values");
  }
  const auto put = [&](std::string name, Value value) {
    meter_.Bytes(2 * name.size() + 3 * sizeof(Value));
    dict.Set(std::move(name), std::move(value));
  };
  if (!arguments.positional.empty()) {
    const Value& first = arguments.positional[0];
    const bool is_dict = first.dict() != nullptr;
    for (const Value& item : is_dict ? Pairs(*first.dict(), meter_) : Elements(first, meter_)) {
      std::vector<Value> pair = Elements(item, meter_);
      if (pair.size() != 2 || pair[0].string() == nullptr) {
        meter_.Refuse("dict and namespace want pairs of a name and a value");
      }
      put(*pair[0].string(), std::move(pair[1]));
    }
  }
  for (auto& [name, value] : arguments.named) put(std::move(name), std::move(value));
  if (builtin == Builtin::kDict) return Value::Of(std::move(dict));
  namespaces_.push_back(std::make_unique<Namespace>());
  meter_.Bytes(sizeof(Namespace));
  for (auto& [name, value] : dict.items) namespaces_.back()->values[name] = std::move(value);
  return Value::Data(namespaces_.back().get());
}

Value Interpreter::StrftimeNow(const Arguments& arguments) {
  const std::string* format = nullptr;
  if (arguments.positional.size() == 1 && arguments.named.empty()) {
    format = arguments.positional[0].string();
  }
  if (format == nullptr) meter_.Refuse("strftime_now wants a format");
  // Python's own directives: a clock without a time zone, of whole seconds here. A mark behind the
  // text tells an empty one from one that did not fit.
  std::string marked;
  for (size_t i = 0; i < format->size(); ++i) {
    const char c = (*format)[i], next = i + 1 < format->size() ? (*format)[i + 1] : '\0';
    if (c == '\0') meter_.Refuse("strftime_now: a format with a zero byte");
    marked += c;
    if (c != '%') continue;
    ++i;
    if (next == 'z' || next == 'Z' || next == 'f') {
      marked.pop_back();
      marked += next == 'f' ? "000000" : "";
    } else if (next != '\0') {
      marked += next;
    }
  }
  marked += '!';
  std::string text(256 + 4 * marked.size(), '\0');
  size_t size = 0;
  while ((size = std::strftime(text.data(), text.size(), marked.c_str(), &now_)) == 0) {
    if (text.size() > kMaxTimeText) meter_.Refuse("strftime_now: the text is too long");
    text.resize(text.size() * 4);
  }
  text.resize(size - 1);
  return MakeString(std::move(text), meter_);
}

}  // namespace kvasir::jinja
