// UTF-8 as both halves of this room need it: bytes from outside may be anything, so every step
// takes a unit, which is a well-formed character or else one single byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

// Bytes of the well-formed character at the start of `text` (1 to 4); 0 if there is none. Overlong
// forms, surrogates and values beyond U+10FFFF are not well-formed.
size_t Utf8CharLength(std::string_view text);

// Bytes of the unit at the start of `text`, which must not be empty.
inline size_t Utf8UnitLength(std::string_view text) {
  if (static_cast<unsigned char>(text[0]) < 0x80) return 1;
  const size_t length = Utf8CharLength(text);
  return length == 0 ? 1 : length;
}

// Whether the whole of `text` (not empty) begins a character that only further bytes can complete.
bool IsUnfinishedUtf8(std::string_view text);

// Code point of a unit; a single byte that is no character stands for itself plus 0x110000, a value
// that equals no code point.
uint32_t DecodeUtf8Unit(std::string_view unit);
void AppendUtf8(uint32_t code_point, std::string* out);

// White space as Python's str.isspace has it: Unicode's White_Space and U+001C to U+001F.
bool IsUnicodeSpace(uint32_t code_point);

}  // namespace kvasir
