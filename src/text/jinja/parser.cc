#include "text/jinja/parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>

#include "base/error.h"
#include "text/jinja/lexer.h"

namespace kvasir::jinja {

namespace {

using Kind = Token::Kind;

// How deep brackets, signs and blocks may nest: far more than people write, little for a stack.
constexpr int kMaxNesting = 64;

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
  ~Nesting() { --*depth_; }

 private:
  int* depth_;
};

// The stream of tokens, and expressions on it.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::string_view source) : tokens_(Lex(source)) {}

 protected:
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
  static std::string Describe(const Token& token) {
    switch (token.kind) {
      case Kind::kPrintEnd:
      case Kind::kBlockEnd:
        return "the end of the tag";
      case Kind::kEnd:
        return "the end of the template";
      default:
        return fmt::format("\"{}\"", token.text);
    }
  }
  void ExpectOp(std::string_view text) {
    if (!SkipOp(text)) Corrupt("\"{}\" where \"{}\" should be", Describe(Now()), text);
  }
  std::string ExpectName() {
    if (Now().kind != Kind::kName) Corrupt("{} where a name should be", Describe(Now()));
    return Take().text;
  }

  ExprPtr Node(Expr::Kind kind, int line, std::vector<ExprPtr> args = {}) const {
    auto node = std::make_unique<Expr>();
    node->kind = kind;
    node->line = line;
    node->args = std::move(args);
    return node;
  }
  template <typename... Exprs>
  ExprPtr Over(Expr::Kind kind, int line, Exprs... exprs) const {
    std::vector<ExprPtr> args;
    (args.push_back(std::move(exprs)), ...);
    return Deeper(Node(kind, line, std::move(args)));
  }
  // Sets a finished node's depth, which long chains of operators would otherwise grow without a
  // bound.
  ExprPtr Deeper(ExprPtr node) const {
    const auto below = [&](const ExprPtr& arg) {
      if (arg != nullptr) node->depth = std::max(node->depth, arg->depth + 1);
    };
    for (const ExprPtr& arg : node->args) below(arg);
    for (const auto& [name, arg] : node->named) below(arg);
    if (node->depth > kMaxTreeDepth) {
      Unsupported(node->line, "an expression of more than {} levels", kMaxTreeDepth);
    }
    return node;
  }

  // From loosest to tightest: x if y else z, or, and, not, comparisons, + -, ~, * / // %, **,
  // signs, then subscripts, calls, filters and tests.
  ExprPtr Expression() {
    const Nesting nesting(&depth_, Now().line);
    ExprPtr value = Or();
    while (AtName("if")) {
      const int line = Take().line;
      ExprPtr condition = Or();
      ExprPtr otherwise;
      if (SkipName("else")) otherwise = Expression();
      value = Over(Expr::Kind::kCondition, line, std::move(condition), std::move(value),
                   std::move(otherwise));
    }
    return value;
  }

  ExprPtr Or() {
    ExprPtr left = And();
    while (AtName("or")) {
      const int line = Take().line;
      left = Over(Expr::Kind::kOr, line, std::move(left), And());
    }
    return left;
  }
  ExprPtr And() {
    ExprPtr left = Not();
    while (AtName("and")) {
      const int line = Take().line;
      left = Over(Expr::Kind::kAnd, line, std::move(left), Not());
    }
    return left;
  }
  ExprPtr Not() {
    if (!AtName("not")) return Comparison();
    const Nesting nesting(&depth_, Now().line);
    const int line = Take().line;
    return Over(Expr::Kind::kNot, line, Not());
  }

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

