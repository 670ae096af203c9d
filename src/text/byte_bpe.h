// Byte-level BPE (tokenizer.ggml.model "gpt2"): text is cut by a pre-tokenizer, and inside each
// piece the pair of neighbours with the lowest rank is merged until no pair has one.
//
// Invariants  Every merge joins two tokens of the vocabulary into a third: checked when loaded. A
//             byte without a token (some vocabularies lack a few control characters and bytes that
//             UTF-8 never uses) is dropped, as other implementations do.
// Cost        A piece of n bytes takes O(n log n), prose runs at 10 MB/s or more on one core. The
//             table of merges has two to four slots of 16 bytes for each merge.
// Threads     Immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/pretokenizer.h"
#include "text/table_tokenizer.h"

namespace kvasir {

// Which merge joins two neighbouring tokens. Open addressing with linear probing, filled once.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNone;
    TokenId merged = kNoToken;
    bool exists() const { return rank != kNone; }
  };

  explicit MergeTable(size_t n_merges);
  // Of two merges of one pair the first one counts.
  void Add(TokenId left, TokenId right, Merge merge);
  Merge Find(TokenId left, TokenId right) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Slot {
    TokenId left = kNoToken, right = kNoToken;
    Merge merge;
  };
  size_t SlotOf(TokenId left, TokenId right) const;

  std::vector<Slot> slots_;
  int shift_;
};

class ByteBpeTokenizer : public TableTokenizer {
 public:
  static std::unique_ptr<Tokenizer> FromGguf(const Metadata& metadata);

 protected:
  void EncodePlain(std::string_view text, bool prefix_space,
                   std::vector<TokenId>* ids) const override;

 private:
  struct Tables {
    std::array<TokenId, 256> bytes;
    MergeTable merges;
  };
  ByteBpeTokenizer(std::string_view pre, Vocabulary vocabulary, std::vector<std::string> pieces,
                   Tables tables);
  static Tables TablesOf(const Metadata& metadata, const Vocabulary& vocabulary);

  Tables tables_;
  PreTokenizer pre_tokenizer_;
};

}  // namespace kvasir
