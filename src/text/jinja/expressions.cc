// The interpreter's expressions.
#include "text/jinja/arithmetic.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/print.h"

namespace kvasir::jinja {

Value Interpreter::Lookup(const std::string& name, const Scope& scope) {
  for (const Scope* at = &scope; at != nullptr; at = at->outer) {
    const auto found = at->variables.find(name);
    if (found != at->variables.end()) return found->second;
  }
  constexpr std::pair<std::string_view, Builtin> kBuiltins[] = {
      {"range", Builtin::kRange},
      {"dict", Builtin::kDict},
      {"namespace", Builtin::kNamespace},
      {"raise_exception", Builtin::kRaiseException},
      {"strftime_now", Builtin::kStrftimeNow}};
  for (const auto& [known, builtin] : kBuiltins) {
    if (known == name) return Value::Data(builtin);
  }
  meter_.Bytes(name.size());
  return Value::Data(Undefined{std::make_shared<const std::string>("\"" + name + "\"")});
}

Value Interpreter::Evaluate(const Expr& expr, Scope& scope) {
  const Open open(this);
  meter_.line = expr.line;
  switch (expr.kind) {
    case Expr::Kind::kConstant:
      return expr.value;
    case Expr::Kind::kName:
      return Lookup(expr.name, scope);
    case Expr::Kind::kBlockText:
      return block_text_;
    case Expr::Kind::kNot:
      return Value::Of(!Truthy(Evaluate(*expr.args[0], scope)));
    case Expr::Kind::kAnd: {
      Value left = Evaluate(*expr.args[0], scope);
      return Truthy(left) ? Evaluate(*expr.args[1], scope) : left;
    }
    case Expr::Kind::kOr: {
      Value left = Evaluate(*expr.args[0], scope);
      return Truthy(left) ? left : Evaluate(*expr.args[1], scope);
    }
    case Expr::Kind::kCondition:
      if (Truthy(Evaluate(*expr.args[0], scope))) return Evaluate(*expr.args[1], scope);
      return expr.args[2] == nullptr ? Value() : Evaluate(*expr.args[2], scope);
    case Expr::Kind::kCompare:
      return CompareChain(expr, scope);
    default:
      return Compute(expr, scope, EvaluateAll(expr.args, scope));
  }
}

std::vector<Value> Interpreter::EvaluateAll(const std::vector<ExprPtr>& exprs, Scope& scope) {
  std::vector<Value> values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) {
    values.push_back(expr == nullptr ? Value() : Evaluate(*expr, scope));
  }
  return values;
}

// Expressions whose parts are all evaluated first.
Value Interpreter::Compute(const Expr& expr, Scope& scope, std::vector<Value> args) {
  meter_.line = expr.line;
  switch (expr.kind) {
    case Expr::Kind::kList:
    case Expr::Kind::kTuple:
      return MakeList(std::move(args), meter_,
                      expr.kind == Expr::Kind::kTuple ? List::Kind::kTuple : List::Kind::kList);
    case Expr::Kind::kDict:
      return MakeDict(args);
    case Expr::Kind::kAttribute:
      return Attribute(args[0], expr.name, meter_);
    case Expr::Kind::kItem:
      return Item(args[0], args[1], meter_);
    case Expr::Kind::kSlice:
      return Slice(args[0], args[1], args[2], args[3], meter_);
    case Expr::Kind::kNegative:
      return Negative(args[0], meter_);
    case Expr::Kind::kPositive:
      if (!args[0].IsNumber()) meter_.Refuse("\"+\" wants a number, not {}", TypeName(args[0]));
      return args[0].IsInt() ? Value::Of(args[0].AsInt()) : args[0];
    case Expr::Kind::kBinary:
      return Combine(expr.ops[0], args[0], args[1], meter_);
    case Expr::Kind::kConcat: {
      std::string text;
      for (const Value& arg : args) text += ToText(arg, meter_);
      return MakeString(std::move(text), meter_);
    }
    default: {  // kCall, kMethod, kFilter, kTest
      const Value self = args[0];
      args.erase(args.begin());
      Arguments arguments = WithNamed(expr, std::move(args), scope);
      if (expr.kind == Expr::Kind::kCall) return CallValue(self, expr, std::move(arguments));
      return Call(*expr.callable, self, std::move(arguments), meter_);
    }
  }
}

Arguments Interpreter::WithNamed(const Expr& expr, std::vector<Value> positional, Scope& scope) {
  Arguments arguments{.positional = std::move(positional), .named = {}};
  for (const auto& [name, value] : expr.named) {
    arguments.named.emplace_back(name, Evaluate(*value, scope));
  }
  if (expr.spread != nullptr) {
    for (Value& value : Elements(Evaluate(*expr.spread, scope), meter_)) {
      arguments.positional.push_back(std::move(value));
    }
  }
  if (expr.spread_named != nullptr) {
    const Value more = Evaluate(*expr.spread_named, scope);
    if (more.dict() == nullptr) meter_.Refuse("\"**\" wants a mapping, not {}", TypeName(more));
    meter_.Steps(more.dict()->items.size());
    meter_.Bytes(more.dict()->items.size() * 2 * sizeof(Value));
    for (const auto& item : more.dict()->items) arguments.named.push_back(item);
  }
  meter_.line = expr.line;
  return arguments;
}

Value Interpreter::MakeDict(const std::vector<Value>& args) {
  Dict dict;
  for (size_t i = 0; i < args.size(); i += 2) {
    if (args[i].string() == nullptr) {
      meter_.Refuse("a dict's keys are strings here, not {}", TypeName(args[i]));
    }
    meter_.Bytes(2 * args[i].string()->size() + 3 * sizeof(Value));
    dict.Set(*args[i].string(), args[i + 1]);
  }
  return Value::Of(std::move(dict));
}

Value Interpreter::CompareChain(const Expr& expr, Scope& scope) {
  Value left = Evaluate(*expr.args[0], scope);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = Evaluate(*expr.args[i + 1], scope);
    meter_.line = expr.line;
    if (!Truthy(Combine(expr.ops[i], left, right, meter_))) return Value::Of(false);
    left = std::move(right);
  }
  return Value::Of(true);
}

}  // namespace kvasir::jinja
