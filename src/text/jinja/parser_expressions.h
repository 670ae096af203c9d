// The expressions of a template, as a recursive descent over its tokens.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace kvasir::jinja {

// How deep brackets, signs and blocks may nest: far more than people write, little for a stack.
inline constexpr int kMaxNesting = 64;

template <typename... Args>
[[noreturn]] void Unsupported(int line, fmt::format_string<Args...> format, Args&&... args) {
  Fail(Code::kUnsupported, "chat template, line {}: {}", line,
       fmt::format(format, std::forward<Args>(args)...));
}

class Nesting {
 public:
  Nesting(int* depth, int line) : depth_(depth) {
    if (*depth_ >= kMaxNesting) Unsupported(line, "more than {} levels of nesting", kMaxNesting);
    ++*depth_;
  }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;
  ~Nesting() { --*depth_; }

 private:
  int* depth_;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(std::string_view source) : tokens_(Lex(source)) {}

 protected:
  using Kind = Token::Kind;

  template <typename... Args>
  [[noreturn]] void Corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    Fail(Code::kCorrupt, "chat template, line {}: {}", Now().line,
         fmt::format(format, std::forward<Args>(args)...));
  }

  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token Take() { return std::move(tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]); }
  static bool Is(const Token& token, Kind kind, std::string_view text) {
    return token.kind == kind && token.text == text;
  }
  bool AtOp(std::string_view text) const { return Is(Now(), Kind::kOperator, text); }
  bool AtName(std::string_view text) const { return Is(Now(), Kind::kName, text); }
  bool SkipOp(std::string_view text) {
    if (!AtOp(text)) return false;
    Take();
    return true;
  }
  bool SkipName(std::string_view text) {
    if (!AtName(text)) return false;
    Take();
    return true;
  }
  static std::string Describe(const Token& token);
  void ExpectOp(std::string_view text);
  std::string ExpectName();

  ExprPtr Node(Expr::Kind kind, int line, std::vector<ExprPtr> args = {}) const;
  // Sets a finished node's depth, which long chains of operators would otherwise grow without a
  // bound.
  ExprPtr Deeper(ExprPtr node) const;
  template <typename... Exprs>
  ExprPtr Over(Expr::Kind kind, int line, Exprs... exprs) const {
    std::vector<ExprPtr> args;
    (args.push_back(std::move(exprs)), ...);
    return Deeper(Node(kind, line, std::move(args)));
  }

  // From loosest to tightest: x if y else z, or, and, not, comparisons, + -, ~, * / // %, **,
  // signs, then subscripts, calls, filters and tests.
  ExprPtr Expression();
  // Expressions separated by commas; one alone without a comma is itself.
  ExprPtr Tuple(bool with_condition, bool in_parentheses);
  ExprPtr Unary(bool with_filters);
  // `node | filter | filter ...`, from the name of the first filter on.
  ExprPtr Filters(ExprPtr node);

  // What the macros around name besides their parameters.
  struct MacroUse {
    bool varargs = false, kwargs = false, caller = false;
  };
  std::vector<MacroUse> macros_;

 private:
  struct Operator {
    std::string_view text;
    Op op;
  };
  static constexpr std::array<Operator, 6> kComparisons = {{
      {"==", Op::kEqual},
      {"!=", Op::kNotEqual},
      {"<", Op::kLess},
      {"<=", Op::kLessEqual},
      {">", Op::kGreater},
      {">=", Op::kGreaterEqual},
  }};
  static constexpr std::array<Operator, 2> kSums = {{{"+", Op::kAdd}, {"-", Op::kSubtract}}};
  static constexpr std::array<Operator, 4> kProducts = {
      {{"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}}};
  static constexpr std::array<Operator, 1> kPowers = {{{"**", Op::kPower}}};

  template <size_t kN>
  bool SkipOperator(const std::array<Operator, kN>& operators, Op* op) {
    if (Now().kind != Kind::kOperator) return false;
    for (const Operator& candidate : operators) {
      if (Now().text != candidate.text) continue;
      Take();
      *op = candidate.op;
      return true;
    }
    return false;
  }
  template <size_t kN, typename Next>
  ExprPtr LeftToRight(const std::array<Operator, kN>& operators, Next&& next) {
    ExprPtr left = next();
    const int line = Now().line;
    for (Op op; SkipOperator(operators, &op);) {
      left = Over(Expr::Kind::kBinary, line, std::move(left), next());
      left->ops = {op};
    }
    return left;
  }
  bool SkipComparison(Op* op);

  ExprPtr Or();
  ExprPtr And();
  ExprPtr Not();
  ExprPtr Comparison();
  ExprPtr Sum();
  ExprPtr Concat();
  ExprPtr Primary();
  ExprPtr Constant(Value value, int line) const;
  ExprPtr NameOrWord();
  std::vector<ExprPtr> Items(std::string_view close);
  ExprPtr DictItems(int line);
  bool AtTupleEnd(bool after_first) const;

  void TakeArguments(Expr* node);
  ExprPtr WithArguments(Expr::Kind kind, int line, const Callable* callable, ExprPtr self);
  ExprPtr Postfix(ExprPtr node);
  ExprPtr Dot(ExprPtr object);
  ExprPtr Subscript(ExprPtr object);
  ExprPtr FiltersAndTests(ExprPtr node);
  ExprPtr Filter(ExprPtr node, int line);
  ExprPtr Test(ExprPtr object);
  std::string DottedName();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace kvasir::jinja
