#include "text/jinja/strings.h"

#include <locale.h>
#include <wctype.h>

#include <algorithm>

#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

std::string_view FirstUnit(std::string_view text) { return text.substr(0, Utf8UnitLength(text)); }
std::string_view LastUnit(std::string_view text) {
  for (size_t length = std::min<size_t>(4, text.size()); length > 1; --length) {
    const std::string_view last = text.substr(text.size() - length);
    if (Utf8CharLength(last) == length) return last;
  }
  return text.substr(text.size() - 1);
}

bool IsSpaceUnit(std::string_view unit) { return IsUnicodeSpace(DecodeUtf8Unit(unit)); }

// The C library's table of letters, without touching the process's own locale.
locale_t UnicodeLocale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}
uint32_t UpperOf(uint32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  const locale_t locale = UnicodeLocale();
  return locale == nullptr || c > 0x10FFFF ? c : towupper_l(c, locale);
}
uint32_t LowerOf(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  const locale_t locale = UnicodeLocale();
  return locale == nullptr || c > 0x10FFFF ? c : towlower_l(c, locale);
}

void AppendMapped(std::string_view text, uint32_t (*map)(uint32_t), std::string* out) {
  while (!text.empty()) {
    const std::string_view unit = FirstUnit(text);
    const uint32_t c = DecodeUtf8Unit(unit);
    if (c > 0x10FFFF) {
      *out += unit;
    } else {
      AppendUtf8(map(c), out);
    }
    text.remove_prefix(unit.size());
  }
}

bool AllOfCase(std::string_view text, uint32_t (*to_case)(uint32_t), uint32_t (*other)(uint32_t)) {
  bool any = false;
  while (!text.empty()) {
    const std::string_view unit = FirstUnit(text);
    const uint32_t c = DecodeUtf8Unit(unit);
    if (to_case(c) != c) return false;
    any = any || other(c) != c;
    text.remove_prefix(unit.size());
  }
  return any;
}

}  // namespace

size_t CountUnits(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += Utf8UnitLength(text.substr(at))) ++count;
  return count;
}

size_t Find(std::string_view text, std::string_view part, size_t from, Meter& meter) {
  const size_t hit = text.find(part, from);
  const size_t searched = std::min(hit, text.size()) - std::min(from, text.size());
  meter.Steps(1 + searched / 64 + searched / 4096 * part.size());
  return hit;
}

size_t FindLast(std::string_view text, std::string_view part, Meter& meter) {
  const size_t hit = text.rfind(part);
  const size_t searched = text.size() - (hit == std::string_view::npos ? 0 : hit);
  meter.Steps(1 + searched / 64 + searched / 4096 * part.size());
  return hit;
}

namespace {

template <typename F>
std::string_view StripIf(std::string_view text, Side side, F&& goes) {
  if (side != Side::kRight) {
    while (!text.empty() && goes(FirstUnit(text))) text.remove_prefix(FirstUnit(text).size());
  }
  if (side != Side::kLeft) {
    while (!text.empty() && goes(LastUnit(text))) text.remove_suffix(LastUnit(text).size());
  }
  return text;
}

std::string_view StripSpace(std::string_view text, Side side) {
  return StripIf(text, side, IsSpaceUnit);
}

}  // namespace

std::string_view Strip(std::string_view text, Side side, const std::string* characters,
                       Meter& meter) {
  if (characters == nullptr) return StripSpace(text, side);
  return StripIf(text, side, [&](std::string_view unit) {
    meter.Steps(1 + characters->size() / 4096);
    return characters->find(unit) != std::string::npos;
  });
}

std::string Upper(std::string_view text) {
  std::string result;
  AppendMapped(text, UpperOf, &result);
  return result;
}
std::string Lower(std::string_view text) {
  std::string result;
  AppendMapped(text, LowerOf, &result);
  return result;
}
std::string Capitalize(std::string_view text) {
  std::string result;
  if (text.empty()) return result;
  const size_t first = FirstUnit(text).size();
  AppendMapped(text.substr(0, first), UpperOf, &result);
  AppendMapped(text.substr(first), LowerOf, &result);
  return result;
}
// A letter behind another one is small.
std::string Title(std::string_view text) {
  std::string result;
  bool inside = false;
  while (!text.empty()) {
    const std::string_view unit = FirstUnit(text);
    const uint32_t c = DecodeUtf8Unit(unit);
    AppendMapped(unit, inside ? LowerOf : UpperOf, &result);
    inside = UpperOf(c) != c || LowerOf(c) != c;
    text.remove_prefix(unit.size());
  }
  return result;
}
std::string SwapCase(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::string_view unit = FirstUnit(text);
    AppendMapped(unit, UpperOf(DecodeUtf8Unit(unit)) != DecodeUtf8Unit(unit) ? UpperOf : LowerOf,
                 &result);
    text.remove_prefix(unit.size());
  }
  return result;
}
std::string Center(std::string_view text, int64_t width, std::string_view fill, Meter& meter) {
  const auto have = static_cast<int64_t>(CountUnits(text));
  if (width <= have) return std::string(text);
  const int64_t missing = width - have;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(missing), fill.size(), &bytes)) {
    meter.Refuse("a text is too wide");
  }
  meter.Bytes(bytes);
  const int64_t left = missing / 2 + (missing & width & 1);
  std::string result;
  for (int64_t i = 0; i < left; ++i) result += fill;
  result += text;
  for (int64_t i = left; i < missing; ++i) result += fill;
  return result;
}
bool IsUpper(std::string_view text) { return AllOfCase(text, UpperOf, LowerOf); }
bool IsLower(std::string_view text) { return AllOfCase(text, LowerOf, UpperOf); }

