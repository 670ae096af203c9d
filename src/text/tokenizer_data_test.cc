// Real vocabularies out of the data folder: pairs of texts and ids from another implementation, and
// a megabyte of mixed text.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>

#include "text/hf_tokenizer.h"
#include "text/test_support.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

#define SKIP_WITHOUT(path) \
  if (TestDataPath(path).empty()) GTEST_SKIP() << "no KVASIR_TEST_DATA with " << path

// The texts and ids of a pair of files x.gguf.inp, x.gguf.out.
struct Vector {
  std::string text;
  std::vector<TokenId> ids;
};
std::vector<Vector> ReadVectors(const std::string& name) {
  const std::string path = TestDataPath("tokenizers/ggml-vocab/ggml-vocab-" + name + ".gguf.inp");
  const std::string inputs = ReadWholeFile(path);
  std::istringstream outputs(ReadWholeFile(path.substr(0, path.size() - 3) + "out"));
  const std::string border = "\n__ggml_vocab_test__\n";
  std::vector<Vector> vectors;
  for (size_t at = 0; at <= inputs.size();) {
    const size_t end = std::min(inputs.find(border, at), inputs.size());
    Vector& vector = vectors.emplace_back();
    vector.text = inputs.substr(at, end - at);
    std::string line;
    std::getline(outputs, line);
    std::istringstream numbers(line);
    for (TokenId id; numbers >> id;) vector.ids.push_back(id);
    at = end + border.size();
  }
  return vectors;
}

void ExpectVectors(const Tokenizer& tokenizer, const std::string& name) {
  const std::vector<Vector> vectors = ReadVectors(name);
  ASSERT_EQ(vectors.size(), 47u);
  for (const Vector& vector : vectors) {
    const std::vector<TokenId> ids = tokenizer.Encode(vector.text, /*special=*/false);
    EXPECT_EQ(ids, vector.ids) << vector.text;
    EXPECT_EQ(tokenizer.Decode(ids, false, /*at_start=*/true), vector.text);
  }
}

std::unique_ptr<Tokenizer> FromVocabulary(const std::string& name) {
  return TokenizerOf(TestDataPath("tokenizers/ggml-vocab/ggml-vocab-" + name + ".gguf"));
}

std::unique_ptr<Tokenizer> FromFiles(const std::string& folder, const std::string& model_type) {
  const std::string path = TestDataPath("tokenizers/" + folder);
  const std::string vocab = ReadWholeFile(path + "/vocab.json");
  const std::string merges = ReadWholeFile(path + "/merges.txt");
  const std::string config = nlohmann::json{{"model_type", model_type}}.dump();
  return ReadHfTokenizer({{"vocab.json", vocab}, {"merges.txt", merges}, {"config.json", config}},
                         path);
}

std::string FromBase64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int n = 0;
  for (const char c : text.substr(0, text.find('='))) {
    bits = bits << 6 | static_cast<uint32_t>(kDigits.find(c));
    if ((n += 6) < 8) continue;
    n -= 8;
    bytes += static_cast<char>(bits >> n & 0xFF);
  }
  return bytes;
}

// Llama 3's file of ranks as GGUF would hold it: a token has a merge for each way to cut it in two.
std::unique_ptr<Tokenizer> FromRanks(const std::string& path, const std::string& pre) {
  std::istringstream lines(ReadWholeFile(path));
  std::vector<std::string> texts;
  const auto alphabet = [] {
    std::vector<std::string> spelled(256);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool itself = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      AppendUtf8(itself ? byte : next++, &spelled[byte]);
    }
    return spelled;
  }();
  std::unordered_map<std::string, size_t> ranks;
  std::vector<std::string> tokens;
  for (std::string text, rank; lines >> text >> rank;) {
    tokens.push_back(FromBase64(text));
    ranks.emplace(tokens.back(), tokens.size());
  }
  const auto spell = [&](std::string_view bytes) {
    std::string text;
    for (const char c : bytes) text += alphabet[static_cast<uint8_t>(c)];
    return text;
  };
  std::vector<std::string> merges;
  for (const std::string& token : tokens) {
    texts.push_back(spell(token));
    for (size_t i = 1; i < token.size(); ++i) {
      const std::string left = token.substr(0, i), right = token.substr(i);
      if (ranks.contains(left) && ranks.contains(right)) {
        merges.push_back(spell(left) + " " + spell(right));
      }
    }
  }
  Metadata metadata;
  metadata.Set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.Set("tokenizer.ggml.pre", pre);
  metadata.Set("tokenizer.ggml.tokens", MetadataArray{std::move(texts)});
  metadata.Set("tokenizer.ggml.merges", MetadataArray{std::move(merges)});
  return Tokenizer::FromGguf(metadata);
}

