#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <string>

#include "base/error.h"
#include "format/quote.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

// White_Space of Unicode, spelled out: PCRE2's own \s also takes U+180E, which left that class long
// ago.
#define SPACE "\\t-\\r\\x{85}\\p{Z}"

// The ends of the newer patterns: white space that ends lines, and other white space.
#define LINES "|[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"
#define WORDLESS "| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*" LINES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

struct Rule {
  std::string_view name, pattern;
};
struct OtherName {
  std::string_view name, rule;
};
constexpr OtherName kOtherNames[] = {
    {"llama-bpe", "llama3"}, {"llama-v3", "llama3"}, {"deepseek-r1-qwen", "qwen2"}};
// Every pattern matches at every place of every text, so that a match is always anchored.
constexpr Rule kRules[] = {
    {"gpt-2", "'(?:[sdmt]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|[" SPACE
              "]+(?![^" SPACE "])|[" SPACE "]+"},
    // GPT-2's rule between single digits. A digit is a border, so spaces before one stay together.
    {"smollm", "\\p{N}|'(?:[sdmt]|re|ve|ll)| ?\\p{L}+| ?[^" SPACE "\\p{L}\\p{N}]+|[" SPACE
               "]+(?![^" SPACE "\\p{N}])|[" SPACE "]+"},
    {"qwen2", "'(?i:[sdmt]|re|ve|ll)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" WORDLESS},
    {"llama3", "'(?i:[sdmt]|re|ve|ll)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" WORDLESS},
    // Words change at a capital after small letters; a slash belongs to the line that it ends.
    {"tekken", "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER
               "*|\\p{N}| ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n/]*" LINES},
};
#undef LOWER
#undef UPPER
#undef WORDLESS
#undef LINES
#undef SPACE

const Rule& RuleFor(std::string_view name) {
  for (const OtherName& other : kOtherNames) {
    if (other.name == name) name = other.rule;
  }
  for (const Rule& rule : kRules) {
    if (rule.name == name) return rule;
  }
  Fail(Code::kUnsupported, "tokenizer.ggml.pre: unknown pre-tokenizer {}; known are {}",
       Quoted(name), PreTokenizer::KnownRules());
}

}  // namespace

struct PreTokenizer::Pattern {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;

  ~Pattern() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

std::string PreTokenizer::KnownRules() {
  std::string known;
  for (const Rule& rule : kRules) {
    known += known.empty() ? "" : ", ";
    known += rule.name;
  }
  return known;
}

PreTokenizer::PreTokenizer(std::string_view name) : pattern_(std::make_unique<Pattern>()) {
  const Rule& rule = RuleFor(name);
  rule_ = rule.name;
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  pattern_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rule.pattern.data()), rule.pattern.size(),
                    PCRE2_UTF | PCRE2_ANCHORED, &error, &error_offset, nullptr);
  CHECK_MSG(pattern_->code != nullptr, "{}: PCRE2 error {} at {}", rule.name, error, error_offset);
  // Where the system forbids making code at run time, the interpreter gives the same answers.
  (void)pcre2_jit_compile(pattern_->code, PCRE2_JIT_COMPLETE);
  pattern_->context = pcre2_match_context_create(nullptr);
  CHECK(pattern_->context != nullptr);
  // Backtracking over a run of spaces is linear, but the default counts its steps and gives up.
  pcre2_set_match_limit(pattern_->context, UINT32_MAX);
}

PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::Split(std::string_view text,
                         const std::function<void(std::string_view)>& piece) const {
  size_t begin = 0, at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
    } else if (const size_t length = Utf8CharLength(text.substr(at)); length != 0) {
      at += length;
    } else {
      SplitValid(text.substr(begin, at - begin), piece);
      piece(text.substr(at, 1));
      begin = ++at;
    }
  }
  SplitValid(text.substr(begin), piece);
}

void PreTokenizer::SplitValid(std::string_view text,
                              const std::function<void(std::string_view)>& piece) const {
  if (text.empty()) return;
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  CHECK(match != nullptr);
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
  size_t at = 0;
  while (at < text.size()) {
    const int result =
        pcre2_match(pattern_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                    PCRE2_NO_UTF_CHECK, match.get(), pattern_->context);
    CHECK_MSG(result >= 0 && range[0] == at && range[1] > at, "PCRE2 answered {} at {}", result,
              at);
    piece(text.substr(at, range[1] - at));
    at = range[1];
  }
}

}  // namespace kvasir
