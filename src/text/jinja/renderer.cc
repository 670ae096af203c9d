#include "text/jinja/renderer.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "text/jinja/arithmetic.h"
#include "text/jinja/print.h"

namespace kvasir::jinja {

namespace {

// Expressions, statements and macros that may be open inside each other.
constexpr int kMaxOpen = 600;
// jinja2's sandbox has the same bound.
constexpr int64_t kMaxRange = 100'000;

struct LoopState {
  const std::vector<Value>& items;
  size_t index;
};

// Variables of one block; blocks inside see those outside. Names point into the template or
// context.
struct Scope {
  const Scope* outer = nullptr;
  const LoopState* loop = nullptr;
  std::unordered_map<std::string_view, Value> variables;
};

enum class Flow { kNext, kBreak, kContinue };

class Renderer {
 public:
  Renderer(const Dict& context, const Limits& limits) : meter_(limits) {
    for (const auto& [name, value] : context.items) global_.variables[name] = value;
  }

  std::string Run(const Body& body) {
    std::string out;
    Execute(body, global_, &out);
    return out;
  }

 private:
  class Open {
   public:
    explicit Open(Renderer* renderer) : renderer_(renderer) {
      if (renderer_->open_ >= kMaxOpen) renderer_->meter_.Refuse("calls nest too deeply");
      ++renderer_->open_;
      renderer_->meter_.Steps(1);
    }
    ~Open() { --renderer_->open_; }

   private:
    Renderer* renderer_;
  };

  void Write(std::string_view text, std::string* out) {
    meter_.Bytes(text.size());
    *out += text;
  }

