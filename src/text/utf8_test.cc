#include "text/utf8.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(Utf8Test, RoundTripsEveryCodePoint) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_EQ(Utf8CharLength(text), text.size()) << c;
    ASSERT_EQ(DecodeUtf8Unit(text), c);
    for (size_t n = 1; n < text.size(); ++n) {
      const std::string_view part = std::string_view(text).substr(0, n);
      ASSERT_TRUE(IsUnfinishedUtf8(part)) << c << " " << n;
      ASSERT_EQ(Utf8CharLength(part), 0u);
    }
  }
}

TEST(Utf8Test, RefusesWhatTheStandardRefuses) {
  using namespace std::string_view_literals;
  for (const std::string_view bad :
       {"\x80"sv, "\xBF"sv, "\xC0\x80"sv, "\xC1\xBF"sv, "\xE0\x80\x80"sv, "\xE0\x9F\xBF"sv,
        "\xED\xA0\x80"sv, "\xED\xBF\xBF"sv, "\xF0\x80\x80\x80"sv, "\xF0\x8F\xBF\xBF"sv,
        "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xFF"sv, "\xC3"sv, "\xC3("sv, "\xE2\x82("sv}) {
    EXPECT_EQ(Utf8CharLength(bad), 0u) << bad;
    EXPECT_EQ(Utf8UnitLength(bad), 1u);
  }
  EXPECT_FALSE(IsUnfinishedUtf8("\xE0\x80"sv));
  EXPECT_FALSE(IsUnfinishedUtf8("\xC3("sv));
  EXPECT_FALSE(IsUnfinishedUtf8("a"sv));
  EXPECT_FALSE(IsUnfinishedUtf8("\xFF"sv));
}

}  // namespace
}  // namespace kvasir
