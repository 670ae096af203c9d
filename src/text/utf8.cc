#include "text/utf8.h"

#include "base/error.h"

namespace kvasir {

namespace {

// What the Unicode standard's table 3-7 says about a lead byte: the number of bytes, and the range
// of the second one (the later ones are 80..BF).
struct Lead {
  size_t length = 0;
  uint8_t second_low = 0x80, second_high = 0xBF;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

// How many bytes of `text` fit the character that its first byte announces.
size_t FittingBytes(std::string_view text, const Lead& lead) {
  size_t n = 1;
  for (; n < lead.length && n < text.size(); ++n) {
    const auto byte = static_cast<uint8_t>(text[n]);
    const uint8_t low = n == 1 ? lead.second_low : 0x80;
    const uint8_t high = n == 1 ? lead.second_high : 0xBF;
    if (byte < low || byte > high) break;
  }
  return n;
}

}  // namespace

size_t Utf8CharLength(std::string_view text) {
  if (text.empty()) return 0;
  const Lead lead = LeadOf(static_cast<uint8_t>(text[0]));
  if (lead.length <= 1) return lead.length;
  return FittingBytes(text, lead) == lead.length ? lead.length : 0;
}

bool IsUnfinishedUtf8(std::string_view text) {
  const Lead lead = LeadOf(static_cast<uint8_t>(text[0]));
  return text.size() < lead.length && FittingBytes(text, lead) == text.size();
}

uint32_t DecodeUtf8Unit(std::string_view unit) {
  const auto first = static_cast<uint8_t>(unit[0]);
  if (first < 0x80) return first;
  if (unit.size() == 1) return 0x110000 + first;
  uint32_t code_point = first & (0x7F >> unit.size());
  for (size_t i = 1; i < unit.size(); ++i) {
    code_point = code_point << 6 | (static_cast<uint8_t>(unit[i]) & 0x3F);
  }
  return code_point;
}

void AppendUtf8(uint32_t c, std::string* out) {
  CHECK(c <= 0x10FFFF);
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

bool IsUnicodeSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

}  // namespace kvasir
