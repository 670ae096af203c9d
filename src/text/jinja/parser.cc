#include "text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "text/jinja/parser_expressions.h"

namespace kvasir::jinja {

namespace {

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
    if (word == "call") return CallBlock(line);
    if (word == "filter") return FilterBlock(line);
    if (word == "with") return With(line);
    if (word == "generation") return Generation(line);
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
    if (HasName(stmt->target, "loop")) Corrupt("a loop over a variable named \"loop\"");
    if (!SkipName("in")) Corrupt("{} where \"in\" should be", Describe(Now()));
    stmt->expr = Tuple(/*with_condition=*/false, /*in_parentheses=*/false);
    if (SkipName("if")) stmt->condition = Expression();
    stmt->recursive = SkipName("recursive");
    CloseTag();
    std::string end;
    ++loops_;
    stmt->body = Statements({"else", "endfor"}, &end);
    --loops_;
    CloseTag();
    if (end == "else") stmt->otherwise = Until("endfor");
    return stmt;
  }

  static bool HasName(const Target& target, std::string_view name) {
    return target.name == name || std::ranges::any_of(target.parts, [&](const Target& part) {
             return HasName(part, name);
           });
  }
  Target AssignmentTarget(bool with_attribute) {
    const Nesting nesting(&targets_, Now().line);
    Target target = SingleTarget(with_attribute);
    if (!AtOp(",")) return target;
    Target all{.unpack = true};
    all.parts.push_back(std::move(target));
    while (SkipOp(",")) {
      if (!AtOp("(") && Now().kind != Kind::kName) break;  // "a, = ..."
      all.parts.push_back(SingleTarget(with_attribute));
    }
    return all;
  }
  Target SingleTarget(bool with_attribute) {
    if (SkipOp("(")) {
      Target inside = AssignmentTarget(/*with_attribute=*/false);
      ExpectOp(")");
      return inside;
    }
    Target target;
    target.name = ExpectName();
    for (const char* word : {"true", "false", "none", "True", "False", "None"}) {
      if (target.name == word) Corrupt("\"{}\" is no variable", word);
    }
    if (with_attribute && SkipOp(".")) target.attribute = ExpectName();
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
    if (stmt->target.unpack) Corrupt("a set block assigns to one name");
    stmt->kind = Stmt::Kind::kSetBlock;
    if (SkipOp("|")) stmt->expr = Filters(Node(Expr::Kind::kBlockText, line));
    CloseTag();
    stmt->body = Until("endset");
    return stmt;
  }

  StmtPtr FilterBlock(int line) {
    StmtPtr stmt = New(Stmt::Kind::kFilter, line);
    stmt->expr = Filters(Node(Expr::Kind::kBlockText, line));
    CloseTag();
    stmt->body = Until("endfilter");
    return stmt;
  }

  StmtPtr With(int line) {
    StmtPtr stmt = New(Stmt::Kind::kWith, line);
    while (Now().kind != Kind::kBlockEnd) {
      if (!stmt->bindings.empty()) ExpectOp(",");
      Target target = SingleTarget(/*with_attribute=*/false);
      ExpectOp("=");
      stmt->bindings.emplace_back(std::move(target), Expression());
    }
    CloseTag();
    stmt->body = Until("endwith");
    return stmt;
  }

  StmtPtr Generation(int line) {
    CloseTag();
    StmtPtr stmt = New(Stmt::Kind::kScope, line);
    // A function of its own in jinja2, which no loop around can be left from.
    const int loops = std::exchange(loops_, 0);
    stmt->body = Until("endgeneration");
    loops_ = loops;
    return stmt;
  }

  void Parameters(MacroDefinition* macro) {
    while (!SkipOp(")")) {
      if (!macro->parameters.empty()) ExpectOp(",");
      MacroDefinition::Parameter parameter{ExpectName(), nullptr};
      if (SkipOp("=")) {
        parameter.otherwise = Expression();
      } else if (!macro->parameters.empty() && macro->parameters.back().otherwise != nullptr) {
        Corrupt("a parameter without a default follows one with a default");
      }
      macro->parameters.push_back(std::move(parameter));
    }
  }
  void MacroBody(MacroDefinition* macro, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    macros_.emplace_back();
    CloseTag();
    macro->body = Until(end);
    macro->takes_varargs = macros_.back().varargs;
    macro->takes_kwargs = macros_.back().kwargs;
    macro->takes_caller = macros_.back().caller;
    macros_.pop_back();
    loops_ = loops;
  }

  StmtPtr Macro(int line) {
    StmtPtr stmt = New(Stmt::Kind::kMacro, line);
    stmt->macro.name = ExpectName();
    ExpectOp("(");
    Parameters(&stmt->macro);
    MacroBody(&stmt->macro, "endmacro");
    return stmt;
  }

  StmtPtr CallBlock(int line) {
    StmtPtr stmt = New(Stmt::Kind::kCall, line);
    stmt->macro.name = "caller";
    if (SkipOp("(")) Parameters(&stmt->macro);
    stmt->expr = Expression();
    if (stmt->expr->kind != Expr::Kind::kCall) Corrupt("a call block without a call of a macro");
    MacroBody(&stmt->macro, "endcall");
    return stmt;
  }

  int blocks_ = 0;
  int targets_ = 0;
  int loops_ = 0;
};

}  // namespace

Body Parse(std::string_view source) { return Parser(source).Run(); }

}  // namespace kvasir::jinja
