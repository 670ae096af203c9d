// A parsed template: statements and expressions as plain trees.
//
// Invariants  No expression is deeper than kMaxTreeDepth, chains of operators included, and blocks
//             nest as little, so that walking or destroying a tree needs a bounded stack.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/callable.h"
#include "text/jinja/value.h"

namespace kvasir::jinja {

inline constexpr int kMaxTreeDepth = 200;

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class Op {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr {
  enum class Kind {
    kConstant,   // value
    kName,       // name
    kBlockText,  // what the filter block around it wrote
    kList,       // args
    kTuple,      // args
    kDict,       // args: key, value, key, value ...
    kAttribute,  // args[0].name
    kItem,       // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]], null where left out
    kCall,       // args[0] called with the other args and named
    kMethod,     // callable on args[0], with the other args and named
    kFilter,     // the same
    kTest,       // the same
    kNot,        // args[0]
    kNegative,   // args[0]
    kPositive,   // args[0]
    kAnd,        // args[0], args[1]
    kOr,         // args[0], args[1]
    kBinary,     // args[0] ops[0] args[1]
    kConcat,     // args joined as text
    kCompare,    // args[0] ops[0] args[1] ops[1] ...
    kCondition,  // args[1] if args[0] else args[2] (null: undefined)
  };
  Kind kind = Kind::kConstant;
  int line = 0;
  int depth = 1;
  std::string name;
  Value value;
  const Callable* callable = nullptr;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr spread, spread_named;  // f(*spread, **spread_named); null when absent
  std::vector<Op> ops;
};

// What an assignment writes to: a name, a namespace's attribute (name.attribute), or several
// targets that share out a sequence.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
  bool unpack = false;
};

struct Stmt;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

struct Branch {
  ExprPtr condition;  // null: else
  Body body;
};

struct MacroDefinition {
  struct Parameter {
    std::string name;
    ExprPtr otherwise;  // null: undefined when absent
  };
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  // Whether the body names these; a call may then give more than the parameters.
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;
};

struct Stmt {
  enum class Kind {
    kText,      // text
    kPrint,     // expr
    kIf,        // branches
    kFor,       // target in expr if condition: body, otherwise
    kSet,       // target = expr
    kSetBlock,  // target = body, through the filters of expr if not null
    kMacro,     // macro
    kCall,      // expr, a call that gets macro as its caller
    kFilter,    // expr, filters over the text of body
    kWith,      // bindings, then body; assignments stay inside
    kScope,     // body, whose assignments stay inside
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  ExprPtr expr, condition;
  Target target;
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExprPtr>> bindings;
  Body body, otherwise;
  MacroDefinition macro;
  bool recursive = false;
};

}  // namespace kvasir::jinja
