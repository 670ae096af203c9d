#include "text/gguf_tokenizer_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"
#include "text/test_support.h"

namespace kvasir {
namespace {

using nlohmann::json;
using testing::HasSubstr;

void WriteFile(const std::string& folder, const std::string& name, const std::string& text) {
  std::ofstream(folder + "/" + name, std::ios::binary) << text;
}

// Every byte as a token is more than the test needs: letters, a space, and two merges.
json SmallTokenizer() {
  return json::parse(R"({
    "added_tokens": [{"id": 7, "content": "<|im_end|>", "special": true},
                     {"id": 8, "content": "<tool>", "special": false, "normalized": false},
                     {"id": 9, "content": "<|endoftext|>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "Ġab": 5},
              "merges": ["a b", ["Ġ", "ab"]]}})");
}

Metadata KeysOf(const json& tokenizer, uint32_t vocab_size) {
  const test::TempFolder folder;
  WriteFile(folder.path(), "tokenizer.json", tokenizer.dump());
  WriteFile(folder.path(), "tokenizer_config.json",
            R"({"eos_token": "<|im_end|>", "chat_template": "{{ x }}"})");
  WriteFile(folder.path(), "generation_config.json", R"({"eos_token_id": [7, 9]})");
  Metadata keys("keys");
  EXPECT_TRUE(AddTokenizerKeys(folder.path(), vocab_size, &keys));
  return keys;
}

std::string RefusalOf(const json& tokenizer, uint32_t vocab_size = 12) {
  try {
    KeysOf(tokenizer, vocab_size);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(GgufTokenizerKeys, AreReadAsTheFolderIs) {
  const Metadata keys = KeysOf(SmallTokenizer(), 12);
  const std::unique_ptr<Tokenizer> read = Tokenizer::FromGguf(keys);
  EXPECT_EQ(read->vocab_size(), 12u);
  EXPECT_EQ(read->Encode("ab abc", false), (std::vector<TokenId>{4, 5, 2}));
  EXPECT_EQ(read->Encode("a<|im_end|><tool>", true), (std::vector<TokenId>{0, 7, 8}));
  EXPECT_TRUE(read->IsControl(7));
  EXPECT_FALSE(read->IsControl(8));
  EXPECT_EQ(read->eos(), 7);
  EXPECT_EQ(read->ends(), (std::vector<TokenId>{7, 9}));
  EXPECT_FALSE(read->add_bos());
  EXPECT_EQ(read->chat_template(), "{{ x }}");
}

TEST(GgufTokenizerKeys, NameEveryRowOfTheEmbedding) {
  const Metadata keys = KeysOf(SmallTokenizer(), 12);
  const std::vector<std::string>& tokens = *keys.Strings("tokenizer.ggml.tokens");
  const std::vector<int64_t> types = keys.Ints("tokenizer.ggml.token_type");
  EXPECT_EQ(tokens[6], "[PAD6]");  // a hole in the vocabulary
  EXPECT_EQ(tokens[11], "[PAD11]");
  EXPECT_EQ(types, (std::vector<int64_t>{1, 1, 1, 1, 1, 1, 5, 3, 4, 3, 5, 5}));
  EXPECT_EQ(keys.String("tokenizer.ggml.pre"), "gpt-2");
}

TEST(GgufTokenizerKeys, SayWhenThereIsNoTokenizer) {
  const test::TempFolder folder;
  Metadata keys("keys");
  EXPECT_FALSE(AddTokenizerKeys(folder.path(), 12, &keys));
  EXPECT_EQ(keys.String("tokenizer.ggml.model"), "none");
}

TEST(GgufTokenizerKeys, RefuseWhatTheyCannotSay) {
  EXPECT_THAT(RefusalOf(SmallTokenizer(), 9), HasSubstr("10 tokens, the model 9"));
  json stripping = SmallTokenizer();
  stripping["added_tokens"][1]["rstrip"] = true;
  EXPECT_THAT(RefusalOf(stripping), HasSubstr("<tool>"));
  json whole = SmallTokenizer();
  whole["model"]["ignore_merges"] = true;
  EXPECT_THAT(RefusalOf(whole), HasSubstr("ignore_merges"));
  json pieces = SmallTokenizer();
  pieces["pre_tokenizer"] = {{"type", "Metaspace"}};
  EXPECT_THAT(RefusalOf(pieces), HasSubstr("SentencePiece"));
}

// Real vocabularies, read from the folder and from the keys made of it.
TEST(GgufTokenizerKeys, KeepRealVocabularies) {
  const std::string path = TestDataPath("tokenizers/smollm");
  if (path.empty()) GTEST_SKIP() << "no data: set KVASIR_TEST_DATA";
  const test::TempFolder folder;
  for (const char* name : {"vocab.json", "merges.txt"}) {
    WriteFile(folder.path(), name, ReadWholeFile(path + "/" + name));
  }
  WriteFile(folder.path(), "config.json", R"({"model_type": "llama"})");
  Metadata keys("keys");
  const auto ours = Tokenizer::FromFolder(folder.path());
  ASSERT_TRUE(AddTokenizerKeys(folder.path(), 49152, &keys));
  const auto read = Tokenizer::FromGguf(keys);
  EXPECT_EQ(read->name(), "gpt2/smollm");
  const std::string text = ReadWholeFile(KVASIR_SOURCE_DIR "/src/text/tokenizer.cc");
  EXPECT_EQ(read->Encode(text, true), ours->Encode(text, true));
}

}  // namespace
}  // namespace kvasir
