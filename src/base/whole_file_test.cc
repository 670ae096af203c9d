#include "base/whole_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "base/temp_folder.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;

std::string Contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
size_t FilesIn(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
}

TEST(WholeFile, AppearsWithACommitAndReplacesWhatWasThere) {
  const test::TempFolder folder;
  const std::string path = folder.Write("f", "old");
  WholeFile file(path);
  file.Write("new ");
  file.Write("text");
  EXPECT_EQ(file.size(), 8u);
  EXPECT_EQ(Contents(path), "old");
  file.Commit();
  EXPECT_EQ(Contents(path), "new text");
  EXPECT_EQ(FilesIn(folder.path()), 1u);
}

TEST(WholeFile, LeavesNothingBehindWithoutACommit) {
  const test::TempFolder folder;
  {
    WholeFile file(folder.path() + "/f");
    file.Write("half");
  }
  EXPECT_EQ(FilesIn(folder.path()), 0u);
}

TEST(WholeFile, NamesThePathThatCannotBeWritten) {
  const test::TempFolder folder;
  try {
    WholeFile file(folder.path() + "/absent/f");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kIo);
    EXPECT_NE(std::string(error.what()).find("absent/f"), std::string::npos);
  }
  fs::create_directory(folder.path() + "/taken");
  folder.Write("taken/x", "");
  {
    WholeFile file(folder.path() + "/taken");
    EXPECT_THROW(file.Commit(), Error);
  }
  EXPECT_EQ(FilesIn(folder.path()), 1u);
}

}  // namespace
}  // namespace kvasir
