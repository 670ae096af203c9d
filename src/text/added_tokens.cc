#include "text/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/error.h"
#include "format/quote.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

// White_Space of Unicode.
bool IsSpace(uint32_t c) { return IsUnicodeSpace(c) && (c < 0x1C || c > 0x1F); }

// What \w matches by Unicode's rule: letters, marks, digits, connectors, joiners.
bool IsWord(uint32_t c) {
  if (c > 0x10FFFF) return false;
  if (c == 0x200C || c == 0x200D) return true;
  // Circled and squared letters are alphabetic symbols.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189)) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

// The unit that ends at `end`, which is not 0.
std::string_view UnitBefore(std::string_view text, size_t end) {
  for (size_t length = std::min<size_t>(4, end); length > 1; --length) {
    if (Utf8CharLength(text.substr(end - length, length)) == length) {
      return text.substr(end - length, length);
    }
  }
  return text.substr(end - 1, 1);
}

std::string_view UnitAt(std::string_view text, size_t at) {
  return text.substr(at, Utf8UnitLength(text.substr(at)));
}

bool IsWholeWord(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !IsWord(DecodeUtf8Unit(UnitBefore(text, begin)))) &&
         (end == text.size() || !IsWord(DecodeUtf8Unit(UnitAt(text, end))));
}

}  // namespace

const AddedTokens::Node* AddedTokens::Child(const Node& node, uint8_t byte) const {
  const auto found =
      std::ranges::lower_bound(node.children, byte, {}, &std::pair<uint8_t, uint32_t>::first);
  return found == node.children.end() || found->first != byte ? nullptr : &nodes_[found->second];
}

void AddedTokens::Add(std::string_view text, const AddedToken& token) {
  if (text.empty()) return;
  if (text.size() > kMaxBytes) {
    Fail(Code::kUnsupported, "token {} {}: {} bytes; one that is matched whole may have {}",
         token.id, Quoted(text.substr(0, 40)), text.size(), kMaxBytes);
  }
  begins_[static_cast<uint8_t>(text[0])] = true;
  size_t at = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (const Node* child = Child(nodes_[at], byte)) {
      at = static_cast<size_t>(child - nodes_.data());
      continue;
    }
    auto& children = nodes_[at].children;
    const auto place =
        std::ranges::lower_bound(children, byte, {}, &std::pair<uint8_t, uint32_t>::first);
    children.insert(place, {byte, static_cast<uint32_t>(nodes_.size())});
    at = nodes_.size();
    nodes_.emplace_back();
  }
  if (nodes_[at].token != kNone) return;
  nodes_[at].token = static_cast<uint32_t>(tokens_.size());
  tokens_.push_back(token);
}

std::pair<size_t, uint32_t> AddedTokens::LongestAt(std::string_view text, size_t begin) const {
  std::pair<size_t, uint32_t> longest = {0, kNone};
  const Node* node = nodes_.data();
  for (size_t i = begin; i < text.size(); ++i) {
    node = Child(*node, static_cast<uint8_t>(text[i]));
    if (node == nullptr) break;
    if (node->token != kNone) longest = {i + 1 - begin, node->token};
  }
  return longest;
}

AddedTokens::Match AddedTokens::FindNext(std::string_view text, size_t from) const {
  if (tokens_.empty()) return {};
  for (size_t at = from; at < text.size();) {
    if (!begins_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const auto [length, index] = LongestAt(text, at);
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at, end = at + length;
    if (token.single_word && !IsWholeWord(text, begin, end)) {
      at = end;
      continue;
    }
    while (token.lstrip && begin > from) {
      const std::string_view unit = UnitBefore(text, begin);
      if (unit.size() > begin - from || !IsSpace(DecodeUtf8Unit(unit))) break;
      begin -= unit.size();
    }
    while (token.rstrip && end < text.size() && IsSpace(DecodeUtf8Unit(UnitAt(text, end)))) {
      end += Utf8UnitLength(text.substr(end));
    }
    return {begin, end - begin, token.id};
  }
  return {};
}

}  // namespace kvasir
