// BPE over characters with bytes to fall back on: "llama" in GGUF, and the form in which Hugging
// Face has the vocabularies of SentencePiece. Spaces are written as U+2581, neighbours merge where
// a merge joins them, lowest rank first, and characters that are no token are spelled in byte
// tokens.
//
// Invariants  Only normal tokens come out of merges: text that happens to read "<s>" or "<0x41>"
//             never becomes that token.
// Cost        A stretch of n bytes takes O(n log n). Stretches are words if no token has a space
//             after another character, else whole texts.
// Threads     Immutable after construction.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/byte_bpe.h"
#include "text/merges.h"
#include "text/table_tokenizer.h"

namespace kvasir {

class SentencePieceTokenizer : public TableTokenizer {
 public:
  struct Rules {
    TextRules text;
    bool byte_fallback = true;
    bool fuse_unknown = false;  // neighbours that are unknown become one token
    // Stretches begin at every space, not only at those that follow another character.
    bool cuts_spaces_apart = false;
  };

  // Merges follow from the scores: what joins to a token has its score's rank, the highest first.
  static std::unique_ptr<Tokenizer> FromGguf(const Metadata& metadata);
  // `where` opens error messages about merges.
  static std::unique_ptr<Tokenizer> Create(Vocabulary vocabulary, const MergeList& merges,
                                           const Rules& rules, std::string_view where);

 protected:
  void EncodePlain(std::string_view text, bool prefix, IdSink* ids) const override;

 private:
  // What merges work on: tokens, and beyond their ids the characters that occur in tokens without
  // being one.
  struct Symbols {
    size_t n_tokens = 0;
    std::vector<std::string> characters;  // that are no token
    std::array<TokenId, 128> ascii;
    std::unordered_map<uint32_t, TokenId> others;  // by code point

    TokenId Find(std::string_view character) const;
    void Add(std::string_view character, TokenId symbol);
  };
  class ScoredVocabulary;

  SentencePieceTokenizer(Vocabulary vocabulary, std::vector<std::string> pieces, Symbols symbols,
                         MergeTable merges, const Rules& rules);
  static Symbols SymbolsOf(const Vocabulary& vocabulary);

  // Adds a character that is no symbol; `unknown`: whether the one before was unknown.
  void AddSpelled(std::string_view character, bool* unknown, SymbolMerger* merger) const;
  void Flush(SymbolMerger* merger, IdSink* ids) const;

  Rules rules_;
  TokenId unknown_;
  std::array<TokenId, 256> bytes_;
  bool space_only_first_;  // no token has a space after another character
  Symbols symbols_;
  MergeTable merges_;
};

}  // namespace kvasir