  bool SkipComparison(Op* op) {
    if (SkipOperator(kComparisons, op)) return true;
    if (SkipName("in")) {
      *op = Op::kIn;
      return true;
    }
    if (AtName("not") && Is(Ahead(), Kind::kName, "in")) {
      Take();
      Take();
      *op = Op::kNotIn;
      return true;
    }
    return false;
  }
  ExprPtr Comparison() {
    const int line = Now().line;
    std::vector<ExprPtr> args;
    std::vector<Op> ops;
    args.push_back(Sum());
    for (Op op; SkipComparison(&op);) {
      ops.push_back(op);
      args.push_back(Sum());
    }
    if (ops.empty()) return std::move(args[0]);
    ExprPtr node = Node(Expr::Kind::kCompare, line, std::move(args));
    node->ops = std::move(ops);
    return Deeper(std::move(node));
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
  ExprPtr Sum() {
    return LeftToRight(kSums, [this] { return Concat(); });
  }
  ExprPtr Concat() {
    const int line = Now().line;
    std::vector<ExprPtr> args;
    do {
      args.push_back(LeftToRight(
          kProducts, [this] { return LeftToRight(kPowers, [this] { return Unary(true); }); }));
    } while (SkipOp("~"));
    if (args.size() == 1) return std::move(args[0]);
    return Deeper(Node(Expr::Kind::kConcat, line, std::move(args)));
  }

  ExprPtr Unary(bool with_filters) {
    ExprPtr node;
    if (AtOp("-") || AtOp("+")) {
      const Nesting nesting(&depth_, Now().line);
      const Token sign = Take();
      node = Over(sign.text == "-" ? Expr::Kind::kNegative : Expr::Kind::kPositive, sign.line,
                  Unary(false));
    } else {
      node = Primary();
    }
    node = Postfix(std::move(node));
    return with_filters ? FiltersAndTests(std::move(node)) : std::move(node);
  }

  ExprPtr Constant(Value value, int line) const {
    ExprPtr node = Node(Expr::Kind::kConstant, line);
    node->value = std::move(value);
    return node;
  }
  ExprPtr Primary() {
    const Nesting nesting(&depth_, Now().line);
    const int line = Now().line;
    switch (Now().kind) {
      case Kind::kName:
        return NameOrWord();
      case Kind::kInteger:
        return Constant(Value::Of(Take().integer), line);
      case Kind::kFloat:
        return Constant(Value::Of(Take().number), line);
      case Kind::kString: {
        std::string text = Take().text;
        while (Now().kind == Kind::kString) text += Take().text;
        return Constant(Value::Of(std::move(text)), line);
      }
      default:
        break;
    }
    if (SkipOp("(")) {
      ExprPtr inside = Tuple(/*with_condition=*/true, /*in_parentheses=*/true);
      ExpectOp(")");
      return inside;
    }
    if (SkipOp("[")) return Deeper(Node(Expr::Kind::kList, line, Items("]")));
    if (SkipOp("{")) return DictItems(line);
    Corrupt("{} where a value should be", Describe(Now()));
  }
  ExprPtr NameOrWord() {
    const Token token = Take();
    if (token.text == "true" || token.text == "True") return Constant(Value::Of(true), token.line);
    if (token.text == "false" || token.text == "False")
      return Constant(Value::Of(false), token.line);
    if (token.text == "none" || token.text == "None") {
      return Constant(Value::NoneValue(), token.line);
    }
    if (token.text == "loop") return LoopAttribute(token.line);
    if (in_macro_ &&
        (token.text == "caller" || token.text == "varargs" || token.text == "kwargs")) {
      Unsupported(token.line, "\"{}\" in a macro", token.text);
    }
    ExprPtr node = Node(Expr::Kind::kName, token.line);
    node->name = token.text;
    return node;
  }
  // A loop is no value of its own: only its attributes are read.
  ExprPtr LoopAttribute(int line) {
    static constexpr std::array<std::string_view, 11> kKnown = {
        "index",  "index0",   "revindex", "revindex0", "first", "last",
        "length", "previtem", "nextitem", "depth",     "depth0"};
    std::string name;
    if (SkipOp(".")) {
      name = ExpectName();
    } else if (AtOp("[") && Ahead().kind == Kind::kString) {
      Take();
      name = Take().text;
      ExpectOp("]");
    }
    if (name == "cycle" && AtOp("(")) {
      ExprPtr node = Node(Expr::Kind::kCycle, line);
      TakeArguments(node.get());
      if (node->args.empty() || !node->named.empty()) Corrupt("loop.cycle wants some values");
      return Deeper(std::move(node));
    }
    if (std::ranges::find(kKnown, name) == kKnown.end()) Unsupported(line, "\"loop.{}\"", name);
    ExprPtr node = Node(Expr::Kind::kLoop, line);
    node->name = std::move(name);
    return node;
  }

  // Expressions up to the closing bracket, which is taken too.
  std::vector<ExprPtr> Items(std::string_view close) {
    std::vector<ExprPtr> items;
    while (!SkipOp(close)) {
      if (!items.empty()) {
        ExpectOp(",");
        if (SkipOp(close)) break;
      }
      items.push_back(Expression());
    }
    return items;
  }
  ExprPtr DictItems(int line) {
    std::vector<ExprPtr> items;
    while (!SkipOp("}")) {
      if (!items.empty()) {
        ExpectOp(",");
        if (SkipOp("}")) break;
      }
      items.push_back(Expression());
      ExpectOp(":");
      items.push_back(Expression());
    }
    return Deeper(Node(Expr::Kind::kDict, line, std::move(items)));
  }

  bool AtTupleEnd() const {
    return Now().kind == Kind::kPrintEnd || Now().kind == Kind::kBlockEnd || AtOp(")");
  }
  ExprPtr Tuple(bool with_condition, bool in_parentheses) {
    const int line = Now().line;
    std::vector<ExprPtr> items;
    bool is_tuple = false;
    while (!AtTupleEnd()) {
      items.push_back(with_condition ? Expression() : Or());
      if (!AtOp(",")) break;
      Take();
      is_tuple = true;
    }
    if (items.size() == 1 && !is_tuple) return std::move(items[0]);
    if (items.empty() && !in_parentheses) Corrupt("{} where a value should be", Describe(Now()));
    return Deeper(Node(Expr::Kind::kTuple, line, std::move(items)));
  }

  void TakeArguments(Expr* node) {
    ExpectOp("(");
    for (bool first = true; !SkipOp(")"); first = false) {
      if (!first) {
        ExpectOp(",");
        if (SkipOp(")")) return;
      }
      if (AtOp("*") || AtOp("**")) Unsupported(Now().line, "\"{}\" before an argument", Now().text);
      if (Now().kind == Kind::kName && Is(Ahead(), Kind::kOperator, "=")) {
        std::string name = Take().text;
        Take();
        node->named.emplace_back(std::move(name), Expression());
      } else {
        if (!node->named.empty()) Corrupt("an argument without a name follows one with a name");
        node->args.push_back(Expression());
      }
    }
  }

  ExprPtr Postfix(ExprPtr node) {
    while (true) {
      if (AtOp(".")) {
        node = Dot(std::move(node));
      } else if (AtOp("[")) {
        node = Subscript(std::move(node));
      } else if (AtOp("(")) {
        node = NameCall(std::move(node));
      } else {
        return node;
      }
    }
  }
  ExprPtr Dot(ExprPtr object) {
    const int line = Take().line;
    if (Now().kind == Kind::kInteger) {
      return Over(Expr::Kind::kItem, line, std::move(object),
                  Constant(Value::Of(Take().integer), line));
    }
    std::string name = ExpectName();
    if (AtOp("(")) {
      const Callable* method = FindMethod(name);
      if (method == nullptr) Unsupported(line, "the method \"{}\"", name);
      return WithArguments(Expr::Kind::kMethod, line, method, std::move(object));
    }
    ExprPtr node = Over(Expr::Kind::kAttribute, line, std::move(object));
    node->name = std::move(name);
    return node;
  }
  ExprPtr WithArguments(Expr::Kind kind, int line, const Callable* callable, ExprPtr self) {
    ExprPtr node = Node(kind, line);
    node->callable = callable;
    node->args.push_back(std::move(self));
    if (AtOp("(")) TakeArguments(node.get());
    return Deeper(std::move(node));
  }
  ExprPtr Subscript(ExprPtr object) {
    const int line = Take().line;
    ExprPtr parts[3];
    size_t n = 0;
    if (!AtOp(":")) parts[0] = Expression();
    while (n < 2 && SkipOp(":")) {
      ++n;
      if (!AtOp(":") && !AtOp("]")) parts[n] = Expression();
    }
    if (AtOp(",")) Unsupported(line, "several subscripts in one bracket");
    ExpectOp("]");
    if (n == 0) return Over(Expr::Kind::kItem, line, std::move(object), std::move(parts[0]));
    return Over(Expr::Kind::kSlice, line, std::move(object), std::move(parts[0]),
                std::move(parts[1]), std::move(parts[2]));
  }
  ExprPtr NameCall(ExprPtr callee) {
    if (callee->kind != Expr::Kind::kName) {
      Unsupported(Now().line, "a call of something other than a name");
    }
    ExprPtr node = Node(Expr::Kind::kCall, callee->line);
    node->name = std::move(callee->name);
    TakeArguments(node.get());
    return Deeper(std::move(node));
  }

  ExprPtr FiltersAndTests(ExprPtr node) {
    while (true) {
      if (AtOp("|")) {
        const int line = Take().line;
        const std::string name = DottedName();
        const Callable* filter = FindFilter(name);
        if (filter == nullptr) Unsupported(line, "the filter \"{}\"", name);
        node = WithArguments(Expr::Kind::kFilter, line, filter, std::move(node));
      } else if (AtName("is")) {
        node = Test(std::move(node));
      } else {
        return node;
      }
    }
  }
  std::string DottedName() {
    std::string name = ExpectName();
    while (SkipOp(".")) name.append(1, '.').append(ExpectName());
    return name;
  }
  ExprPtr Test(ExprPtr object) {
    const int line = Take().line;
    const bool negated = SkipName("not");
    const std::string name = DottedName();
    const Callable* test = FindTest(name);
    if (test == nullptr) Unsupported(line, "the test \"{}\"", name);
    if (AtName("is")) Corrupt("tests cannot be chained with \"is\"");
    const bool takes_value =
        (Now().kind == Kind::kName && !AtName("else") && !AtName("or") && !AtName("and")) ||
        Now().kind == Kind::kString || Now().kind == Kind::kInteger || Now().kind == Kind::kFloat ||
        AtOp("[") || AtOp("{");
    ExprPtr node;
    if (takes_value) {
      node = Node(Expr::Kind::kTest, line);
      node->callable = test;
      node->args.push_back(std::move(object));
      node->args.push_back(Postfix(Primary()));
      node = Deeper(std::move(node));
    } else {
      node = WithArguments(Expr::Kind::kTest, line, test, std::move(object));
    }
    return negated ? Over(Expr::Kind::kNot, line, std::move(node)) : std::move(node);
  }

  bool in_macro_ = false;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

class Parser : ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body Run() {
    std::string end;
    return Statements({}, &end);
  }

 private:
  static StmtPtr New(Stmt::Kind kind, int line) {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = line;
    return stmt;
  }

  // Statements up to one of the words of `ends`, which is taken and told, or to the end of the
  // template if there are none.
  Body Statements(std::initializer_list<std::string_view> ends, std::string* end) {
    const Nesting nesting(&blocks_, Now().line);
    Body body;
    while (Now().kind != Kind::kEnd) {
      const int line = Now().line;
      if (Now().kind == Kind::kData) {
        body.push_back(New(Stmt::Kind::kText, line));
        body.back()->text = Take().text;
      } else if (Now().kind == Kind::kPrintBegin) {
        Take();
        body.push_back(New(Stmt::Kind::kPrint, line));
        body.back()->expr = Tuple(/*with_condition=*/true, /*in_parentheses=*/false);
        Expect(Kind::kPrintEnd, "}}");
      } else {
        Take();
        std::string word = ExpectName();
        if (std::ranges::find(ends, word) != ends.end()) {
          *end = std::move(word);
          return body;
        }
        body.push_back(Statement(word, line));
      }
    }
    if (ends.size() != 0) Corrupt("the template ends where \"{}\" should be", *(ends.end() - 1));
    return body;
  }
  void Expect(Kind kind, std::string_view text) {
    if (Now().kind != kind) Corrupt("{} where \"{}\" should be", Describe(Now()), text);
    Take();
  }
  void CloseTag() { Expect(Kind::kBlockEnd, "%}"); }
  Body Until(std::string_view word) {
    std::string end;
    Body body = Statements({word}, &end);
    CloseTag();
    return body;
  }

  StmtPtr Statement(std::string_view word, int line) {
    if (word == "if") return If(line);
    if (word == "for") return For(line);
    if (word == "set") return Set(line);
    if (word == "macro") return Macro(line);
    if (word == "generation") {
      CloseTag();
      StmtPtr stmt = New(Stmt::Kind::kScope, line);
      stmt->body = Until("endgeneration");
      return stmt;
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) Corrupt("\"{}\" outside a loop", word);
      CloseTag();
      return New(word == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue, line);
    }
    if (word.starts_with("end") || word == "elif" || word == "else") {
      Corrupt("\"{}\" closes nothing here", word);
    }
    Unsupported(line, "the statement \"{}\"", word);
  }

