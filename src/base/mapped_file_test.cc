#include "base/mapped_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/temp_folder.h"

namespace kvasir {
namespace {

class MappedFileTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    return folder_.Write(name, content);
  }
  static std::string Text(const MappedFile& file) {
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
  }
  static Code OpenError(const std::string& path) {
    try {
      MappedFile file(path);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
      return error.code();
    }
    ADD_FAILURE() << path << " was mapped";
    return Code::kUsage;
  }

  const test::TempFolder folder_;
};

TEST_F(MappedFileTest, ShowsTheBytesOfTheFile) {
  const std::string path = Write("a", "seven ravens");
  const MappedFile file(path);
  EXPECT_EQ(Text(file), "seven ravens");
  EXPECT_EQ(file.path(), path);
}

TEST_F(MappedFileTest, MapsAnEmptyFileToNoBytes) {
  const MappedFile file(Write("empty", ""));
  EXPECT_TRUE(file.bytes().empty());
}

TEST_F(MappedFileTest, SaysWhyAFileCannotBeMapped) {
  EXPECT_EQ(OpenError(folder_.path() + "/missing"), Code::kNotFound);
  EXPECT_EQ(OpenError(folder_.path()), Code::kIo);
}

TEST_F(MappedFileTest, MovesWithItsMapping) {
  MappedFile first(Write("a", "first"));
  const uint8_t* const data = first.bytes().data();
  MappedFile second(std::move(first));
  EXPECT_EQ(second.bytes().data(), data);
  MappedFile third(Write("b", "third"));
  third = std::move(second);
  EXPECT_EQ(Text(third), "first");
}

TEST_F(MappedFileTest, KeepsItsBytesAfterTheFileWasRemoved) {
  const std::string path = Write("a", "still here");
  const MappedFile file(path);
  std::filesystem::remove(path);
  EXPECT_EQ(Text(file), "still here");
}

TEST_F(MappedFileTest, ReleasedPagesAreReadAgainFromTheFile) {
  std::string content(5 * 4096 + 17, 'x');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  const MappedFile file(Write("a", content));
  ASSERT_EQ(Text(file), content);
  file.Release(file.bytes());
  file.Release(file.bytes().subspan(100, 10));  // holds no whole page: nothing happens
  file.Release({});
  EXPECT_EQ(Text(file), content);
}

}  // namespace
}  // namespace kvasir
