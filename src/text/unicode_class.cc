#include "text/unicode_class.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

using Pattern = std::unique_ptr<pcre2_code, void (*)(pcre2_code*)>;

Pattern Compile(const char* pattern) {
  int error = 0;
  PCRE2_SIZE at = 0;
  Pattern code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &at, nullptr),
            pcre2_code_free);
  CHECK(code != nullptr);
  return code;
}

}  // namespace

bool InUnicodeClass(uint32_t code_point, UnicodeClass unicode_class) {
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) return false;
  static const Pattern codes[] = {Compile("\\p{L}"), Compile("[\\p{L}\\p{N}]"),
                               Compile("[\\p{C}\\p{Z}]")};
  std::string text;
  AppendUtf8(code_point, &text);
  thread_local const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  CHECK(match != nullptr);
  return pcre2_match(codes[static_cast<size_t>(unicode_class)].get(),
                     reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, PCRE2_NO_UTF_CHECK,
                     match.get(), nullptr) >= 0;
}

}  // namespace kvasir