  StmtPtr If(int line) {
    StmtPtr stmt = New(Stmt::Kind::kIf, line);
    std::string end = "if";
    while (end != "endif") {
      Branch& branch = stmt->branches.emplace_back();
      const bool is_else = end == "else";
      if (!is_else) branch.condition = Tuple(/*with_condition=*/false, /*in_parentheses=*/false);
      CloseTag();
      branch.body =
          is_else ? Statements({"endif"}, &end) : Statements({"elif", "else", "endif"}, &end);
    }
    CloseTag();
    return stmt;
  }

  StmtPtr For(int line) {
    StmtPtr stmt = New(Stmt::Kind::kFor, line);
    stmt->target = AssignmentTarget(/*with_attribute=*/false);
    if (!SkipName("in")) Corrupt("{} where \"in\" should be", Describe(Now()));
    stmt->expr = Tuple(/*with_condition=*/false, /*in_parentheses=*/false);
    if (SkipName("if")) stmt->condition = Expression();
    if (AtName("recursive")) Unsupported(line, "a recursive loop");
    CloseTag();
    std::string end;
    ++loops_;
    stmt->body = Statements({"else", "endfor"}, &end);
    --loops_;
    CloseTag();
    if (end == "else") stmt->otherwise = Until("endfor");
    return stmt;
  }

