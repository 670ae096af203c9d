#include "text/special_tokens.h"

namespace kvasir {

const SpecialTokens::Node* SpecialTokens::Child(const Node& node, uint8_t byte) const {
  for (const auto& [key, child] : node.children) {
    if (key == byte) return &nodes_[child];
  }
  return nullptr;
}

void SpecialTokens::Add(std::string_view text, TokenId id) {
  if (text.empty()) return;
  begins_[static_cast<uint8_t>(text[0])] = true;
  size_t at = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (const Node* child = Child(nodes_[at], byte)) {
      at = static_cast<size_t>(child - nodes_.data());
      continue;
    }
    nodes_[at].children.emplace_back(byte, static_cast<uint32_t>(nodes_.size()));
    at = nodes_.size();
    nodes_.emplace_back();
  }
  if (nodes_[at].id == kNoToken) nodes_[at].id = id;
}

SpecialTokens::Match SpecialTokens::FindNext(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    Match match;
    const Node* node = &nodes_[0];
    for (size_t i = begin; i < text.size(); ++i) {
      node = Child(*node, static_cast<uint8_t>(text[i]));
      if (node == nullptr) break;
      if (node->id != kNoToken) match = {begin, i + 1 - begin, node->id};
    }
    if (match.length != 0) return match;
  }
  return {};
}

}  // namespace kvasir
