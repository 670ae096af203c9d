// Tokens that are matched literally in text, before any other rule sees it: control tokens, and
// others that a vocabulary wants to find whole.
//
// Cost     A byte trie. Each byte of text takes one look-up, and where a token could begin as many
//          steps as the longest token has bytes, which kMaxBytes bounds.
// Threads  Immutable once filled.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace kvasir {

// How a token is matched. `special`: a control token. `normalized`: it is looked for in the text
// that normalization gives. The others are those of Hugging Face: a match takes the white space to
// its left or right with it, or counts only where no word goes on beside it.
struct AddedToken {
  TokenId id = kNoToken;
  bool special = false, normalized = false;
  bool lstrip = false, rstrip = false, single_word = false;
};

class AddedTokens {
 public:
  static constexpr size_t kMaxBytes = 1024;
  struct Match {
    size_t begin = 0, length = 0;  // length 0: no token in the rest of the text
    TokenId id = kNoToken;
  };

  AddedTokens() : nodes_(1) {}
  // Empty texts are ignored; of two equal texts the first one added counts. Errors: kUnsupported
  // for more than kMaxBytes.
  void Add(std::string_view text, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }
  // The leftmost token at or after `from`, the longest one that begins there.
  Match FindNext(std::string_view text, size_t from) const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t token = kNone;                              // index into tokens_
    std::vector<std::pair<uint8_t, uint32_t>> children;  // by byte
  };
  const Node* Child(const Node& node, uint8_t byte) const;
  // The longest token at `begin`; length 0 if there is none.
  std::pair<size_t, uint32_t> LongestAt(std::string_view text, size_t begin) const;

  std::vector<Node> nodes_;  // nodes_[0] is the root
  std::vector<AddedToken> tokens_;
  std::array<bool, 256> begins_{};
};

}  // namespace kvasir
