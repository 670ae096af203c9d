// Any bytes as text, through small vocabularies that have a token for every byte: no text is
// refused, none is lost on the way there and back, and streams say what lists say.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace kvasir {
namespace {

std::string Spell(uint32_t byte) {
  std::string text;
  const bool itself = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
  // The bytes that do not stand for themselves follow from U+0100 in order.
  const uint32_t before = byte <= 0x20 ? byte : byte <= 0xA0 ? byte - 0x7F + 0x21 : 0x43;
  AppendUtf8(itself ? byte : 0x100 + before, &text);
  return text;
}

Metadata ByteLevel(const char* pre) {
  std::vector<std::string> tokens, merges;
  std::vector<int64_t> types;
  for (uint32_t byte = 0; byte < 256; ++byte) tokens.push_back(Spell(byte));
  const std::string space = Spell(' ');
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"a", "b"},     {"b", "a"},
      {"ab", "a"},    {"a", "a"},
      {"aa", "aa"},   {space, "a"},
      {space, space}, {space + space, space + space},
      {"1", "2"},     {Spell(0xC3), Spell(0xA9)}};
  for (const auto& [left, right] : pairs) {
    tokens.push_back(left + right);
    merges.push_back(left + " " + right);
  }
  types.assign(tokens.size(), 1);
  for (const auto& [text, type] :
       std::vector<std::pair<std::string, int64_t>>{{"<|a|>", 3}, {"<|a|>b", 3}, {"aab", 4}}) {
    tokens.push_back(text);
    types.push_back(type);
  }
  Metadata metadata;
  metadata.Set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.Set("tokenizer.ggml.pre", std::string(pre));
  metadata.Set("tokenizer.ggml.tokens", MetadataArray{tokens});
  metadata.Set("tokenizer.ggml.token_type", MetadataArray{types});
  metadata.Set("tokenizer.ggml.merges", MetadataArray{merges});
  return metadata;
}

Metadata SentencePieceStyle() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    types.push_back(6);
  }
  for (const char* text : {"\u2581", "\u2581\u2581", "a", "\u2581a", "ab", "aba", "b", "\u00e9"}) {
    tokens.emplace_back(text);
    types.push_back(1);
  }
  std::vector<double> scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<double>(i % 5));
  Metadata metadata;
  metadata.Set("tokenizer.ggml.model", std::string("llama"));
  metadata.Set("tokenizer.ggml.bos_token_id", uint64_t{1});
  metadata.Set("tokenizer.ggml.tokens", MetadataArray{tokens});
  metadata.Set("tokenizer.ggml.token_type", MetadataArray{types});
  metadata.Set("tokenizer.ggml.scores", MetadataArray{scores});
  return metadata;
}

std::string Streamed(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  StreamDecoder decoder(tokenizer, /*at_start=*/true);
  std::string text;
  for (const TokenId id : ids) text += decoder.Push(id);
  CHECK(text == decoder.text());
  return text;
}

// What a stream holds back at its end: the beginning of a character.
bool IsHeldBack(std::string_view rest) {
  return rest.empty() || (rest.size() < 4 && IsUnfinishedUtf8(rest));
}

void Check(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<TokenId> ids = tokenizer.Encode(text, /*special=*/false);
  const std::string decoded = tokenizer.Decode(ids, false, /*at_start=*/true);
  // U+2581 is how SentencePiece writes a space, so that one character comes back as another.
  if (tokenizer.name() != "llama" || text.find("\u2581") == std::string_view::npos) {
    CHECK(decoded == text);
  }
  const std::string streamed = Streamed(tokenizer, ids);
  CHECK(decoded.starts_with(streamed));
  CHECK(IsHeldBack(std::string_view(decoded).substr(streamed.size())));
  (void)tokenizer.Decode(tokenizer.Encode(text, /*special=*/true), true);
}

}  // namespace
}  // namespace kvasir

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  static const auto tokenizers = [] {
    std::vector<std::unique_ptr<Tokenizer>> all;
    for (const char* pre : {"gpt-2", "smollm", "qwen2", "llama3", "tekken"}) {
      all.push_back(Tokenizer::FromGguf(ByteLevel(pre)));
    }
    all.push_back(Tokenizer::FromGguf(SentencePieceStyle()));
    return all;
  }();
  for (const auto& tokenizer : tokenizers) {
    Check(*tokenizer, {reinterpret_cast<const char*>(data), size});
  }
  return 0;
}
