#include "text/jinja/parser_expressions.h"

namespace kvasir::jinja {

std::string ExpressionParser::Describe(const Token& token) {
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

void ExpressionParser::ExpectOp(std::string_view text) {
  if (!SkipOp(text)) Corrupt("{} where \"{}\" should be", Describe(Now()), text);
}

std::string ExpressionParser::ExpectName() {
  if (Now().kind != Kind::kName) Corrupt("{} where a name should be", Describe(Now()));
  return Take().text;
}

ExprPtr ExpressionParser::Node(Expr::Kind kind, int line, std::vector<ExprPtr> args) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  node->args = std::move(args);
  return node;
}

ExprPtr ExpressionParser::Deeper(ExprPtr node) const {
  const auto below = [&](const ExprPtr& arg) {
    if (arg != nullptr) node->depth = std::max(node->depth, arg->depth + 1);
  };
  for (const ExprPtr& arg : node->args) below(arg);
  for (const auto& [name, arg] : node->named) below(arg);
  below(node->spread);
  below(node->spread_named);
  if (node->depth > kMaxTreeDepth) {
    Unsupported(node->line, "an expression of more than {} levels", kMaxTreeDepth);
  }
  return node;
}

ExprPtr ExpressionParser::Expression() {
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

ExprPtr ExpressionParser::Or() {
  ExprPtr left = And();
  while (AtName("or")) {
    const int line = Take().line;
    left = Over(Expr::Kind::kOr, line, std::move(left), And());
  }
  return left;
}

ExprPtr ExpressionParser::And() {
  ExprPtr left = Not();
  while (AtName("and")) {
    const int line = Take().line;
    left = Over(Expr::Kind::kAnd, line, std::move(left), Not());
  }
  return left;
}

ExprPtr ExpressionParser::Not() {
  if (!AtName("not")) return Comparison();
  const Nesting nesting(&depth_, Now().line);
  const int line = Take().line;
  return Over(Expr::Kind::kNot, line, Not());
}

bool ExpressionParser::SkipComparison(Op* op) {
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

ExprPtr ExpressionParser::Comparison() {
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

ExprPtr ExpressionParser::Sum() {
  return LeftToRight(kSums, [this] { return Concat(); });
}

ExprPtr ExpressionParser::Concat() {
  const int line = Now().line;
  std::vector<ExprPtr> args;
  do {
    args.push_back(LeftToRight(
        kProducts, [this] { return LeftToRight(kPowers, [this] { return Unary(true); }); }));
  } while (SkipOp("~"));
  if (args.size() == 1) return std::move(args[0]);
  return Deeper(Node(Expr::Kind::kConcat, line, std::move(args)));
}

ExprPtr ExpressionParser::Unary(bool with_filters) {
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

ExprPtr ExpressionParser::Constant(Value value, int line) const {
  ExprPtr node = Node(Expr::Kind::kConstant, line);
  node->value = std::move(value);
  return node;
}

ExprPtr ExpressionParser::Primary() {
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

ExprPtr ExpressionParser::NameOrWord() {
  const Token token = Take();
  const std::string& word = token.text;
  if (word == "true" || word == "True") return Constant(Value::Of(true), token.line);
  if (word == "false" || word == "False") return Constant(Value::Of(false), token.line);
  if (word == "none" || word == "None") return Constant(Value::NoneValue(), token.line);
  if ((word == "cycler" || word == "joiner" || word == "lipsum") && AtOp("(")) {
    Unsupported(token.line, "the function \"{}\"", word);
  }
  for (MacroUse& use : macros_) {
    use.varargs = use.varargs || word == "varargs";
    use.kwargs = use.kwargs || word == "kwargs";
    use.caller = use.caller || word == "caller";
  }
  ExprPtr node = Node(Expr::Kind::kName, token.line);
  node->name = word;
  return node;
}

// Expressions up to the closing bracket, which is taken too.
std::vector<ExprPtr> ExpressionParser::Items(std::string_view close) {
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

ExprPtr ExpressionParser::DictItems(int line) {
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

bool ExpressionParser::AtTupleEnd(bool after_first) const {
  return Now().kind == Kind::kPrintEnd || Now().kind == Kind::kBlockEnd || AtOp(")") ||
         (after_first && AtName("recursive"));
}

ExprPtr ExpressionParser::Tuple(bool with_condition, bool in_parentheses) {
  const int line = Now().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!AtTupleEnd(!items.empty())) {
    items.push_back(with_condition ? Expression() : Or());
    if (!AtOp(",")) break;
    Take();
    is_tuple = true;
  }
  if (items.size() == 1 && !is_tuple) return std::move(items[0]);
  if (items.empty() && !in_parentheses) Corrupt("{} where a value should be", Describe(Now()));
  return Deeper(Node(Expr::Kind::kTuple, line, std::move(items)));
}

void ExpressionParser::TakeArguments(Expr* node) {
  ExpectOp("(");
  for (bool first = true; !SkipOp(")"); first = false) {
    if (!first) {
      ExpectOp(",");
      if (SkipOp(")")) return;
    }
    if (SkipOp("**")) {
      if (node->spread_named != nullptr) Corrupt("a second \"**\" among the arguments");
      node->spread_named = Expression();
    } else if (SkipOp("*")) {
      if (node->spread != nullptr || node->spread_named != nullptr) {
        Corrupt("\"*\" behind other arguments of its kind");
      }
      node->spread = Expression();
    } else if (Now().kind == Kind::kName && Is(Ahead(), Kind::kOperator, "=")) {
      if (node->spread_named != nullptr) Corrupt("an argument follows \"**\"");
      std::string name = Take().text;
      Take();
      node->named.emplace_back(std::move(name), Expression());
    } else {
      if (!node->named.empty() || node->spread != nullptr || node->spread_named != nullptr) {
        Corrupt("an argument without a name follows one with a name");
      }
      node->args.push_back(Expression());
    }
  }
}

ExprPtr ExpressionParser::WithArguments(Expr::Kind kind, int line, const Callable* callable,
                                        ExprPtr self) {
  ExprPtr node = Node(kind, line);
  node->callable = callable;
  node->args.push_back(std::move(self));
  if (AtOp("(")) TakeArguments(node.get());
  return Deeper(std::move(node));
}

ExprPtr ExpressionParser::Postfix(ExprPtr node) {
  while (true) {
    if (AtOp(".")) {
      node = Dot(std::move(node));
    } else if (AtOp("[")) {
      node = Subscript(std::move(node));
    } else if (AtOp("(")) {
      node = WithArguments(Expr::Kind::kCall, Now().line, nullptr, std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::Dot(ExprPtr object) {
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

ExprPtr ExpressionParser::Subscript(ExprPtr object) {
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
  return Over(Expr::Kind::kSlice, line, std::move(object), std::move(parts[0]), std::move(parts[1]),
              std::move(parts[2]));
}

ExprPtr ExpressionParser::FiltersAndTests(ExprPtr node) {
  while (true) {
    if (AtOp("|")) {
      const int line = Take().line;
      node = Filter(std::move(node), line);
    } else if (AtName("is")) {
      node = Test(std::move(node));
    } else if (AtOp("(")) {
      node = WithArguments(Expr::Kind::kCall, Now().line, nullptr, std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::Filter(ExprPtr node, int line) {
  const std::string name = DottedName();
  const Callable* filter = FindFilter(name);
  if (filter == nullptr) Unsupported(line, "the filter \"{}\"", name);
  return WithArguments(Expr::Kind::kFilter, line, filter, std::move(node));
}

ExprPtr ExpressionParser::Filters(ExprPtr node) {
  int line = Now().line;
  while (true) {
    node = Filter(std::move(node), line);
    if (!AtOp("|")) return node;
    line = Take().line;
  }
}

std::string ExpressionParser::DottedName() {
  std::string name = ExpectName();
  while (SkipOp(".")) name.append(1, '.').append(ExpectName());
  return name;
}

ExprPtr ExpressionParser::Test(ExprPtr object) {
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

}  // namespace kvasir::jinja
