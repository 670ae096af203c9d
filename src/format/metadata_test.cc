#include "format/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "format/test_files.h"

namespace kvasir {
namespace {

using test::Refusal;
using test::RefusalOf;
using testing::ElementsAre;
using testing::HasSubstr;

Metadata Sample() {
  Metadata metadata("file.gguf");
  metadata.Set("u", uint64_t{5});
  metadata.Set("i", int64_t{6});
  metadata.Set("negative", int64_t{-1});
  metadata.Set("f", 1.5);
  metadata.Set("b", true);
  metadata.Set("s", std::string("text"));
  metadata.Set("ints", MetadataArray{std::vector<int64_t>{-1, 2}});
  metadata.Set("uints", MetadataArray{std::vector<uint64_t>{3, 4}});
  metadata.Set("wide", MetadataArray{std::vector<uint64_t>{std::numeric_limits<uint64_t>::max()}});
  metadata.Set("floats", MetadataArray{std::vector<double>{0.5}});
  metadata.Set("strings", MetadataArray{std::vector<std::string>{"x", "y"}});
  return metadata;
}

TEST(Metadata, AnswersTypedValuesAndDefaults) {
  const Metadata m = Sample();
  EXPECT_EQ(m.Uint("u"), 5u);
  EXPECT_EQ(m.Uint("i"), 6u);
  EXPECT_EQ(m.Uint("absent", 9), 9u);
  EXPECT_EQ(m.Float("f"), 1.5);
  EXPECT_EQ(m.Float("u"), 5.0);
  EXPECT_EQ(m.Float("absent", 2.5), 2.5);
  EXPECT_TRUE(m.Bool("b", false));
  EXPECT_TRUE(m.Bool("absent", true));
  EXPECT_EQ(m.String("s"), "text");
  EXPECT_EQ(m.String("absent", "other"), "other");
  EXPECT_THAT(m.Ints("ints"), ElementsAre(-1, 2));
  EXPECT_THAT(m.Ints("uints"), ElementsAre(3, 4));
  EXPECT_THAT(m.Ints("absent"), ElementsAre());
  EXPECT_THAT(m.Floats("floats"), ElementsAre(0.5));
  EXPECT_EQ(m.Strings("absent"), nullptr);
  EXPECT_THAT(*m.Strings("strings"), ElementsAre("x", "y"));
  EXPECT_EQ(std::get<MetadataArray>(*m.Find("strings")).size(), 2u);
}

TEST(Metadata, RefusesOtherTypesNamingKeyAndBoth) {
  const Metadata m = Sample();
  const std::pair<std::function<void()>, const char*> rows[] = {
      {[&] { m.Uint("s"); }, "the key s holds a string, a whole number is expected"},
      {[&] { m.Uint("b"); }, "holds a bool"},
      {[&] { m.Uint("negative"); }, "-1, it cannot be negative"},
      {[&] { m.Uint("absent"); }, "the key absent is missing"},
      {[&] { m.Float("strings"); }, "an array of strings"},
      {[&] { m.Bool("u", false); }, "a bool is expected"},
      {[&] { m.String("ints"); }, "an array of integers, a string is expected"},
      {[&] { m.String("f", "x"); }, "holds a float"},
      {[&] { m.Strings("s"); }, "an array of strings is expected"},
      {[&] { m.Strings("ints"); }, "an array of strings is expected"},
      {[&] { m.Ints("floats"); }, "an array of integers is expected"},
      {[&] { m.Ints("wide"); }, "63 bits"},
      {[&] { m.Floats("ints"); }, "an array of floats is expected"},
  };
  for (const auto& [read, word] : rows) {
    const Refusal refusal = RefusalOf(read);
    EXPECT_EQ(refusal.code, Code::kCorrupt) << word;
    EXPECT_THAT(refusal.message, testing::AllOf(HasSubstr("file.gguf: "), HasSubstr(word)));
  }
}

TEST(Metadata, RefusesARepeatedKeyAndKeepsTheFirst) {
  Metadata m = Sample();
  EXPECT_EQ(RefusalOf([&] { m.Set("u", uint64_t{6}); }).code, Code::kCorrupt);
  EXPECT_EQ(m.Uint("u"), 5u);
}

}  // namespace
}  // namespace kvasir
