// Finds tokens that are matched literally in text, before any other rule sees it.
//
// Cost     A byte trie. Finding the next token costs one look-up for each byte of text, and at
//          most the longest token's length where one could begin.
// Threads  Immutable once filled.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace kvasir {

class SpecialTokens {
 public:
  struct Match {
    size_t begin = 0, length = 0;  // length 0: no token in the rest of the text
    TokenId id = kNoToken;
  };

  SpecialTokens() : nodes_(1) {}
  // Empty texts are ignored; of two equal texts the first one added counts.
  void Add(std::string_view text, TokenId id);
  // The leftmost token at or after `from`, the longest one that begins there.
  Match FindNext(std::string_view text, size_t from) const;

 private:
  struct Node {
    TokenId id = kNoToken;
    std::vector<std::pair<uint8_t, uint32_t>> children;
  };
  const Node* Child(const Node& node, uint8_t byte) const;

  std::vector<Node> nodes_;  // nodes_[0] is the root
  std::array<bool, 256> begins_{};
};

}  // namespace kvasir