// A megabyte of fragments and broken bytes in the order that the golden file's script used.
std::string MixedText(const nlohmann::ordered_json& mixed) {
  const auto fragments = mixed["fragments"].get<std::vector<std::string>>();
  std::vector<std::string> broken;
  for (const std::string hex : mixed["broken"]) {
    std::string& bytes = broken.emplace_back();
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
  }
  uint64_t state = 1;
  const auto pick = [&state](size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
  };
  std::string text;
  while (text.size() < mixed["bytes"].get<size_t>()) {
    if (pick(16) == 0) text += broken[pick(broken.size())];
    text += fragments[pick(fragments.size())];
  }
  return text;
}

std::string HashOf(const std::vector<TokenId>& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3u;
    }
  }
  return fmt::format("{:016x}", hash);
}

// `loses`: the vocabulary has no token for some of the broken bytes.
void ExpectMixedText(const Tokenizer& tokenizer, const std::string& name, bool loses = false) {
  const auto goldens = ReadGoldens("hf_tokenizer_goldens.json");
  const std::string text = MixedText(goldens["mixed"]);
  const std::vector<TokenId> ids = tokenizer.Encode(text, /*special=*/false);
  EXPECT_EQ(ids.size(), goldens["mixed"]["ids"][name]["n"].get<size_t>()) << name;
  EXPECT_EQ(HashOf(ids), goldens["mixed"]["ids"][name]["hash"].get<std::string>()) << name;
  // Normalization changes text for good.
  EXPECT_TRUE(loses || tokenizer.Decode(ids, false, /*at_start=*/true) == text) << name;
}

TEST(TokenizerDataTest, AgreesOnGpt2) {
  SKIP_WITHOUT("tokenizers/ggml-vocab");
  const auto tokenizer = FromVocabulary("gpt-2");
  ExpectVectors(*tokenizer, "gpt-2");
  ExpectMixedText(*tokenizer, "gpt-2");
}

TEST(TokenizerDataTest, AgreesOnLlama2) {
  SKIP_WITHOUT("tokenizers/ggml-vocab");
  const auto tokenizer = FromVocabulary("llama-spm");
  ExpectVectors(*tokenizer, "llama-spm");
  ExpectMixedText(*tokenizer, "llama");
}

TEST(TokenizerDataTest, AgreesOnPhi3) {
  SKIP_WITHOUT("tokenizers/ggml-vocab");
  ExpectVectors(*FromVocabulary("phi-3"), "phi-3");
}

TEST(TokenizerDataTest, AgreesOnQwen2) {
  SKIP_WITHOUT("tokenizers/qwen2.5");
  const auto tokenizer = FromFiles("qwen2.5", "qwen2");
  ExpectMixedText(*tokenizer, "qwen2", /*loses=*/true);
  // The pairs come from an implementation that does not normalize; these texts are normalized.
  ExpectVectors(*tokenizer, "qwen2");
  ExpectVectors(*tokenizer, "deepseek-r1-qwen");
}

TEST(TokenizerDataTest, AgreesOnSmollm) {
  SKIP_WITHOUT("tokenizers/smollm");
  const auto tokenizer = FromFiles("smollm", "llama");
  EXPECT_EQ(tokenizer->name(), "gpt2/smollm");
  ExpectMixedText(*tokenizer, "smollm", /*loses=*/true);
}

TEST(TokenizerDataTest, AgreesOnLlama3) {
  SKIP_WITHOUT("tokenizers/llama3");
  const auto tokenizer = FromRanks(TestDataPath("tokenizers/llama3/tokenizer.model"), "llama-bpe");
  ExpectVectors(*tokenizer, "llama-bpe");
  ExpectMixedText(*tokenizer, "llama3");
}

}  // namespace
}  // namespace kvasir
