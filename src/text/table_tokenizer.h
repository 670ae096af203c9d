// What tokenizers with a table of tokens share: special tokens in text, bytes of tokens, decoding.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/special_tokens.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace kvasir {

// Units longer than this are encoded in parts, which bounds the memory a merge needs (about 50
// bytes for each byte of a unit) and lets 32 bits hold a position.
inline constexpr size_t kMaxUnitBytes = size_t{1} << 22;

class TableTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> Encode(std::string_view text, bool special,
                              bool prefix_space) const override;
  std::string Piece(TokenId id, bool special) const override;
  std::string Decode(std::span<const TokenId> ids, bool special, bool at_start) const override;
  size_t vocab_size() const override { return types_.size(); }
  bool IsControl(TokenId id) const override;

 protected:
  // `pieces`: the bytes that each token stands for. `adds_prefix_space`: the vocabulary's own rule.
  TableTokenizer(std::string name, Vocabulary vocabulary, std::vector<std::string> pieces,
                 bool adds_prefix_space);

  // Appends the ids of text that holds no special tokens. `prefix_space`: the rule applies here.
  virtual void EncodePlain(std::string_view text, bool prefix_space,
                           std::vector<TokenId>* ids) const = 0;

 private:
  bool InRange(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < types_.size(); }

  std::vector<std::string> pieces_;
  std::vector<TokenType> types_;
  bool adds_prefix_space_;
  SpecialTokens user_defined_, all_special_;
};

}  // namespace kvasir
