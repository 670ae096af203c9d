#include "format/gguf_parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/temp_folder.h"
#include "format/model_file.h"
#include "format/test_files.h"

namespace kvasir {
namespace {

using test::GgufBuilder;
using test::Refusal;
using test::RefusalOf;
using testing::HasSubstr;

TEST(GgufPartName, HasFiveDigitsTwice) {
  const auto name = ParseGgufPartName("a/b-00002-of-00013.gguf");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->prefix, "a/b");
  EXPECT_EQ(name->number, 2u);
  EXPECT_EQ(name->count, 13u);
  EXPECT_EQ(ToPath(*name), "a/b-00002-of-00013.gguf");
  for (const char* other :
       {"b.gguf", "-00001-of-00002.gguf", "b-0001-of-0002.gguf", "b-00003-of-00002.gguf",
        "b-00000-of-00002.gguf", "b-00001-of-00002.bin", "b-0000x-of-00002.gguf",
        "b-00001-OF-00002.gguf", "b+00001-of-00002.gguf", "b-+0001-of-00002.gguf", ""}) {
    EXPECT_FALSE(ParseGgufPartName(other).has_value()) << other;
  }
}

// A tiny model in three parts; the first has the keys, as the common tool writes them.
struct Split {
  GgufBuilder parts[3];
  explicit Split(int n_tensors = 0) {
    GgufBuilder whole = test::RandomGguf(test::TinyConfig(), 1);
    std::vector<GgufBuilder::Tensor> tensors = std::move(whole.tensors);
    whole.tensors.clear();
    parts[0] = std::move(whole);
    for (uint16_t i = 0; i < 3; ++i) {
      parts[i].Number("split.no", GgufType::kU16, i);
      parts[i].Number("split.count", GgufType::kU16, uint16_t{3});
      parts[i].Number("split.tensors.count", GgufType::kI32,
                      n_tensors > 0 ? n_tensors : static_cast<int32_t>(tensors.size()));
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      parts[i * 3 / tensors.size()].tensors.push_back(std::move(tensors[i]));
    }
  }
  // Returns the path of the first part.
  std::string Write(const test::TempFolder& folder) const {
    for (int i = 2; i >= 0; --i) folder.Write(Name(i), parts[i].Build());
    return folder.path() + "/" + Name(0);
  }
  static std::string Name(int i) { return fmt::format("m-{:05}-of-00003.gguf", i + 1); }
};

Refusal Opened(const std::string& path) {
  return RefusalOf([&] { ModelFile::Open(path); });
}

TEST(GgufParts, OpenAsOneModel) {
  const test::TempFolder folder;
  const ModelFile file = ModelFile::Open(Split().Write(folder));
  const test::Bytes whole_bytes = test::RandomGguf(test::TinyConfig(), 1).Build();
  const ModelFile whole = ModelFile::View(whole_bytes, "whole");
  ASSERT_EQ(file.tensors().size(), whole.tensors().size());
  for (const TensorEntry& tensor : whole.tensors()) {
    const TensorEntry* part = file.Find(tensor.name);
    ASSERT_NE(part, nullptr);
    EXPECT_TRUE(
        std::equal(tensor.view.data, tensor.view.data + tensor.view.bytes(), part->view.data));
  }
  uint64_t bytes = 0;
  for (int i = 0; i < 3; ++i)
    bytes += std::filesystem::file_size(folder.path() + "/" + Split::Name(i));
  EXPECT_EQ(file.file_bytes(), bytes);
  file.ReleaseMapped();
}

TEST(GgufParts, ALaterPartNamesTheFirst) {
  const test::TempFolder folder;
  Split().Write(folder);
  const Refusal refusal = Opened(folder.path() + "/" + Split::Name(1));
  EXPECT_EQ(refusal.code, Code::kInvalid);
  EXPECT_THAT(refusal.message, HasSubstr("part 2 of 3"));
  EXPECT_THAT(refusal.message, HasSubstr("m-00001-of-00003.gguf"));
}

TEST(GgufParts, AMissingPartIsNamed) {
  const test::TempFolder folder;
  const std::string path = Split().Write(folder);
  std::filesystem::remove(folder.path() + "/" + Split::Name(2));
  const Refusal refusal = Opened(path);
  EXPECT_EQ(refusal.code, Code::kNotFound);
  EXPECT_THAT(refusal.message, HasSubstr("m-00003-of-00003.gguf: missing; it is part 3 of 3"));
}

TEST(GgufParts, WrongNamesCountsAndDuplicatesAreRefused) {
  {
    const test::TempFolder folder;
    const std::string path = Split().Write(folder);
    std::filesystem::rename(path, folder.path() + "/other.gguf");
    EXPECT_THAT(Opened(folder.path() + "/other.gguf").message, HasSubstr("-00001-of-00003.gguf"));
  }
  {
    const test::TempFolder folder;
    EXPECT_THAT(Opened(Split(7).Write(folder)).message, HasSubstr("split.tensors.count is 7"));
  }
  {
    const test::TempFolder folder;
    const Split split;
    const std::string path = split.Write(folder);
    folder.Write(Split::Name(2), split.parts[1].Build());
    const Refusal refusal = Opened(path);
    EXPECT_EQ(refusal.code, Code::kCorrupt);
    EXPECT_THAT(refusal.message, HasSubstr("split.no is 1; 2 is expected"));
  }
  {
    const test::TempFolder folder;
    Split split;
    GgufBuilder other;
    other.Uint("split.no", 2);
    other.Uint("split.count", 2);
    split.parts[2] = std::move(other);
    EXPECT_THAT(Opened(split.Write(folder)).message, HasSubstr("split.count is 2; 3 is expected"));
  }
  {
    const test::TempFolder folder;
    Split split;
    split.parts[2].tensors.back() = split.parts[1].tensors.back();
    EXPECT_THAT(Opened(split.Write(folder)).message, HasSubstr("twice"));
  }
  {
    const test::TempFolder folder;
    GgufBuilder file;
    file.Uint("split.count", 4000000000u);
    EXPECT_THAT(Opened(folder.Write("x-00001-of-00002.gguf", file.Build())).message,
                HasSubstr("up to 99999"));
  }
}

TEST(GgufParts, ASurveyShowsThePartsThatAreThere) {
  const test::TempFolder folder;
  const std::string path = Split().Write(folder);
  folder.Write(Split::Name(1), "no GGUF");
  std::vector<Error> kept;
  Problems problems(&kept);
  EXPECT_EQ(OpenGguf(path, problems).size(), 2u);
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_THAT(kept[0].what(), HasSubstr(Split::Name(1)));
}

TEST(GgufParts, OneOfOneStandsAlone) {
  const test::TempFolder folder;
  GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  file.Uint("split.no", 0);
  file.Uint("split.count", 1);
  EXPECT_EQ(ModelFile::Open(folder.Write("any.gguf", file.Build())).tensors().size(),
            file.tensors.size());
}

}  // namespace
}  // namespace kvasir
