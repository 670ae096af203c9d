#include "format/quote.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

TEST(Quote, KeepsOneLineOfPrintableAscii) {
  EXPECT_EQ(Quoted(""), "\"\"");
  EXPECT_EQ(Quoted("blk.0 ~"), "\"blk.0 ~\"");
  EXPECT_EQ(Quoted("a\"b\\c\nd"), R"("a\"b\\c\nd")");
  EXPECT_EQ(Quoted(std::string_view("\0\x1b\x7f", 3)), R"("\x00\x1b\x7f")");
  EXPECT_EQ(Quoted("\xc3\xa9\xf0\x9f"), R"("\xc3\xa9\xf0\x9f")");
}

TEST(Quote, CutsLongTexts) {
  EXPECT_EQ(Quoted(std::string(80, 'x')), "\"" + std::string(80, 'x') + "\"");
  EXPECT_EQ(Quoted(std::string(81, 'x')), "\"" + std::string(80, 'x') + "\"...");
}

}  // namespace
}  // namespace kvasir
