#include "cli/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace kvasir {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ModelNames : public testing::Test {
 protected:
  std::string Add(const std::string& name) {
    std::ofstream(dir_ / name) << "x";
    return (dir_ / name).string();
  }
  std::string Resolve(const std::string& name) { return ResolveModel(name, dir_.string()); }
  std::string Refusal(const std::string& name, Code code) {
    try {
      Resolve(name);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    return "accepted";
  }

  const test::TempFolder folder_;
  const fs::path dir_ = folder_.path();
};

TEST_F(ModelNames, TakeAPathAsItIs) {
  const std::string file = Add("a.gguf");
  EXPECT_EQ(Resolve(file), file);
  EXPECT_EQ(Resolve("./nowhere.gguf"), "./nowhere.gguf");  // opening it says what is wrong
}

TEST_F(ModelNames, FindAFileWithAndWithoutSuffix) {
  const std::string file = Add("Some-Model-Q8_0.gguf");
  EXPECT_EQ(Resolve("Some-Model-Q8_0"), file);
  EXPECT_EQ(Resolve("Some-Model-Q8_0.gguf"), file);
}

TEST_F(ModelNames, FindAFolderWithAConfiguration) {
  fs::create_directories(dir_ / "folder-model");
  Add("folder-model/config.json");
  EXPECT_EQ(Resolve("folder-model"), (dir_ / "folder-model").string());
}

TEST_F(ModelNames, ResolveAShortNameWhateverTheCaseOfTheFile) {
  const std::string file = Add("SmolLM2-135M-Instruct-Q4_1.gguf");
  Add("other.gguf");
  EXPECT_EQ(Resolve("smollm2"), file);
  EXPECT_EQ(Resolve("smollm2-135m"), file);
}

TEST_F(ModelNames, RefuseAShortNameThatFitsTwoFilesAndListsThem) {
  Add("smollm2-135m-q4.gguf");
  Add("smollm2-360m-q4.gguf");
  const std::string message = Refusal("smollm2", Code::kInvalid);
  EXPECT_THAT(message, HasSubstr("smollm2-135m-q4"));
  EXPECT_THAT(message, HasSubstr("smollm2-360m-q4"));
  EXPECT_EQ(Resolve("smollm2-360m"), (dir_ / "smollm2-360m-q4.gguf").string());
}

TEST_F(ModelNames, CountAModelInSeveralFilesOnce) {
  const std::string first = Add("smollm2-big-00001-of-00002.gguf");
  const std::string second = Add("smollm2-big-00002-of-00002.gguf");
  for (const char* name : {"smollm2", "smollm2-big", "smollm2-big-00001-of-00002",
                           "smollm2-big-00001-of-00002.gguf"}) {
    EXPECT_EQ(Resolve(name), first) << name;
  }
  EXPECT_EQ(Resolve("smollm2-big-00002-of-00002.gguf"), second);  // opening it names the first
  EXPECT_THAT(Refusal("other", Code::kNotFound), HasSubstr("holds smollm2-big"));
}

TEST_F(ModelNames, ListWhatIsThereWhenNothingFits) {
  Add("other.gguf");
  EXPECT_THAT(Refusal("smollm2", Code::kNotFound), HasSubstr("it holds other"));
  EXPECT_THAT(Refusal("unheard-of", Code::kNotFound), HasSubstr("holds other"));
}

TEST(ShortNameTable, IsInLowerCase) {
  for (const ShortName& entry : ShortNames()) {
    for (const std::string_view text : {entry.name, entry.stem}) {
      for (const char c : text) EXPECT_FALSE(std::isupper(static_cast<unsigned char>(c))) << text;
    }
  }
}

}  // namespace
}  // namespace kvasir
