// Cuts a template into data and the tokens inside its tags, with white space handled as jinja2 does
// under trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir::jinja {

struct Token {
  enum class Kind {
    kData,
    kPrintBegin,
    kPrintEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  int line = 0;
  std::string text;  // of strings: unescaped
  int64_t integer = 0;
  double number = 0;
};

inline constexpr size_t kMaxSourceBytes = 1 << 20;

// The tokens of `source`, kEnd last. Errors: kCorrupt, kUnsupported, with the line.
std::vector<Token> Lex(std::string_view source);

}  // namespace kvasir::jinja
