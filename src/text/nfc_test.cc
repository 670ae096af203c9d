#include "text/nfc.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

std::string Nfc(std::string_view text) { return ToNfc(text).value_or(std::string(text)); }

TEST(NfcTest, ComposesAndSorts) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(Nfc("xe\u0301y\u0308 a"), "x\u00e9\u00ff a");
  EXPECT_EQ(Nfc("a\u0301\u0323"), "\u1ea1\u0301");  // marks in the order of their classes
  EXPECT_EQ(Nfc("\u1100\u1161\u11a8"), "\uac01");   // Hangul
  EXPECT_EQ(Nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(Nfc("\u212b \u2126"), "\u00c5 \u03a9");  // singletons
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093c");          // excluded from composition
  EXPECT_EQ(Nfc("\uf900"), "\u8c48");                // CJK compatibility
  EXPECT_EQ(Nfc("\u304b\u3099"), "\u304c");
}

TEST(NfcTest, LeavesWhatIsNormalizedAlone) {
  for (const char* text :
       {"", "abc", "na\u00efve \u4e2d\u6587 \uac01 \u0301", "\u0301", "\xFF\xC3"}) {
    EXPECT_EQ(ToNfc(text), std::nullopt) << text;
  }
}

TEST(NfcTest, KeepsBytesThatAreNoText) {
  EXPECT_EQ(Nfc("e\u0301\xFF\u0301"
                "e\u0301\xC3"),
            "\u00e9\xFF\u0301\u00e9\xC3");
}

TEST(NfcTest, SortsAMegabyteOfMarksInTime) {
  std::string marks, below, above;
  for (int i = 0; i < 250'000; ++i) {
    marks += "\u0301\u0323";
    above += "\u0301";
    below += "\u0323";
  }
  EXPECT_EQ(Nfc("q" + marks), "q" + below + above);
}

}  // namespace
}  // namespace kvasir
