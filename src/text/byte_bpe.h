// Byte-level BPE ("gpt2" in GGUF): text is cut by a pre-tokenizer, and inside each piece the pair
// of neighbours with the lowest rank is merged until no pair has one.
//
// Invariants  Every merge joins two tokens of the vocabulary into a third: checked when loaded. A
//             byte without a token (some vocabularies lack a few control characters and bytes that
//             UTF-8 never uses) is dropped, as other implementations do.
// Cost        A piece of n bytes takes O(n log n), prose runs at 10 MB/s or more on one core.
// Threads     Immutable after construction.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/merges.h"
#include "text/pretokenizer.h"
#include "text/table_tokenizer.h"

namespace kvasir {

// Both sides of each merge, by rank.
using MergeList = std::vector<std::pair<std::string_view, std::string_view>>;
// The two sides of a merge written as "left right". Errors: kCorrupt, opening with `where`.
std::pair<std::string_view, std::string_view> SplitMerge(std::string_view text, size_t rank,
                                                         std::string_view where);
// Errors: kCorrupt for a merge whose sides or result are no tokens.
MergeTable MergeTableOf(const TokenIndex& index, const MergeList& merges, std::string_view where);

class ByteBpeTokenizer : public TableTokenizer {
 public:
  struct Rules {
    std::string pre;  // the pre-tokenizer's name
    // A piece that is a token stays whole, even where merges do not lead to it.
    bool whole_pieces = false;
    bool nfc = false;
  };

  static std::unique_ptr<Tokenizer> FromGguf(const Metadata& metadata);
  // `where` opens error messages about merges.
  static std::unique_ptr<Tokenizer> Create(Vocabulary vocabulary, const MergeList& merges,
                                           const Rules& rules, std::string_view where);

 protected:
  void EncodePlain(std::string_view text, bool prefix, IdSink* ids) const override;

 private:
  ByteBpeTokenizer(Vocabulary vocabulary, std::vector<std::string> pieces,
                   const std::array<TokenId, 256>& bytes, MergeTable merges, const Rules& rules);
  void EncodePiece(std::string_view piece, SymbolMerger* merger, IdSink* ids) const;

  std::array<TokenId, 256> bytes_;
  MergeTable merges_;
  PreTokenizer pre_tokenizer_;
  std::unordered_map<std::string_view, TokenId> whole_;  // empty unless Rules::whole_pieces
};

}  // namespace kvasir
