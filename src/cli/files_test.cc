#include "cli/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  std::string Path(const std::string& name) { return (dir_ / name).string(); }
  size_t Count() {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }
  const test::TempFolder folder_;
  const fs::path dir_ = folder_.path();
};

TEST_F(Files, ComeBackAsTheyWereWritten) {
  const std::string bytes("a\0b\xff\n", 5);
  WriteFileWhole(Path("f"), bytes);
  EXPECT_EQ(ReadTextFile(Path("f"), "--file"), bytes);
  WriteFileWhole(Path("f"), "");
  EXPECT_EQ(ReadTextFile(Path("f"), "--file"), "");
  EXPECT_EQ(Count(), 1u);
}

TEST_F(Files, LeaveNothingBehindWhenTheyCannotBeWritten) {
  fs::create_directories(Path("occupied/inside"));
  EXPECT_THROW(WriteFileWhole(Path("occupied"), "text"), Error);
  EXPECT_EQ(Count(), 1u);
  EXPECT_THROW(WriteFileWhole(Path("no/such/folder"), "text"), Error);
}

TEST_F(Files, NameTheFlagWhenTheyAreAbsent) {
  try {
    ReadTextFile(Path("absent"), "--file");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNotFound);
    EXPECT_THAT(error.what(), testing::StartsWith("--file: "));
  }
  EXPECT_THROW(ReadTextFile(dir_.string(), "--file"), Error);  // a folder
}

TEST(TokenIds, AreSeparatedByAnyWhiteSpace) {
  EXPECT_THAT(ParseTokenIds(" 1\n22\t333  \r\n", "f"), testing::ElementsAre(1, 22, 333));
  EXPECT_THAT(ParseTokenIds("", "f"), testing::IsEmpty());
}

TEST(TokenIds, RefuseWhatIsOutsideTheVocabulary) {
  const std::vector<int32_t> ids = {0, 9, 10};
  CheckTokenIds(ids, 11, "f");
  try {
    CheckTokenIds(ids, 10, "f");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalid);
    EXPECT_STREQ(error.what(), "f: token id 10 at place 3 is outside the vocabulary of 10");
  }
  EXPECT_THROW(CheckTokenIds(std::vector<int32_t>{-1}, 10, "f"), Error);
}

TEST(TokenIds, RefuseWhatIsNoNumber) {
  for (const char* text : {"1 x", "-1", "1,2", "4294967296", "1.0"}) {
    EXPECT_THROW(ParseTokenIds(text, "f"), Error) << text;
  }
}

}  // namespace
}  // namespace kvasir
