#include "format/survey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/temp_folder.h"
#include "format/test_files.h"

namespace kvasir {
namespace {

using nlohmann::json;
using test::GgufBuilder;
using test::RefusalOf;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<std::string> Problems(const ModelSurvey& survey) {
  std::vector<std::string> problems;
  for (const Error& error : survey.problems) problems.emplace_back(error.what());
  return problems;
}

TEST(Survey, FindsNothingWrongWithAModelThatOpens) {
  const test::TempFolder folder;
  const GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  const std::string path = folder.Write("m.gguf", file.Build());
  const ModelSurvey survey = SurveyModel(path);
  EXPECT_THAT(Problems(survey), IsEmpty());
  EXPECT_EQ(survey.kind, ModelFile::Kind::kGguf);
  EXPECT_THAT(survey.files, ElementsAre(path));
  EXPECT_EQ(survey.file_bytes, std::filesystem::file_size(path));
  EXPECT_EQ(survey.architecture, "llama");
  ASSERT_TRUE(survey.config.has_value());
  EXPECT_EQ(survey.config->n_layers, 2u);
  EXPECT_TRUE(survey.config->tied_embeddings);
  ASSERT_THAT(survey.tensors, SizeIs(file.tensors.size()));
  EXPECT_EQ(survey.tensors[0].name, "token_embd.weight");
  EXPECT_EQ(survey.tensors[0].type, "F32");
  EXPECT_THAT(survey.tensors[0].shape, ElementsAre(8, 10));
  EXPECT_EQ(survey.tensors[0].bytes, 320u);
}

TEST(Survey, NamesEverythingThatIsWrongAndNotOnlyTheFirst) {
  const test::TempFolder folder;
  GgufBuilder file = test::RandomGguf(test::TinyConfig(), 1);
  for (GgufBuilder::Tensor& tensor : file.tensors) {
    if (tensor.name == "blk.0.attn_q.weight") tensor.type = 16;
    if (tensor.name == "blk.0.ffn_up.weight") tensor.type = 77;
    if (tensor.name == "blk.1.ffn_down.weight") tensor.name = "other";
    if (tensor.name == "blk.1.attn_k.weight") tensor.shape = {4, 16};
  }
  file.tensors.push_back(
      {.name = "blk.0.ffn_gate_inp.weight", .shape = {2}, .data = test::Bytes(8)});
  const ModelSurvey survey = SurveyModel(folder.Write("m.gguf", file.Build()));
  const std::vector<std::string> problems = Problems(survey);
  EXPECT_THAT(problems, SizeIs(5));
  EXPECT_THAT(problems, Contains(AllOf(HasSubstr("IQ2_XXS"), HasSubstr("known types are F32"))));
  EXPECT_THAT(problems, Contains(HasSubstr("number 77")));
  EXPECT_THAT(problems, Contains(HasSubstr("blk.1.ffn_down.weight is missing")));
  EXPECT_THAT(problems, Contains(HasSubstr("4 x 16; 8 x 8 is expected")));
  EXPECT_THAT(problems, Contains(HasSubstr("ffn_gate_inp")));
  EXPECT_THAT(survey.tensors, SizeIs(file.tensors.size()));
  EXPECT_THAT(survey.tensors, Contains(testing::Field(&SurveyedTensor::type, "IQ2_XXS")));
}

TEST(Survey, ShowsArchitecturesItDoesNotKnow) {
  const test::TempFolder folder;
  GgufBuilder file;
  file.String("general.architecture", "mamba");
  file.tensors.push_back({.name = "t", .shape = {2}, .data = test::Bytes(8)});
  const ModelSurvey survey = SurveyModel(folder.Write("m.gguf", file.Build()));
  EXPECT_EQ(survey.architecture, "mamba");
  EXPECT_FALSE(survey.config.has_value());
  EXPECT_THAT(survey.tensors, SizeIs(1));
  EXPECT_THAT(Problems(survey), ElementsAre(AllOf(HasSubstr("mamba"), HasSubstr("llama"))));
}

TEST(Survey, ListsNoMoreProblemsThanPeopleRead) {
  const test::TempFolder folder;
  // The key says a million layers; the tensors are those of two.
  GgufBuilder keys;
  keys.String("general.architecture", "llama");
  for (const char* name : {"embedding_length", "feed_forward_length"}) {
    keys.Uint(std::string("llama.") + name, 8);
  }
  keys.Uint("llama.block_count", 1 << 20);
  keys.Uint("llama.attention.head_count", 4);
  keys.Uint("llama.context_length", 64);
  keys.Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  keys.tensors = test::RandomGguf(test::TinyConfig(), 1).tensors;
  const ModelSurvey survey = SurveyModel(folder.Write("m.gguf", keys.Build()));
  EXPECT_THAT(survey.problems, SizeIs(100));
}

TEST(Survey, ThrowsWhereNothingCanBeRead) {
  const test::TempFolder folder;
  EXPECT_EQ(RefusalOf([&] { SurveyModel(folder.path() + "/none.gguf"); }).code, Code::kNotFound);
  EXPECT_EQ(RefusalOf([&] { SurveyModel(folder.Write("x", "GGUF")); }).code, Code::kCorrupt);
  EXPECT_EQ(RefusalOf([&] { SurveyModel(folder.path()); }).code, Code::kNotFound);
}

TEST(Survey, ReadsFoldersAndTypesTheyCannotRun) {
  const test::TempFolder folder;
  folder.Write("config.json", R"({"model_type": "mamba", "hidden_size": 8})");
  const json header = {
      {"a", {{"dtype", "F8_E4M3"}, {"shape", {2, 3}}, {"data_offsets", {0, 6}}}},
      {"lm_head.weight", {{"dtype", "F32"}, {"shape", {1, 2}}, {"data_offsets", {6, 14}}}}};
  folder.Write("s.safetensors", test::SafetensorsFile(header.dump(), test::Bytes(14)));
  const json index = {
      {"weight_map",
       {{"a", "s.safetensors"}, {"lm_head.weight", "s.safetensors"}, {"b", "absent.safetensors"}}}};
  folder.Write("model.safetensors.index.json", index.dump());
  const ModelSurvey survey = SurveyModel(folder.path());
  EXPECT_EQ(survey.kind, ModelFile::Kind::kHuggingFace);
  EXPECT_EQ(survey.architecture, "mamba");
  ASSERT_THAT(survey.tensors, SizeIs(2));
  EXPECT_EQ(survey.tensors[0].type, "F8_E4M3");
  EXPECT_THAT(survey.tensors[0].shape, ElementsAre(3, 2));
  EXPECT_EQ(survey.tensors[1].name, "output.weight");
  EXPECT_THAT(Problems(survey),
              testing::UnorderedElementsAre(HasSubstr("mamba"), HasSubstr("F8_E4M3"),
                                            HasSubstr("absent.safetensors")));
}

TEST(Survey, ReadsVocabulariesAlone) {
  const char* data = std::getenv("KVASIR_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "KVASIR_TEST_DATA is not set";
  const std::string path = std::string(data) + "/tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const ModelSurvey survey = SurveyModel(path);
  EXPECT_EQ(survey.architecture, "gpt2");
  EXPECT_THAT(survey.tensors, IsEmpty());
  EXPECT_THAT(Problems(survey), Contains(HasSubstr("no tensors")));
}

}  // namespace
}  // namespace kvasir
