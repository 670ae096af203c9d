#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "cli/verbs.h"
#include "format/test_files.h"

namespace kvasir {
namespace {

using nlohmann::json;
using test::GgufBuilder;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class Inspect : public testing::Test {
 protected:
  // What the verb prints.
  std::string Text(const std::string& path, std::vector<std::string> flags = {}) const {
    const std::string output = folder_.path() + "/out";
    std::vector<std::string> words = {path, "--output", output};
    words.insert(words.end(), flags.begin(), flags.end());
    const auto verb = std::find_if(AllVerbs().begin(), AllVerbs().end(),
                                   [](const CliVerb& v) { return v.name == "inspect"; });
    const std::vector<std::string_view> views(words.begin(), words.end());
    InspectVerb(ParseArguments(*verb, views));
    std::ifstream in(output, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  json Json(const std::string& path, std::vector<std::string> flags = {}) const {
    flags.push_back("--json");
    return json::parse(Text(path, std::move(flags)));
  }
  std::string Write(const GgufBuilder& file) const { return folder_.Write("m.gguf", file.Build()); }

  const test::TempFolder folder_;
};

GgufBuilder Model() {
  GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  file.String("long", std::string(1000, 'x') + "end");
  file.Strings("words", std::vector<std::string>(9, "w"));
  return file;
}

TEST_F(Inspect, PrintsTheKeysOfTheContract) {
  const json report = Json(Write(Model()), {"--tensors"});
  for (const char* key : {"kind", "architecture", "shape", "types", "context", "kv_bytes_per_token",
                          "tokenizer", "template", "special_tokens", "problems"}) {
    EXPECT_TRUE(report.contains(key)) << key;
  }
  EXPECT_EQ(report["kind"], "gguf");
  EXPECT_EQ(report["architecture"], "llama");
  EXPECT_EQ(report["shape"]["layers"], 2);
  EXPECT_EQ(report["context"], 64);
  EXPECT_EQ(report["kv_bytes_per_token"]["f16"], 2 * 2 * (4 + 4) * 2);
  EXPECT_EQ(report["types"]["f32"], report["tensors"].size());
  EXPECT_EQ(report["tensors"][0]["name"], "token_embd.weight");
  EXPECT_EQ(report["tensors"][0]["bytes"], 320);
  EXPECT_TRUE(report["tokenizer"].is_null());
}

TEST_F(Inspect, ShortensLongValuesAndPrintsOneWhole) {
  const std::string path = Write(Model());
  const json keys = Json(path)["keys"];
  const auto row = [&](const std::string& key) {
    return *std::find_if(keys.begin(), keys.end(), [&](const json& r) { return r["key"] == key; });
  };
  EXPECT_EQ(row("general.architecture")["value"], "llama");
  EXPECT_EQ(row("general.architecture")["type"], "string");
  EXPECT_EQ(row("long")["length"], 1003);
  EXPECT_LT(row("long")["value"].get<std::string>().size(), 100u);
  EXPECT_EQ(row("words")["type"], "array of string");
  EXPECT_EQ(row("words")["length"], 9);
  EXPECT_EQ(row("words")["value"].size(), 4u);
  EXPECT_THAT(Text(path, {"--kv", "long"}), testing::EndsWith("xend\n"));
  EXPECT_EQ(Json(path, {"--kv", "words"})["kv"]["words"].size(), 9u);
  EXPECT_THROW(Text(path, {"--kv", "absent"}), Error);
}

TEST_F(Inspect, NamesAllProblemsOfWhatCannotRun) {
  GgufBuilder file = Model();
  file.tensors[0].type = 39;
  file.tensors[3].name = "other\x1b[31m\xff";
  const std::string path = Write(file);
  const json report = Json(path);
  EXPECT_THAT(report["problems"].get<std::vector<std::string>>(),
              testing::AllOf(Contains(HasSubstr("MXFP4")), Contains(HasSubstr("is missing")),
                             Contains(HasSubstr("no tokenizer"))));
  const std::string text = Text(path, {"--tensors"});
  EXPECT_THAT(text, HasSubstr("MXFP4"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));  // nothing a terminal would obey
}

TEST_F(Inspect, ReadsFilesWithoutAModel) {
  GgufBuilder file;
  file.String("general.architecture", "mamba");
  const json report = Json(Write(file));
  EXPECT_EQ(report["architecture"], "mamba");
  EXPECT_TRUE(report["shape"].is_null());
  EXPECT_TRUE(report["context"].is_null());
  EXPECT_THAT(report["types"], IsEmpty());
  EXPECT_THAT(report["problems"].get<std::vector<std::string>>(), Contains(HasSubstr("mamba")));
}

TEST_F(Inspect, ShowsFoldersWithTheirConfiguration) {
  folder_.Write("config.json", R"({"model_type": "unheard", "list": [1, 2, 3, 4, 5, 6]})");
  const json report = Json(folder_.path());
  EXPECT_EQ(report["kind"], "huggingface");
  EXPECT_EQ(report["architecture"], "unheard");
  EXPECT_EQ(report["keys"][1]["key"], "list");
  EXPECT_EQ(report["keys"][1]["length"], 6);
  EXPECT_THAT(report["keys"][1]["value"], ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(Text(folder_.path(), {"--kv", "model_type"}), "unheard\n");
}

TEST_F(Inspect, GivesOneErrorForWhatCannotBeRead) {
  const std::string path = folder_.Write("m.gguf", "GGUF");
  try {
    Text(path);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCorrupt);
    EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("m.gguf"), Not(HasSubstr("\n"))));
  }
}

}  // namespace
}  // namespace kvasir