  Target AssignmentTarget(bool with_attribute) {
    Target target;
    const bool parentheses = SkipOp("(");
    do {
      if (target.unpack && Now().kind != Kind::kName) break;  // "a, = ..."
      target.names.push_back(ExpectName());
      if (target.names.back() == "loop") Unsupported(Now().line, "a variable named \"loop\"");
      if (with_attribute && target.names.size() == 1 && SkipOp(".")) {
        target.attribute = ExpectName();
        return target;
      }
      target.unpack = target.unpack || AtOp(",");
    } while (SkipOp(",") && !AtName("in"));
    if (parentheses) ExpectOp(")");
    return target;
  }

  StmtPtr Set(int line) {
    StmtPtr stmt = New(Stmt::Kind::kSet, line);
    stmt->target = AssignmentTarget(/*with_attribute=*/true);
    if (SkipOp("=")) {
      stmt->expr = Tuple(/*with_condition=*/true, /*in_parentheses=*/false);
      CloseTag();
      return stmt;
    }
    if (AtOp("|")) Unsupported(line, "a filter on a set block");
    if (stmt->target.unpack) Corrupt("a set block assigns to one name");
    CloseTag();
    stmt->kind = Stmt::Kind::kSetBlock;
    stmt->body = Until("endset");
    return stmt;
  }

  StmtPtr Macro(int line) {
    // Inside a loop or a macro it would outlive the variables that it sees.
    if (loops_ > 0 || in_macro_) Unsupported(line, "a macro inside a loop or a macro");
    StmtPtr stmt = New(Stmt::Kind::kMacro, line);
    MacroDefinition& macro = stmt->macro;
    macro.name = ExpectName();
    ExpectOp("(");
    in_macro_ = true;
    while (!SkipOp(")")) {
      if (!macro.parameters.empty()) ExpectOp(",");
      MacroDefinition::Parameter& parameter = macro.parameters.emplace_back();
      parameter.name = ExpectName();
      if (SkipOp("=")) {
        parameter.otherwise = Expression();
      } else if (macro.parameters.size() > 1 &&
                 macro.parameters[macro.parameters.size() - 2].otherwise != nullptr) {
        Corrupt("a parameter without a default follows one with a default");
      }
    }
    CloseTag();
    macro.body = Until("endmacro");
    in_macro_ = false;
    return stmt;
  }

  int blocks_ = 0;
  int loops_ = 0;
};

}  // namespace

Body Parse(std::string_view source) { return Parser(source).Run(); }

}  // namespace kvasir::jinja
