// The state of one rendering: scopes, and the evaluation of statements, expressions and calls.
//
// Invariants  A scope lives while its block runs; one that a macro was defined in lives as long as
//             the rendering, because the macro sees its variables. Statements and expressions that
//             are open inside each other are counted, so that the stack is bounded.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"

namespace kvasir::jinja {

// Variables of one block; blocks inside see those outside. Names point into the template or the
// context.
struct Scope {
  Scope* outer = nullptr;
  bool captured = false;  // by a macro
  std::unordered_map<std::string_view, Value> variables;
};

// A macro's definition and what its body sees.
struct Macro {
  const MacroDefinition* definition = nullptr;
  Scope* closure = nullptr;
};

class Interpreter {
 public:
  Interpreter(const Dict& context, const Limits& limits, const std::tm& now);
  std::string Run(const Body& body);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  // Expressions, statements and macros that may be open inside each other.
  static constexpr int kMaxOpen = 1000;

  class Open {
   public:
    explicit Open(Interpreter* interpreter);
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    ~Open() { --interpreter_->open_; }

   private:
    Interpreter* interpreter_;
  };
  // A scope for the time of a block, or longer if it is captured.
  class Inner {
   public:
    Inner(Interpreter* interpreter, Scope& outer);
    Inner(const Inner&) = delete;
    Inner& operator=(const Inner&) = delete;
    ~Inner();
    Scope& operator*() { return *scope_; }

   private:
    Interpreter* interpreter_;
    std::unique_ptr<Scope> scope_;
  };

  // interpreter.cc: statements
  Flow Execute(const Body& body, Scope& scope, std::string* out);
  Flow Execute(const Stmt& stmt, Scope& scope, std::string* out);
  Flow SetBlock(const Stmt& stmt, Scope& scope);
  Flow FilterBlock(const Stmt& stmt, Scope& scope, std::string* out);
  void With(const Stmt& stmt, Scope& scope, Scope& inner);
  Flow ForLoop(const Stmt& stmt, std::vector<Value> items, int64_t depth0, Scope& scope,
               std::string* out);
  void Assign(const Target& target, const Value& value, Scope& scope);
  Value Define(const MacroDefinition& definition, Scope& scope);
  void Write(std::string_view text, std::string* out);

  // expressions.cc
  Value Lookup(const std::string& name, const Scope& scope);
  Value Evaluate(const Expr& expr, Scope& scope);
  std::vector<Value> EvaluateAll(const std::vector<ExprPtr>& exprs, Scope& scope);
  Value Compute(const Expr& expr, Scope& scope, std::vector<Value> args);
  Value MakeDict(const std::vector<Value>& args);
  Value CompareChain(const Expr& expr, Scope& scope);
  Arguments WithNamed(const Expr& expr, std::vector<Value> positional, Scope& scope);

  // calls.cc
  Value CallValue(const Value& callee, const Expr& expr, Arguments arguments);
  Value CallMacro(const Macro& macro, Arguments arguments);
  void BindMacro(const MacroDefinition& macro, Arguments arguments, Scope& scope);
  Value CallLoop(const Loop& loop, const Arguments& arguments);
  Value CallBuiltin(Builtin builtin, Arguments arguments);
  Value Range(const Arguments& arguments);
  Value Mapping(Arguments arguments, Builtin builtin);
  Value StrftimeNow(const Arguments& arguments);

  Meter meter_;
  const std::tm now_;
  int open_ = 0;
  Value block_text_;  // of the filter block that is being filtered
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::vector<std::unique_ptr<Macro>> macros_;
  std::vector<std::unique_ptr<Scope>> captured_;
  Scope global_;
};

}  // namespace kvasir::jinja
