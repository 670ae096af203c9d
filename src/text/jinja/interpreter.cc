// The interpreter's statements.
#include "text/jinja/interpreter.h"

#include <algorithm>

#include "text/jinja/print.h"
#include "text/jinja/renderer.h"

namespace kvasir::jinja {

Interpreter::Open::Open(Interpreter* interpreter) : interpreter_(interpreter) {
  if (interpreter_->open_ >= kMaxOpen) interpreter_->meter_.Refuse("calls nest too deeply");
  interpreter_->meter_.Steps(1);
  ++interpreter_->open_;
}

Interpreter::Inner::Inner(Interpreter* interpreter, Scope& outer)
    : interpreter_(interpreter), scope_(std::make_unique<Scope>()) {
  scope_->outer = &outer;
}
Interpreter::Inner::~Inner() {
  if (scope_->captured) interpreter_->captured_.push_back(std::move(scope_));
}

Interpreter::Interpreter(const Dict& context, const Limits& limits, const std::tm& now)
    : meter_(limits), now_(now) {
  for (const auto& [name, value] : context.items) global_.variables[name] = value;
}

std::string Interpreter::Run(const Body& body) {
  std::string out;
  Execute(body, global_, &out);
  return out;
}

void Interpreter::Write(std::string_view text, std::string* out) {
  meter_.Bytes(text.size());
  *out += text;
}

Interpreter::Flow Interpreter::Execute(const Body& body, Scope& scope, std::string* out) {
  for (const StmtPtr& stmt : body) {
    const Open open(this);
    meter_.line = stmt->line;
    const Flow flow = Execute(*stmt, scope, out);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Execute(const Stmt& stmt, Scope& scope, std::string* out) {
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
      return ForLoop(stmt, Elements(Evaluate(*stmt.expr, scope), meter_), 0, scope, out);
    case Stmt::Kind::kSet:
      Assign(stmt.target, Evaluate(*stmt.expr, scope), scope);
      return Flow::kNext;
    case Stmt::Kind::kSetBlock:
      return SetBlock(stmt, scope);
    case Stmt::Kind::kMacro:
      scope.variables[stmt.macro.name] = Define(stmt.macro, scope);
      return Flow::kNext;
    case Stmt::Kind::kCall: {
      std::vector<Value> args = EvaluateAll(stmt.expr->args, scope);
      const Value callee = args[0];
      args.erase(args.begin());
      Arguments arguments = WithNamed(*stmt.expr, std::move(args), scope);
      arguments.named.emplace_back("caller", Define(stmt.macro, scope));
      *out += ToText(CallValue(callee, *stmt.expr, std::move(arguments)), meter_);
      return Flow::kNext;
    }
    case Stmt::Kind::kFilter:
      return FilterBlock(stmt, scope, out);
    case Stmt::Kind::kWith:
    case Stmt::Kind::kScope: {
      Inner inner(this, scope);
      With(stmt, scope, *inner);
      return Execute(stmt.body, *inner, out);
    }
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::SetBlock(const Stmt& stmt, Scope& scope) {
  std::string text;
  Inner inner(this, scope);
  const Flow flow = Execute(stmt.body, *inner, &text);
  if (flow != Flow::kNext) return flow;
  Value value = MakeString(std::move(text), meter_);
  if (stmt.expr != nullptr) {
    block_text_ = std::move(value);
    value = MakeString(ToText(Evaluate(*stmt.expr, *inner), meter_), meter_);
  }
  Assign(stmt.target, value, scope);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::FilterBlock(const Stmt& stmt, Scope& scope, std::string* out) {
  std::string text;
  Inner inner(this, scope);
  const Flow flow = Execute(stmt.body, *inner, &text);
  if (flow != Flow::kNext) return flow;
  block_text_ = MakeString(std::move(text), meter_);
  *out += ToText(Evaluate(*stmt.expr, *inner), meter_);
  return Flow::kNext;
}

// All values are those outside: none sees another of the same tag.
void Interpreter::With(const Stmt& stmt, Scope& scope, Scope& inner) {
  for (const auto& [target, expr] : stmt.bindings) {
    Assign(target, Evaluate(*expr, scope), inner);
  }
}

Interpreter::Flow Interpreter::ForLoop(const Stmt& stmt, std::vector<Value> items, int64_t depth0,
                                       Scope& scope, std::string* out) {
  const Open open(this);
  if (stmt.condition != nullptr) {
    std::erase_if(items, [&](const Value& item) {
      Inner inner(this, scope);
      Assign(stmt.target, item, *inner);
      return !Truthy(Evaluate(*stmt.condition, *inner));
    });
  }
  if (items.empty()) {
    Inner inner(this, scope);
    return Execute(stmt.otherwise, *inner, out);
  }
  const auto loop = std::make_shared<Loop>();
  *loop = {.items = std::move(items), .depth0 = depth0, .stmt = &stmt, .scope = &scope};
  // Whoever keeps the loop beyond its end finds no scope in it that is gone.
  const std::unique_ptr<Loop, void (*)(Loop*)> end(loop.get(), [](Loop* ended) {
    ended->stmt = nullptr;
    ended->changed.clear();
  });
  for (; loop->index < loop->items.size(); ++loop->index) {
    meter_.Steps(1);
    Inner inner(this, scope);
    (*inner).variables["loop"] = Value::Data(LoopPtr(loop));
    Assign(stmt.target, loop->items[loop->index], *inner);
    if (Execute(stmt.body, *inner, out) == Flow::kBreak) break;
  }
  return Flow::kNext;
}

void Interpreter::Assign(const Target& target, const Value& value, Scope& scope) {
  if (target.unpack) {
    const std::vector<Value> parts = Elements(value, meter_);
    if (parts.size() != target.parts.size()) {
      meter_.Refuse("{} values for {} names", parts.size(), target.parts.size());
    }
    for (size_t i = 0; i < parts.size(); ++i) Assign(target.parts[i], parts[i], scope);
    return;
  }
  if (target.attribute.empty()) {
    scope.variables[target.name] = value;
    return;
  }
  const Value owner = Lookup(target.name, scope);
  if (!owner.Is<Namespace*>()) {
    meter_.Refuse("only a namespace's attributes can be assigned, and \"{}\" is a {}", target.name,
                  TypeName(owner));
  }
  meter_.Bytes(target.attribute.size() + 2 * sizeof(Value));
  std::get<Namespace*>(owner.data())->values[target.attribute] = value;
}

Value Interpreter::Define(const MacroDefinition& definition, Scope& scope) {
  meter_.Bytes(1024);  // the macro, and the scopes that live on with it
  for (Scope* at = &scope; at != nullptr && !at->captured; at = at->outer) at->captured = true;
  macros_.push_back(std::make_unique<Macro>(Macro{&definition, &scope}));
  return Value::Data(static_cast<const Macro*>(macros_.back().get()));
}

std::string Render(const Body& body, const Dict& context, const Limits& limits,
                   const std::tm& now) {
  return Interpreter(context, limits, now).Run(body);
}

}  // namespace kvasir::jinja
