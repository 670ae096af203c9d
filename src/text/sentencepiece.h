// SentencePiece-style BPE (tokenizer.ggml.model "llama"): the text is one sequence of characters,
// spaces written as U+2581, and the pair of neighbours whose joined text is the token with the
// highest score is merged first, the leftmost of equals. What is no token in the end is spelled in
// byte tokens.
//
// Invariants  Only normal tokens come out of merges: text that happens to read "<s>" or "<0x41>"
//             never becomes that token.
// Cost        A stretch of n bytes takes O(n log n), prose runs at 5 MB/s on one core. Stretches
//             are words if the vocabulary has no token with a space inside, else whole texts.
// Threads     Immutable after construction.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/table_tokenizer.h"

namespace kvasir {

class SentencePieceTokenizer : public TableTokenizer {
 public:
  static std::unique_ptr<Tokenizer> FromGguf(const Metadata& metadata);

 protected:
  void EncodePlain(std::string_view text, bool prefix_space,
                   std::vector<TokenId>* ids) const override;

 private:
  struct Tables {
    std::vector<std::string> texts;  // owns what `normal` refers to
    std::unordered_map<std::string_view, TokenId> normal;
    std::vector<float> scores;
    std::array<TokenId, 256> bytes;
    TokenId unknown = kNoToken;
    size_t longest = 0;            // bytes of the longest normal token
    bool space_only_first = true;  // no normal token has a space after another character
  };
  class Merger;

  SentencePieceTokenizer(Vocabulary vocabulary, std::vector<std::string> pieces,
                         bool adds_prefix_space, Tables tables);
  static Tables TablesOf(const Metadata& metadata, const Vocabulary& vocabulary);

  Tables tables_;
};

}  // namespace kvasir
