#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

using Kind = Token::Kind;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNameChar(char c) { return IsNameStart(c) || IsDigit(c); }

// Jinja knows one kind of line end, and drops the very last one of a template.
std::string NormalizedLines(std::string_view source) {
  std::string lines;
  lines.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      lines += source[i];
    } else {
      lines += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (lines.ends_with('\n')) lines.pop_back();
  return lines;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

  std::vector<Token> Run() {
    while (!rest_.empty()) {
      const size_t open = FindTag();
      if (open == std::string_view::npos) {
        Data(rest_);
        Advance(rest_.size());
        break;
      }
      Tag(open);
    }
    Add(Kind::kEnd);
    return std::move(tokens_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void Corrupt(fmt::format_string<Args...> format, Args&&... args) const {
    Fail(Code::kCorrupt, "chat template, line {}: {}", line_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  Token& Add(Kind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .line = line_, .text = std::move(text)});
    return tokens_.back();
  }
  void Data(std::string_view text) {
    if (!text.empty()) Add(Kind::kData, std::string(text));
  }

  char Peek(size_t i = 0) const { return i < rest_.size() ? rest_[i] : '\0'; }
  void Advance(size_t n) {
    line_ += static_cast<int>(
        std::count(rest_.begin(), rest_.begin() + static_cast<ptrdiff_t>(n), '\n'));
    rest_.remove_prefix(n);
  }
  void SkipSpace() {
    while (!rest_.empty()) {
      const size_t length = Utf8UnitLength(rest_);
      if (!IsUnicodeSpace(DecodeUtf8Unit(rest_.substr(0, length)))) return;
      Advance(length);
    }
  }
  bool AtLineStart() const { return rest_.data() == source_.data() || *(rest_.data() - 1) == '\n'; }

  size_t FindTag() const {
    for (size_t at = rest_.find('{'); at != std::string_view::npos; at = rest_.find('{', at + 1)) {
      const char next = Peek(at + 1);
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string_view::npos;
  }

  // White space before a tag goes with "-"; before blocks and comments that of their own line does
  // (lstrip_blocks), unless "+" keeps it.
  std::string_view DataBefore(size_t open, char kind, char sign) const {
    std::string_view data = rest_.substr(0, open);
    if (sign == '-') return TrimRight(data);
    if (sign == '+' || kind == '{') return data;
    const size_t line_end = data.rfind('\n');
    if (line_end == std::string_view::npos && !AtLineStart()) return data;
    const size_t line_begin = line_end == std::string_view::npos ? 0 : line_end + 1;
    return TrimRight(data).size() <= line_begin ? data.substr(0, line_begin) : data;
  }
  static std::string_view TrimRight(std::string_view text) {
    while (!text.empty()) {
      size_t length = 1;
      while (length < 4 && length < text.size() &&
             (static_cast<uint8_t>(text[text.size() - length]) & 0xC0) == 0x80) {
        ++length;
      }
      const std::string_view last = text.substr(text.size() - length);
      if (Utf8UnitLength(last) != length || !IsUnicodeSpace(DecodeUtf8Unit(last))) break;
      text.remove_suffix(length);
    }
    return text;
  }

  void Tag(size_t open) {
    const char kind = rest_[open + 1];
    const char sign = SignAt(open + 2);
    Data(DataBefore(open, kind, sign));
    Advance(open + 2 + (sign != '\0' ? 1 : 0));
    if (kind == '%' && Raw()) return;
    if (kind == '#') {
      Comment();
      return;
    }
    const bool print = kind == '{';
    Add(print ? Kind::kPrintBegin : Kind::kBlockBegin);
    std::vector<char> brackets;
    while (true) {
      SkipSpace();
      if (rest_.empty()) Corrupt("the tag is not closed with \"{}\"", print ? "}}" : "%}");
      if (brackets.empty() && TagEnds(print)) return;
      Inside(&brackets);
    }
  }

  char SignAt(size_t at) const { return Peek(at) == '-' || Peek(at) == '+' ? Peek(at) : '\0'; }
  size_t SpaceEnd(size_t at) const {
    while (at < rest_.size()) {
      const std::string_view unit = rest_.substr(at, Utf8UnitLength(rest_.substr(at)));
      if (!IsUnicodeSpace(DecodeUtf8Unit(unit))) break;
      at += unit.size();
    }
    return at;
  }
  // The bytes of "{% word %}" behind its sign, if that is what follows, and the sign at its end.
  size_t WordTag(size_t begin, std::string_view word, bool plus, char* sign) const {
    size_t at = SpaceEnd(begin);
    if (!rest_.substr(at).starts_with(word)) return 0;
    at = SpaceEnd(at + word.size());
    *sign = SignAt(at);
    if (*sign == '+' && !plus) return 0;
    if (*sign != '\0') ++at;
    return rest_.substr(at).starts_with("%}") ? at + 2 - begin : 0;
  }
  // {% raw %} to {% endraw %}: data, whatever it looks like.
  bool Raw() {
    char sign = '\0';
    const size_t length = WordTag(0, "raw", /*plus=*/false, &sign);
    if (length == 0) return false;
    Advance(length);
    if (sign == '-') SkipSpace();
    for (size_t open = rest_.find("{%"); open != std::string_view::npos;
         open = rest_.find("{%", open + 1)) {
      const char before = SignAt(open + 2);
      const size_t begin = open + 2 + (before != '\0' ? 1 : 0);
      const size_t end = WordTag(begin, "endraw", /*plus=*/true, &sign);
      if (end == 0) continue;
      Data(DataBefore(open, '%', before));
      Advance(begin + end);
      AfterTag(sign);
      return true;
    }
    Corrupt("the tag \"raw\" is not closed with \"endraw\"");
  }

  void Comment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) Corrupt("the comment is not closed with \"#}}\"");
    const char sign = end > 0 ? rest_[end - 1] : '\0';
    Advance(end + 2);
    AfterTag(sign);
  }
  void AfterTag(char sign) {
    if (sign == '-') {
      SkipSpace();
    } else if (sign != '+' && Peek() == '\n') {
      Advance(1);  // trim_blocks
    }
  }

  bool TagEnds(bool print) {
    const std::string_view close = print ? "}}" : "%}";
    const bool sign = Peek() == '-' || (!print && Peek() == '+');
    if (!rest_.substr(sign ? 1 : 0).starts_with(close)) return false;
    const char kept = sign ? Peek() : '\0';
    Add(print ? Kind::kPrintEnd : Kind::kBlockEnd);
    Advance(close.size() + (sign ? 1 : 0));
    // trim_blocks does not speak of prints: their line end stays.
    if (print) {
      if (kept == '-') SkipSpace();
    } else {
      AfterTag(kept);
    }
    return true;
  }

  void Inside(std::vector<char>* brackets) {
    const char c = Peek();
    if (IsNameStart(c)) {
      size_t n = 1;
      while (IsNameChar(Peek(n))) ++n;
      Add(Kind::kName, std::string(rest_.substr(0, n)));
      Advance(n);
    } else if (IsDigit(c)) {
      Number();
    } else if (c == '"' || c == '\'') {
      String(c);
    } else {
      Operator(brackets);
    }
  }

  // Digits from `at` on, with single "_" between them.
  size_t DigitsEnd(size_t at) const {
    while (IsDigit(Peek(at)) || (Peek(at) == '_' && IsDigit(Peek(at + 1)))) ++at;
    return at;
  }
  // 0x1F, 0o17, 0b11. False: no such number.
  bool PrefixedNumber() {
    const char letter = static_cast<char>(Peek(1) | 0x20);
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (Peek() != '0' || base == 0) return false;
    size_t end = 2;
    while (IsNameChar(Peek(end))) ++end;
    std::string digits(rest_.substr(2, end - 2));
    std::erase(digits, '_');
    int64_t number = 0;
    const char* last = digits.data() + digits.size();
    const auto result = std::from_chars(digits.data(), last, number, base);
    if (result.ec != std::errc() || result.ptr != last) {
      Corrupt("\"{}\" is no number of 64 bits", rest_.substr(0, end));
    }
    Add(Kind::kInteger, digits).integer = number;
    Advance(end);
    return true;
  }
  void Number() {
    if (PrefixedNumber()) return;
    size_t end = DigitsEnd(0);
    bool is_float = false;
    // "a.0.1" is two subscripts, not a subscript and a number.
    const bool after_dot =
        !tokens_.empty() && tokens_.back().kind == Kind::kOperator && tokens_.back().text == ".";
    if (!after_dot && Peek(end) == '.' && IsDigit(Peek(end + 1))) {
      is_float = true;
      end = DigitsEnd(end + 1);
    }
    if (!after_dot && (Peek(end) == 'e' || Peek(end) == 'E')) {
      const size_t digits = Peek(end + 1) == '+' || Peek(end + 1) == '-' ? end + 2 : end + 1;
      if (IsDigit(Peek(digits))) {
        is_float = true;
        end = DigitsEnd(digits);
      }
    }
    std::string text(rest_.substr(0, end));
    std::erase(text, '_');
    if (IsNameChar(Peek(end)) || (!is_float && text.size() > 1 && text[0] == '0')) {
      Corrupt("\"{}\" is no number in decimal", rest_.substr(0, std::min(end + 1, rest_.size())));
    }
    Token& token = Add(is_float ? Kind::kFloat : Kind::kInteger, text);
    const char* last = text.data() + text.size();
    const auto result = is_float ? std::from_chars(text.data(), last, token.number)
                                 : std::from_chars(text.data(), last, token.integer);
    if (result.ec != std::errc() || result.ptr != last) {
      Fail(Code::kUnsupported, "chat template, line {}: {} does not fit into 64 bits", line_, text);
    }
    Advance(end);
  }

  void String(char quote) {
    size_t end = 1;
    while (end < rest_.size() && rest_[end] != quote) end += rest_[end] == '\\' ? 2 : 1;
    if (end >= rest_.size()) Corrupt("a string is not closed with {}", quote);
    Add(Kind::kString, Unescape(rest_.substr(1, end - 1)));
    Advance(end + 1);
  }

  std::string Unescape(std::string_view text) const {
    constexpr std::string_view kLetters = "abfnrtv\\'\"";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
    std::string result;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        result += text[i];
        continue;
      }
      const char c = text[++i];
      if (const size_t at = kLetters.find(c); at != std::string_view::npos) {
        result += kMeanings[at];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        i += CodePoint(text.substr(i + 1), c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, &result);
      } else if (c >= '0' && c <= '7') {
        size_t digits = 1;
        while (digits < 3 && i + digits < text.size() && text[i + digits] >= '0' &&
               text[i + digits] <= '7') {
          ++digits;
        }
        i += CodePoint(text.substr(i), digits, 8, &result) - 1;
      } else if (c == 'N') {
        Fail(Code::kUnsupported, "chat template, line {}: \\N in a string", line_);
      } else if (c != '\n') {  // a line end behind a backslash joins the lines
        result += '\\';
        result += c;
      }
    }
    return result;
  }
  size_t CodePoint(std::string_view text, size_t digits, int base, std::string* result) const {
    const std::string_view number = text.substr(0, digits);
    uint32_t value = 0;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), value, base);
    if (number.size() < digits || error != std::errc() || end != number.data() + digits ||
        value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      Corrupt("a string's escape \"{}\" is not {} digits of a character", number, digits);
    }
    AppendUtf8(value, result);
    return digits;
  }

  void Operator(std::vector<char>* brackets) {
    static constexpr std::array<std::string_view, 25> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
    const auto found = std::ranges::find_if(
        kOperators, [this](std::string_view text) { return rest_.starts_with(text); });
    if (found == kOperators.end()) {
      Corrupt("unexpected \"{}\"", rest_.substr(0, Utf8UnitLength(rest_)));
    }
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      brackets->push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets->empty()) Corrupt("unexpected \"{}\"", c);
      if (brackets->back() != c) Corrupt("\"{}\" where \"{}\" is missing", c, brackets->back());
      brackets->pop_back();
    }
    Add(Kind::kOperator, std::string(*found));
    Advance(found->size());
  }

  const std::string source_;
  std::string_view rest_;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Lex(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    Fail(Code::kUnsupported, "chat template: {} bytes; at most {} are read", source.size(),
         kMaxSourceBytes);
  }
  return Lexer(NormalizedLines(source)).Run();
}

}  // namespace kvasir::jinja
