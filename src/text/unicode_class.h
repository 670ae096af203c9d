// What Unicode says of a code point, from PCRE2's tables.
//
// Threads  Safe.
#pragma once

#include <cstdint>

namespace kvasir {

enum class UnicodeClass { kLetter, kAlphanumeric, kUnprintable };

// Values beyond U+10FFFF (broken bytes, see utf8.h) and surrogates are in no class.
bool InUnicodeClass(uint32_t code_point, UnicodeClass unicode_class);

}  // namespace kvasir
