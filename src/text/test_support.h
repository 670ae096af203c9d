// What the tests of this room share: goldens, vocabularies built by hand, those of real models.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "format/gguf.h"
#include "text/tokenizer.h"

namespace kvasir {

inline std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline nlohmann::ordered_json ReadGoldens(const std::string& name) {
  return nlohmann::ordered_json::parse(
      ReadWholeFile(KVASIR_SOURCE_DIR "/src/text/testdata/" + name));
}

// A file below ${KVASIR_TEST_DATA}, or empty when it is not there.
inline std::string TestDataPath(const std::string& name) {
  const char* root = std::getenv("KVASIR_TEST_DATA");
  const std::string path = root == nullptr ? "" : std::string(root) + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

// A model's file, or empty when it is not there.
inline std::string ModelPath(const std::string& name) {
  const char* models = std::getenv("KVASIR_MODELS");
  const char* home = std::getenv("HOME");
  const std::string folder =
      models != nullptr ? models
                        : std::string(home == nullptr ? "" : home) + "/.cache/kvasir/models";
  const std::string path = folder + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

inline std::unique_ptr<Tokenizer> TokenizerOf(const std::string& gguf_path) {
  return Tokenizer::FromGguf(ReadGgufMetadata(gguf_path));
}

struct TestToken {
  std::string text;
  int64_t type = 1;
  double score = 0;
};

// The keys that both kinds of vocabulary have.
inline Metadata VocabularyMetadata(const std::string& model, const std::vector<TestToken>& tokens) {
  std::vector<std::string> texts;
  std::vector<int64_t> types;
  std::vector<double> scores;
  for (const TestToken& token : tokens) {
    texts.push_back(token.text);
    types.push_back(token.type);
    scores.push_back(token.score);
  }
  Metadata metadata;
  metadata.Set("tokenizer.ggml.model", model);
  metadata.Set("tokenizer.ggml.tokens", MetadataArray{std::move(texts)});
  metadata.Set("tokenizer.ggml.token_type", MetadataArray{std::move(types)});
  if (model == "llama") metadata.Set("tokenizer.ggml.scores", MetadataArray{std::move(scores)});
  return metadata;
}

// The small byte-level vocabulary of the golden file with some special tokens behind it.
inline Metadata TinyBpeMetadata(const nlohmann::ordered_json& goldens, const std::string& pre,
                                const std::vector<TestToken>& special = {}) {
  std::vector<TestToken> tokens;
  for (const std::string text : goldens["tiny"]["tokens"]) tokens.push_back({text});
  tokens.insert(tokens.end(), special.begin(), special.end());
  Metadata metadata = VocabularyMetadata("gpt2", tokens);
  metadata.Set("tokenizer.ggml.pre", pre);
  metadata.Set("tokenizer.ggml.merges",
               MetadataArray{goldens["tiny"]["merges"].get<std::vector<std::string>>()});
  return metadata;
}

inline std::vector<TokenId> Ids(const nlohmann::ordered_json& json) {
  return json.get<std::vector<TokenId>>();
}

}  // namespace kvasir
