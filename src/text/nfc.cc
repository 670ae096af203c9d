#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

constexpr uint32_t kNoCharacter = 0x110000;  // what DecodeUtf8Unit gives for stray bytes, and up

// Characters that are normalized and neither compose with what stands before them nor reorder.
bool BeginsStretch(uint32_t c) {
  return c < 0x300 || (c >= 0x3400 && c <= 0x9FFF) || c >= kNoCharacter;
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Normalizes one stretch; keeps its buffer between them.
class Composer {
 public:
  // `text` is well-formed. Appends its form C.
  void Append(std::string_view text, std::string* out) {
    points_.clear();
    for (size_t at = 0; at < text.size();) {
      const size_t length = Utf8UnitLength(text.substr(at));
      Decompose(static_cast<utf8proc_int32_t>(DecodeUtf8Unit(text.substr(at, length))));
      at += length;
    }
    SortMarks();
    const utf8proc_ssize_t size = utf8proc_normalize_utf32(
        points_.data(), static_cast<utf8proc_ssize_t>(points_.size()), kFormC);
    CHECK(size >= 0 && static_cast<size_t>(size) <= points_.size());
    for (utf8proc_ssize_t i = 0; i < size; ++i) {
      AppendUtf8(static_cast<uint32_t>(points_[static_cast<size_t>(i)]), out);
    }
  }

 private:
  static constexpr auto kFormC = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

  void Decompose(utf8proc_int32_t c) {
    utf8proc_int32_t parts[8];  // canonical decompositions have up to four
    int boundary_class = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, 8, kFormC, &boundary_class);
    CHECK(n >= 0 && n <= 8);
    points_.insert(points_.end(), parts, parts + n);
  }
  // The library sorts by exchanging neighbours, which takes n * n steps for a run of n marks.
  void SortMarks() {
    const auto is_mark = [](utf8proc_int32_t c) { return CombiningClass(c) != 0; };
    for (auto at = points_.begin(); at != points_.end();) {
      const auto begin = std::find_if(at, points_.end(), is_mark);
      at = std::find_if_not(begin, points_.end(), is_mark);
      if (at - begin > 1) {
        std::stable_sort(begin, at, [](utf8proc_int32_t a, utf8proc_int32_t b) {
          return CombiningClass(a) < CombiningClass(b);
        });
      }
    }
  }

  std::vector<utf8proc_int32_t> points_;
};

// The end of the plain text that begins at `at`: characters below U+0300 and CJK, of which the last
// one may compose with what follows and is left out if something does.
size_t SkipPlain(std::string_view text, size_t at) {
  size_t last = at;
  while (at < text.size()) {
    const size_t length = Utf8UnitLength(text.substr(at));
    if (!BeginsStretch(DecodeUtf8Unit(text.substr(at, length)))) {
      return Utf8CharLength(text.substr(last)) == 0 ? at : last;
    }
    last = at;
    at += length;
  }
  return at;
}

// The end of the stretch that begins at `at`.
size_t StretchEnd(std::string_view text, size_t at) {
  do {
    at += Utf8UnitLength(text.substr(at));
  } while (at < text.size() &&
           !BeginsStretch(DecodeUtf8Unit(text.substr(at, Utf8UnitLength(text.substr(at))))));
  return at;
}

}  // namespace

std::optional<std::string> ToNfc(std::string_view text) {
  Composer composer;
  std::optional<std::string> result;
  std::string form;
  for (size_t at = 0; at < text.size();) {
    const size_t plain_end = SkipPlain(text, at);
    if (result) result->append(text, at, plain_end - at);
    at = plain_end;
    if (at == text.size()) break;
    const size_t end = StretchEnd(text, at);
    const std::string_view stretch = text.substr(at, end - at);
    form.clear();
    composer.Append(stretch, &form);
    if (!result && form != stretch) result.emplace(text.substr(0, at));
    if (result) *result += form;
    at = end;
  }
  return result;
}

}  // namespace kvasir