std::vector<std::string_view> Split(std::string_view text, const std::string* separator,
                                    int64_t limit, Meter& meter) {
  std::vector<std::string_view> parts;
  const auto may_split = [&] { return limit < 0 || static_cast<int64_t>(parts.size()) < limit; };
  if (separator == nullptr) {
    text = StripSpace(text, Side::kLeft);
    while (!text.empty()) {
      meter.Steps(1);
      if (!may_split()) {
        parts.push_back(text);  // whatever follows, white space at its end included
        break;
      }
      size_t end = 0;
      while (end < text.size() && !IsSpaceUnit(FirstUnit(text.substr(end)))) {
        end += FirstUnit(text.substr(end)).size();
      }
      parts.push_back(text.substr(0, end));
      text = StripSpace(text.substr(end), Side::kLeft);
    }
    return parts;
  }
  if (separator->empty()) meter.Refuse("split by an empty separator");
  size_t at = 0;
  while (may_split()) {
    const size_t hit = Find(text, *separator, at, meter);
    if (hit == std::string_view::npos) break;
    parts.push_back(text.substr(at, hit - at));
    at = hit + separator->size();
  }
  parts.push_back(text.substr(at));
  return parts;
}

std::vector<std::string_view> SplitFromRight(std::string_view text, const std::string* separator,
                                             int64_t limit, Meter& meter) {
  std::vector<std::string_view> parts;
  const auto may_split = [&] { return limit < 0 || static_cast<int64_t>(parts.size()) < limit; };
  if (separator == nullptr) {
    text = StripSpace(text, Side::kRight);
    while (!text.empty()) {
      meter.Steps(1);
      if (!may_split()) {
        parts.push_back(text);
        break;
      }
      size_t begin = text.size();
      while (begin > 0 && !IsSpaceUnit(LastUnit(text.substr(0, begin)))) {
        begin -= LastUnit(text.substr(0, begin)).size();
      }
      parts.push_back(text.substr(begin));
      text = StripSpace(text.substr(0, begin), Side::kRight);
    }
  } else {
    if (separator->empty()) meter.Refuse("split by an empty separator");
    while (may_split()) {
      const size_t hit = FindLast(text, *separator, meter);
      if (hit == std::string_view::npos) break;
      parts.push_back(text.substr(hit + separator->size()));
      text = text.substr(0, hit);
    }
    parts.push_back(text);
  }
  std::ranges::reverse(parts);
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends, Meter& meter) {
  std::vector<std::string_view> lines;
  size_t begin = 0, at = 0;
  while (at < text.size()) {
    const std::string_view unit = FirstUnit(text.substr(at));
    const uint32_t c = DecodeUtf8Unit(unit);
    const bool ends = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    const size_t line_end = at;
    at += unit.size();
    if (!ends) continue;
    meter.Steps(1);
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, (keep_ends ? at : line_end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string Escape(std::string_view text, Meter& meter) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '\'':
        result += "&#39;";
        break;
      case '"':
        result += "&#34;";
        break;
      default:
        result += c;
    }
  }
  meter.Bytes(result.size());
  return result;
}

std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit, Meter& meter) {
  std::string result;
  size_t at = 0;
  const auto put = [&](std::string_view part) {
    meter.Bytes(part.size());
    result += part;
  };
  for (int64_t done = 0; limit < 0 || done < limit; ++done) {
    if (from.empty()) {  // between all characters, and at both ends
      put(to);
      if (at >= text.size()) return result;
      const std::string_view unit = FirstUnit(text.substr(at));
      put(unit);
      at += unit.size();
      meter.Steps(1);
      continue;
    }
    const size_t hit = Find(text, from, at, meter);
    if (hit == std::string_view::npos) break;
    put(text.substr(at, hit - at));
    put(to);
    at = hit + from.size();
  }
  put(text.substr(at));
  return result;
}

}  // namespace kvasir::jinja
