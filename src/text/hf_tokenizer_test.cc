#include "text/hf_tokenizer.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/temp_folder.h"
#include "text/test_support.h"

namespace kvasir {
namespace {

using nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Tokenizer> Read(const std::map<std::string, std::string>& contents) {
  HfTokenizerFiles files;
  for (const auto& [name, text] : contents) files[name] = text;
  return ReadHfTokenizer(files, "folder");
}

std::string Refusal(const std::map<std::string, std::string>& contents, Code code) {
  try {
    Read(contents);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "accepted";
}

// The tokenizer.json of a small tokenizer of the golden file.
ordered_json Document(const ordered_json& goldens, const std::string& name) {
  const ordered_json& golden = goldens["tokenizers"][name];
  ordered_json document = golden["document"];
  document["model"].update(goldens["models"][golden["kind"].get<std::string>()]);
  return document;
}

TEST(HfTokenizerTest, MatchesThePackageTokenizersOnSmallVocabularies) {
  const ordered_json goldens = ReadGoldens("hf_tokenizer_goldens.json");
  for (const auto& [name, golden] : goldens["tokenizers"].items()) {
    const auto tokenizer = Read({{"tokenizer.json", Document(goldens, name).dump()}});
    for (const std::string mode : {"special", "plain"}) {
      for (size_t i = 0; i < golden[mode].size(); ++i) {
        const auto text = goldens["texts"][i].get<std::string>();
        EXPECT_EQ(tokenizer->Encode(text, mode == "special"), Ids(golden[mode][i]))
            << name << ", " << mode << ": " << text;
      }
    }
    EXPECT_EQ(tokenizer->add_bos(), golden["kind"] == "characters") << name;
  }
}

TEST(HfTokenizerTest, GivesTheSameIdsInPartsAsAtOnce) {
  const ordered_json goldens = ReadGoldens("hf_tokenizer_goldens.json");
  std::string text;
  while (text.size() < 100'000) {
    for (const std::string part : goldens["texts"]) text += part;
  }
  for (const std::string name : {"qwen2", "prepend"}) {
    const auto tokenizer = Read({{"tokenizer.json", Document(goldens, name).dump()}});
    std::vector<TokenId> ids;
    size_t calls = 0;
    tokenizer->EncodeTo(text, /*special=*/true, [&](std::span<const TokenId> part) {
      ids.insert(ids.end(), part.begin(), part.end());
      ++calls;
    });
    EXPECT_EQ(ids, tokenizer->Encode(text, true));
    EXPECT_GT(calls, 1u);
  }
}

const std::map<std::string, std::string>& SmallFiles() {
  static const std::map<std::string, std::string> files = {
      {"vocab.json", R"({"a": 0, "b": 1, "ab": 2, "<|end|>": 3, "Ġ": 4, "10": 5})"},
      {"merges.txt", "#version: 0.2\na b\n"},
      {"added_tokens.json", R"({"<|im_end|>": 6, "<tool>": 7})"},
      {"config.json", R"({"model_type": "gpt2", "eos_token_id": 3})"}};
  return files;
}

TEST(HfTokenizerTest, ReadsVocabularyAndMerges) {
  auto files = SmallFiles();
  files["tokenizer_config.json"] =
      R"({"bos_token": {"content": "<|end|>"}, "eos_token": "<|im_end|>", "add_bos_token": true,
          "chat_template": [{"name": "tools", "template": "t"},
                            {"name": "default", "template": "d"}]})";
  files["generation_config.json"] = R"({"eos_token_id": [6, 3, 99]})";
  const auto tokenizer = Read(files);
  EXPECT_EQ(tokenizer->name(), "gpt2/gpt-2");
  EXPECT_THAT(tokenizer->Encode("ab a", false), ElementsAre(2, 4, 0));
  EXPECT_THAT(tokenizer->Encode("a<|im_end|><tool>", true), ElementsAre(0, 6, 7));
  EXPECT_THAT(tokenizer->Encode("b<tool>", false), ElementsAre(1, 7));
  EXPECT_TRUE(tokenizer->IsControl(3));
  EXPECT_TRUE(tokenizer->IsControl(6));
  EXPECT_FALSE(tokenizer->IsControl(7));
  EXPECT_EQ(tokenizer->bos(), 3);
  EXPECT_EQ(tokenizer->eos(), 6);
  EXPECT_TRUE(tokenizer->add_bos());
  EXPECT_THAT(tokenizer->ends(), ElementsAre(3, 6));
  EXPECT_EQ(tokenizer->chat_template(), "d");
  files["chat_template.jinja"] = "j";
  EXPECT_EQ(Read(files)->chat_template(), "j");
}

TEST(HfTokenizerTest, TakesThePreTokenizerFromTheClassOrTheModel) {
  auto files = SmallFiles();
  const auto name = [&](const char* kind, const char* tokenizer_class) {
    files["config.json"] = ordered_json{{"model_type", kind}}.dump();
    files["tokenizer_config.json"] = ordered_json{{"tokenizer_class", tokenizer_class}}.dump();
    return std::string(Read(files)->name());
  };
  EXPECT_EQ(name("qwen3", "PreTrainedTokenizerFast"), "gpt2/qwen2");
  EXPECT_EQ(name("llama", "Qwen2TokenizerFast"), "gpt2/qwen2");
  EXPECT_EQ(name("qwen2", "GPT2Tokenizer"), "gpt2/gpt-2");
  // Without a token of two digits the vocabulary was trained on single ones.
  files["vocab.json"] = R"({"a": 0, "b": 1, "ab": 2, "<|end|>": 3, "Ġ": 4, "1": 5})";
  EXPECT_EQ(name("llama", "GPT2Tokenizer"), "gpt2/smollm");
  files["config.json"] = R"({"model_type": "mamba"})";
  files.erase("tokenizer_config.json");
  EXPECT_THAT(Refusal(files, Code::kUnsupported), HasSubstr("Qwen2Tokenizer"));
}

TEST(HfTokenizerTest, RefusesByNameWhatItDoesNotKnow) {
  const ordered_json goldens = ReadGoldens("hf_tokenizer_goldens.json");
  const auto refusal = [&](const char* name, const char* place, const char* value) {
    ordered_json document = Document(goldens, name);
    document[ordered_json::json_pointer(place)] = ordered_json::parse(value);
    return Refusal({{"tokenizer.json", document.dump()}}, Code::kUnsupported);
  };
  EXPECT_THAT(refusal("gpt-2", "/model/type", R"("Unigram")"), HasSubstr("Unigram"));
  EXPECT_THAT(refusal("gpt-2", "/model/dropout", "0.5"), HasSubstr("dropout"));
  EXPECT_THAT(refusal("gpt-2", "/model/end_of_word_suffix", R"("</w>")"), HasSubstr("</w>"));
  EXPECT_THAT(refusal("gpt-2", "/normalizer", R"({"type": "NFKC"})"), HasSubstr("NFKC"));
  EXPECT_THAT(refusal("gpt-2", "/pre_tokenizer", R"({"type": "BertPreTokenizer"})"),
              HasSubstr("BertPreTokenizer"));
  EXPECT_THAT(refusal("gpt-2", "/pre_tokenizer/add_prefix_space", "true"), HasSubstr("prefix"));
  EXPECT_THAT(refusal("gpt-2", "/post_processor", R"({"type": "BertProcessing"})"),
              HasSubstr("BertProcessing"));
  EXPECT_THAT(refusal("prepend", "/model/ignore_merges", "true"), HasSubstr("ignore_merges"));
  // A pattern that would take exponential time, were it run.
  const std::string pattern =
      refusal("qwen2", "/pre_tokenizer/pretokenizers/0/pattern", R"({"Regex": "(a+)+$"})");
  EXPECT_THAT(pattern, HasSubstr("(a+)+$"));
  EXPECT_THAT(pattern, HasSubstr("gpt-2, smollm, qwen2, llama3, tekken"));
}

TEST(HfTokenizerTest, RefusesFilesThatContradictThemselves) {
  const ordered_json goldens = ReadGoldens("hf_tokenizer_goldens.json");
  const auto refusal = [&](const char* place, const char* value) {
    ordered_json document = Document(goldens, "prepend");
    document[ordered_json::json_pointer(place)] = ordered_json::parse(value);
    return Refusal({{"tokenizer.json", document.dump()}}, Code::kCorrupt);
  };
  EXPECT_THAT(refusal("/model/vocab/a", "2000000000"), HasSubstr("2000000000"));
  EXPECT_THAT(refusal("/model/vocab/a", "-1"), HasSubstr("-1"));
  EXPECT_THAT(refusal("/model/vocab/a", "3"), HasSubstr("contradicts"));
  EXPECT_THAT(refusal("/model/vocab", "[]"), HasSubstr("object"));
  EXPECT_THAT(refusal("/model/merges", "[\"ab\"]"), HasSubstr("two tokens"));
  EXPECT_THAT(refusal("/model/merges", "[[\"a\", \"b\", \"c\"]]"), HasSubstr("pair"));
  EXPECT_THAT(refusal("/model/merges", "[[\"a\", \"\\u4e2d\"]]"), HasSubstr("missing"));
  EXPECT_THAT(refusal("/model", "null"), HasSubstr("model"));
  EXPECT_THAT(refusal("/added_tokens", "[{\"content\": \"x\"}]"), HasSubstr("id"));
  EXPECT_THAT(refusal("/added_tokens", "[{\"content\": \"x\", \"id\": 5}]"),
              HasSubstr("contradicts"));
  EXPECT_THAT(refusal("/post_processor/special_tokens/<s>/ids", "[77777]"), HasSubstr("77777"));
  EXPECT_THAT(refusal("/normalizer/normalizers", "1"), HasSubstr("list"));
  EXPECT_THAT(Refusal({{"tokenizer.json", "{"}}, Code::kCorrupt), HasSubstr("JSON"));
  EXPECT_THAT(Refusal({{"tokenizer.model", ""}}, Code::kNotFound), HasSubstr("tokenizer.model"));
}

TEST(HfTokenizerTest, RefusesAnAddedTokenThatWouldMakeSearchingSlow) {
  const ordered_json goldens = ReadGoldens("hf_tokenizer_goldens.json");
  ordered_json document = Document(goldens, "gpt-2");
  document["added_tokens"].push_back({{"id", 500}, {"content", std::string(2000, 'a') + "b"}});
  EXPECT_THAT(Refusal({{"tokenizer.json", document.dump()}}, Code::kUnsupported),
              HasSubstr("2001 bytes"));
}

TEST(HfTokenizerTest, OpensAFolder) {
  const test::TempFolder folder;
  for (const auto& [name, text] : SmallFiles()) folder.Write(name, text);
  EXPECT_THAT(Tokenizer::FromFolder(folder.path())->Encode("ab", false), ElementsAre(2));
  const test::TempFolder empty;
  EXPECT_THROW(Tokenizer::FromFolder(empty.path()), Error);
}

}  // namespace
}  // namespace kvasir