  Flow Execute(const Body& body, Scope& scope, std::string* out) {
    for (const StmtPtr& stmt : body) {
      const Open open(this);
      meter_.line = stmt->line;
      const Flow flow = Execute(*stmt, scope, out);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow Execute(const Stmt& stmt, Scope& scope, std::string* out) {
    switch (stmt.kind) {
      case Stmt::Kind::kText:
        Write(stmt.text, out);
        return Flow::kNext;
      case Stmt::Kind::kPrint:
        *out += ToText(Evaluate(*stmt.expr, scope), meter_);
        return Flow::kNext;
      case Stmt::Kind::kIf:
        for (const Branch& branch : stmt.branches) {
          if (branch.condition == nullptr || Truthy(Evaluate(*branch.condition, scope))) {
            return Execute(branch.body, scope, out);
          }
        }
        return Flow::kNext;
      case Stmt::Kind::kFor:
        return Loop(stmt, scope, out);
      case Stmt::Kind::kSet:
        Assign(stmt.target, Evaluate(*stmt.expr, scope), scope);
        return Flow::kNext;
      case Stmt::Kind::kSetBlock: {
        std::string text;
        Scope inner{.outer = &scope};
        const Flow flow = Execute(stmt.body, inner, &text);
        if (flow == Flow::kNext) {
          Assign(stmt.target, MakeString(std::move(text), meter_), scope);
        }
        return flow;
      }
      case Stmt::Kind::kMacro:
        scope.variables[stmt.macro.name] = Value::Data(&stmt.macro);
        return Flow::kNext;
      case Stmt::Kind::kScope: {
        Scope inner{.outer = &scope};
        return Execute(stmt.body, inner, out);
      }
      case Stmt::Kind::kBreak:
        return Flow::kBreak;
      case Stmt::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Flow Loop(const Stmt& stmt, Scope& scope, std::string* out) {
    std::vector<Value> items = Elements(Evaluate(*stmt.expr, scope), meter_);
    if (stmt.condition != nullptr) {
      std::erase_if(items, [&](const Value& item) {
        Scope inner{.outer = &scope};
        Assign(stmt.target, item, inner);
        return !Truthy(Evaluate(*stmt.condition, inner));
      });
    }
    if (items.empty()) {
      Scope inner{.outer = &scope};
      return Execute(stmt.otherwise, inner, out);
    }
    LoopState state{.items = items, .index = 0};
    for (; state.index < items.size(); ++state.index) {
      meter_.Steps(1);
      Scope inner{.outer = &scope, .loop = &state};
      Assign(stmt.target, items[state.index], inner);
      if (Execute(stmt.body, inner, out) == Flow::kBreak) break;
    }
    return Flow::kNext;
  }

  void Assign(const Target& target, const Value& value, Scope& scope) {
    if (!target.attribute.empty()) {
      const Value owner = Lookup(target.names[0], scope);
      if (!owner.Is<Namespace*>()) {
        meter_.Refuse("only a namespace's attributes can be assigned, and \"{}\" is a {}",
                      target.names[0], TypeName(owner));
      }
      std::get<Namespace*>(owner.data())->values[target.attribute] = value;
      return;
    }
    if (!target.unpack) {
      scope.variables[target.names[0]] = value;
      return;
    }
    const std::vector<Value> parts = Elements(value, meter_);
    if (parts.size() != target.names.size()) {
      meter_.Refuse("{} values for {} names", parts.size(), target.names.size());
    }
    for (size_t i = 0; i < parts.size(); ++i) scope.variables[target.names[i]] = parts[i];
  }

  Value Lookup(const std::string& name, const Scope& scope) {
    for (const Scope* at = &scope; at != nullptr; at = at->outer) {
      const auto found = at->variables.find(name);
      if (found != at->variables.end()) return found->second;
    }
    constexpr std::pair<std::string_view, Builtin> kBuiltins[] = {
        {"range", Builtin::kRange},
        {"dict", Builtin::kDict},
        {"namespace", Builtin::kNamespace},
        {"raise_exception", Builtin::kRaiseException}};
    for (const auto& [known, builtin] : kBuiltins) {
      if (known == name) return Value::Data(builtin);
    }
    meter_.Bytes(name.size());
    return Value::Data(Undefined{std::make_shared<const std::string>("\"" + name + "\"")});
  }

  const LoopState& LoopOf(const Scope& scope) const {
    const Scope* at = &scope;
    while (at != nullptr && at->loop == nullptr) at = at->outer;
    if (at == nullptr) meter_.Refuse("\"loop\" outside a loop");
    return *at->loop;
  }
  Value LoopAttribute(const std::string& name, const Scope& scope) const {
    const LoopState& loop = LoopOf(scope);
    const auto index = static_cast<int64_t>(loop.index);
    const auto size = static_cast<int64_t>(loop.items.size());
    if (name == "index") return Value::Of(index + 1);
    if (name == "index0") return Value::Of(index);
    if (name == "revindex") return Value::Of(size - index);
    if (name == "revindex0") return Value::Of(size - index - 1);
    if (name == "first") return Value::Of(index == 0);
    if (name == "last") return Value::Of(index + 1 == size);
    if (name == "length") return Value::Of(size);
    if (name == "previtem") return index == 0 ? Value() : loop.items[loop.index - 1];
    if (name == "nextitem") return index + 1 == size ? Value() : loop.items[loop.index + 1];
    // Depth counts recursive loops alone, which this subset lacks.
    return Value::Of(int64_t{name == "depth" ? 1 : 0});
  }

  Value Evaluate(const Expr& expr, Scope& scope) {
    const Open open(this);
    meter_.line = expr.line;
    switch (expr.kind) {
      case Expr::Kind::kConstant:
        return expr.value;
      case Expr::Kind::kName:
        return Lookup(expr.name, scope);
      case Expr::Kind::kLoop:
        return LoopAttribute(expr.name, scope);
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
      case Expr::Kind::kCall:
        return CallName(expr, scope);
      default:
        return Compute(expr, scope, EvaluateAll(expr.args, scope));
    }
  }

  std::vector<Value> EvaluateAll(const std::vector<ExprPtr>& exprs, Scope& scope) {
    std::vector<Value> values;
    values.reserve(exprs.size());
    for (const ExprPtr& expr : exprs) {
      values.push_back(expr == nullptr ? Value() : Evaluate(*expr, scope));
    }
    return values;
  }

  // Expressions whose parts are all evaluated first.
  Value Compute(const Expr& expr, Scope& scope, std::vector<Value> args) {
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
      case Expr::Kind::kCycle:
        return args[LoopOf(scope).index % args.size()];
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
      default: {  // kMethod, kFilter, kTest
        const Value self = args[0];
        args.erase(args.begin());
        return Call(*expr.callable, self, WithNamed(expr, std::move(args), scope), meter_);
      }
    }
  }

  Arguments WithNamed(const Expr& expr, std::vector<Value> positional, Scope& scope) {
    Arguments arguments{.positional = std::move(positional), .named = {}};
    for (const auto& [name, value] : expr.named) {
      arguments.named.emplace_back(name, Evaluate(*value, scope));
    }
    meter_.line = expr.line;
    return arguments;
  }

  Value MakeDict(const std::vector<Value>& args) {
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

  Value CompareChain(const Expr& expr, Scope& scope) {
    Value left = Evaluate(*expr.args[0], scope);
    for (size_t i = 0; i < expr.ops.size(); ++i) {
      Value right = Evaluate(*expr.args[i + 1], scope);
      meter_.line = expr.line;
      if (!Truthy(Combine(expr.ops[i], left, right, meter_))) return Value::Of(false);
      left = std::move(right);
    }
    return Value::Of(true);
  }

  Value CallName(const Expr& expr, Scope& scope) {
    const Value callee = Lookup(expr.name, scope);
    Arguments arguments = WithNamed(expr, EvaluateAll(expr.args, scope), scope);
    if (const auto* macro = std::get_if<const MacroDefinition*>(&callee.data())) {
      return CallMacro(**macro, std::move(arguments));
    }
    if (!callee.Is<Builtin>()) {
      meter_.Refuse("\"{}\" is {}, which cannot be called", expr.name, TypeName(callee));
    }
    switch (std::get<Builtin>(callee.data())) {
      case Builtin::kRange:
        return Range(arguments);
      case Builtin::kRaiseException:
        if (arguments.positional.size() != 1) meter_.Refuse("raise_exception wants one message");
        throw Error(Code::kInvalid, ToText(arguments.positional[0], meter_));
      default:
        return Mapping(std::move(arguments), std::get<Builtin>(callee.data()));
    }
  }

  Value CallMacro(const MacroDefinition& macro, Arguments arguments) {
    const int line = meter_.line;
    Scope scope{.outer = &global_};
    if (arguments.positional.size() > macro.parameters.size()) {
      meter_.Refuse("the macro \"{}\" takes at most {} arguments", macro.name,
                    macro.parameters.size());
    }
    for (size_t i = 0; i < arguments.positional.size(); ++i) {
      scope.variables[macro.parameters[i].name] = std::move(arguments.positional[i]);
    }
    for (auto& [name, value] : arguments.named) {
      const auto parameter =
          std::ranges::find(macro.parameters, name, &MacroDefinition::Parameter::name);
      if (parameter == macro.parameters.end() || scope.variables.contains(parameter->name)) {
        meter_.Refuse("the macro \"{}\" takes no argument \"{}\" here", macro.name, name);
      }
      scope.variables[parameter->name] = std::move(value);
    }
    for (const MacroDefinition::Parameter& parameter : macro.parameters) {
      if (scope.variables.contains(parameter.name)) continue;
      Value value =
          parameter.otherwise == nullptr ? Value() : Evaluate(*parameter.otherwise, scope);
      scope.variables[parameter.name] = std::move(value);
    }
    std::string text;
    Execute(macro.body, scope, &text);
    meter_.line = line;
    return MakeString(std::move(text), meter_);
  }

  Value Range(const Arguments& arguments) {
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

  // dict(...) and namespace(...): a mapping, then names.
  Value Mapping(Arguments arguments, Builtin builtin) {
    Dict dict;
    if (!arguments.positional.empty()) {
      const Dict* base = arguments.positional[0].dict();
      if (base == nullptr || arguments.positional.size() > 1) {
        meter_.Refuse("dict and namespace want a mapping or named values");
      }
      meter_.Bytes(base->items.size() * 4 * sizeof(Value));
      dict = *base;
    }
    for (auto& [name, value] : arguments.named) {
      meter_.Bytes(2 * name.size() + 3 * sizeof(Value));
      dict.Set(std::move(name), std::move(value));
    }
    if (builtin == Builtin::kDict) return Value::Of(std::move(dict));
    namespaces_.push_back(std::make_unique<Namespace>());
    meter_.Bytes(sizeof(Namespace));
    for (auto& [name, value] : dict.items) namespaces_.back()->values[name] = std::move(value);
    return Value::Data(namespaces_.back().get());
  }

  Meter meter_;
  int open_ = 0;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  Scope global_;
};

}  // namespace

std::string Render(const Body& body, const Dict& context, const Limits& limits) {
  return Renderer(context, limits).Run(body);
}

}  // namespace kvasir::jinja
