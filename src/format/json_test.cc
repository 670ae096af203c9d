#include "format/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "format/test_files.h"

namespace kvasir {
namespace {

using nlohmann::json;
using test::RefusalOf;
using testing::HasSubstr;

TEST(Json, BuildsTheSameValueAsTheLibrary) {
  const char* texts[] = {"null",
                         "true",
                         "-3",
                         "18446744073709551615",
                         "0.25",
                         R"("a\u00e9\n")",
                         "[]",
                         "{}",
                         R"([1, [2, [], {"a": [3, {"b": null}], "c": {}}], "x"])",
                         R"({"a": {"b": [1, 2, {"c": false}]}, "b": {"a": 1}, "": -1.5e3})"};
  for (const char* text : texts) EXPECT_EQ(ParseJson(text, "x"), json::parse(text)) << text;
}

// A list of `n` numbers, which is n + 1 values.
std::string Zeros(size_t n) {
  std::string text = "[0";
  for (size_t i = 1; i < n; ++i) text += ",0";
  return text + "]";
}

TEST(Json, RefusesWhatIsNotStrictlyJson) {
  const std::pair<std::string, const char*> rows[] = {
      {"", "byte"},
      {"{", "byte 2"},
      {"[1,]", "byte 4"},
      {"1 2", "byte 3"},
      {"// note\n1", "byte"},
      {"[1e999]", "byte"},
      {"\"\xff\"", "byte"},
      {"NaN", "byte"},
      {R"({"a": 1, "b": 2, "a": 3})", "\"a\" occurs twice"},
      {R"({"x": [{"k": {}, "k": {}}]})", "\"k\" occurs twice"},
      {std::string(kMaxJsonDepth + 1, '['), "deeper than 64"},
      {std::string(1000000, '['), "deeper than 64"},
      {Zeros(kMaxJsonValues), "more than 1000000 values"},
  };
  for (const auto& [text, word] : rows) {
    const test::Refusal refusal = RefusalOf([&] { ParseJson(text, "config.json"); });
    EXPECT_EQ(refusal.code, Code::kCorrupt) << text.substr(0, 40);
    EXPECT_THAT(refusal.message, testing::AllOf(HasSubstr("config.json"), HasSubstr(word)));
  }
}

TEST(Json, AllowsTheSameKeyInDifferentObjectsAndFullDepth) {
  EXPECT_EQ(ParseJson(R"([{"a": 1}, {"a": 2}])", "x")[1]["a"], 2);
  const std::string deep = std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']');
  EXPECT_TRUE(ParseJson(deep, "x").is_array());
  EXPECT_EQ(ParseJson(Zeros(kMaxJsonValues - 1), "x").size(), kMaxJsonValues - 1);
}

}  // namespace
}  // namespace kvasir
