#include "text/vocabulary.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "base/error.h"

namespace kvasir {

namespace {

// What families of models call the token after which nothing follows. Only control tokens count.
constexpr std::string_view kEndNames[] = {
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<end_of_utterance>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
};

TokenId IdAt(const Metadata& metadata, std::string_view key, size_t vocab_size) {
  if (!metadata.Has(key)) return kNoToken;
  const uint64_t id = metadata.Uint(key);
  if (id >= vocab_size) {
    Fail(Code::kCorrupt, "{}: token {} is not one of the vocabulary's {}", key, id, vocab_size);
  }
  return static_cast<TokenId>(id);
}

std::vector<TokenType> TypesOf(const Metadata& metadata, size_t vocab_size) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  if (!metadata.Has(kKey)) return std::vector<TokenType>(vocab_size, TokenType::kNormal);
  const std::vector<int64_t> numbers = metadata.Ints(kKey);
  if (numbers.size() != vocab_size) {
    Fail(Code::kCorrupt, "{}: {} types for {} tokens; there must be one for each", kKey,
         numbers.size(), vocab_size);
  }
  std::vector<TokenType> types(vocab_size);
  for (size_t i = 0; i < vocab_size; ++i) {
    // 0 is written by some converters for tokens without a type.
    const int64_t number = numbers[i] == 0 ? 1 : numbers[i];
    if (number < 1 || number > 6) {
      Fail(Code::kCorrupt, "{}: token {} has type {}; types are 1 to 6", kKey, i, number);
    }
    types[i] = static_cast<TokenType>(number);
  }
  return types;
}

// Control tokens and tokens that the user defined are matched whole.
std::vector<AddedToken> AddedOf(const Vocabulary& vocabulary) {
  std::vector<AddedToken> added;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown;
    if (special || type == TokenType::kUserDefined) {
      added.push_back({.id = static_cast<TokenId>(i), .special = special});
    }
  }
  return added;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

}  // namespace

Vocabulary Vocabulary::FromGguf(const Metadata& metadata, bool add_bos_default) {
  const std::vector<std::string>* texts = metadata.Strings("tokenizer.ggml.tokens");
  if (texts == nullptr || texts->empty()) {
    Fail(Code::kCorrupt, "tokenizer.ggml.tokens: the list of tokens is missing or empty");
  }
  if (texts->size() > static_cast<size_t>(std::numeric_limits<TokenId>::max())) {
    Fail(Code::kCorrupt, "tokenizer.ggml.tokens: {} tokens do not fit into 31 bits", texts->size());
  }
  Vocabulary v;
  v.texts = *texts;
  v.types = TypesOf(metadata, v.texts.size());
  v.bos = IdAt(metadata, "tokenizer.ggml.bos_token_id", v.texts.size());
  v.eos = IdAt(metadata, "tokenizer.ggml.eos_token_id", v.texts.size());
  v.unknown = IdAt(metadata, "tokenizer.ggml.unknown_token_id", v.texts.size());
  v.add_bos = metadata.Bool("tokenizer.ggml.add_bos_token", add_bos_default && v.bos != kNoToken);
  if (v.add_bos && v.bos == kNoToken) {
    Fail(Code::kCorrupt,
         "tokenizer.ggml.add_bos_token is set, but tokenizer.ggml.bos_token_id is missing");
  }
  v.added = AddedOf(v);
  for (const auto* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    v.ends.push_back(IdAt(metadata, key, v.texts.size()));
  }
  v.FinishEnds();
  v.chat_template = metadata.String("tokenizer.chat_template", "");
  return v;
}

void Vocabulary::FinishEnds() {
  ends.push_back(eos);
  for (size_t i = 0; i < size(); ++i) {
    if (types[i] == TokenType::kControl &&
        std::ranges::find(kEndNames, texts[i]) != std::end(kEndNames)) {
      ends.push_back(static_cast<TokenId>(i));
    }
  }
  std::erase(ends, kNoToken);
  std::ranges::sort(ends);
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

TokenIndex::TokenIndex(const Vocabulary& vocabulary) {
  ids_.reserve(vocabulary.size());
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    ids_.emplace(vocabulary.texts[i], static_cast<TokenId>(i));
  }
}

TokenId TokenIndex::Find(std::string_view text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? kNoToken : found->second;
}

int ByteOfToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || !text.ends_with('>')) return -1;
  const int high = HexDigit(text[3]), low = HexDigit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace kvasir
