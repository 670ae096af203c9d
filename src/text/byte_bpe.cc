#include "text/byte_bpe.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

// The alphabet in which byte-level vocabularies are written: a byte that is a visible Latin-1
// character stands for itself, the 68 others follow from U+0100 in order.
bool StandsForItself(uint32_t c) {
  return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

class ByteAlphabet {
 public:
  ByteAlphabet() {
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      code_points_[byte] = StandsForItself(byte) ? byte : next++;
      bytes_[code_points_[byte]] = static_cast<char>(byte);
    }
  }
  std::string Spell(uint8_t byte) const {
    std::string text;
    AppendUtf8(code_points_[byte], &text);
    return text;
  }
  // The bytes that `text` spells; none if it uses other characters.
  std::optional<std::string> Bytes(std::string_view text) const {
    std::string bytes;
    for (size_t at = 0; at < text.size();) {
      const size_t length = Utf8UnitLength(text.substr(at));
      const auto found = bytes_.find(DecodeUtf8Unit(text.substr(at, length)));
      if (found == bytes_.end()) return std::nullopt;
      bytes.push_back(found->second);
      at += length;
    }
    return bytes;
  }

 private:
  std::array<uint32_t, 256> code_points_;
  std::unordered_map<uint32_t, char> bytes_;
};

std::vector<std::string> PiecesOf(const Vocabulary& vocabulary) {
  const ByteAlphabet alphabet;
  std::vector<std::string> pieces(vocabulary.texts.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    // Special tokens are spelled as they are, and so is what no text can reach.
    const bool literal = type == TokenType::kControl || type == TokenType::kUserDefined ||
                         type == TokenType::kUnknown;
    pieces[i] = literal ? vocabulary.texts[i]
                        : alphabet.Bytes(vocabulary.texts[i]).value_or(vocabulary.texts[i]);
  }
  return pieces;
}

// Merges one piece after another; keeps its buffers between them.
class PieceMerger {
 public:
  PieceMerger(const std::array<TokenId, 256>& bytes, const MergeTable& merges)
      : bytes_(bytes), merges_(merges) {}

  void Run(std::string_view piece, std::vector<TokenId>* ids) {
    symbols_.clear();
    candidates_.clear();
    for (const char c : piece) {
      const TokenId id = bytes_[static_cast<uint8_t>(c)];
      if (id == kNoToken) continue;
      const auto at = static_cast<uint32_t>(symbols_.size());
      symbols_.push_back({id, at - 1, at + 1});
    }
    if (symbols_.empty()) return;
    symbols_.front().previous = kEnd;
    symbols_.back().next = kEnd;
    if (symbols_.size() > 1) MergeAll();
    for (uint32_t at = 0; at != kEnd; at = symbols_[at].next) ids->push_back(symbols_[at].id);
  }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  // The survivors are a linked list: a merge keeps the left symbol's place.
  struct Symbol {
    TokenId id;
    uint32_t previous, next;
  };
  struct Candidate {
    uint32_t rank, at;
    TokenId left, right, merged;
    // The lowest rank first, then the leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };

  bool FindCandidate(uint32_t at) {
    const TokenId left = symbols_[at].id, right = symbols_[symbols_[at].next].id;
    const MergeTable::Merge merge = merges_.Find(left, right);
    if (!merge.exists()) return false;
    candidates_.push_back({merge.rank, at, left, right, merge.merged});
    return true;
  }

  void MergeAll() {
    for (uint32_t at = 0; at + 1 < symbols_.size(); ++at) FindCandidate(at);
    std::make_heap(candidates_.begin(), candidates_.end());
    while (!candidates_.empty()) {
      const Candidate best = candidates_.front();
      std::pop_heap(candidates_.begin(), candidates_.end());
      candidates_.pop_back();
      Symbol& symbol = symbols_[best.at];
      // A candidate is stale once either of its symbols was merged away or grew. Comparing ids is
      // enough: an equal pair at an equal place has the same merge.
      if (symbol.id != best.left || symbol.next == kEnd) continue;
      Symbol& next = symbols_[symbol.next];
      if (next.id != best.right) continue;
      symbol.id = best.merged;
      symbol.next = next.next;
      next.id = kNoToken;
      if (symbol.next != kEnd) {
        symbols_[symbol.next].previous = best.at;
        PushCandidate(best.at);
      }
      if (symbol.previous != kEnd) PushCandidate(symbol.previous);
    }
  }
  void PushCandidate(uint32_t at) {
    if (FindCandidate(at)) std::push_heap(candidates_.begin(), candidates_.end());
  }

  const std::array<TokenId, 256>& bytes_;
  const MergeTable& merges_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> candidates_;
};

}  // namespace

MergeTable::MergeTable(size_t n_merges) : slots_(std::bit_ceil(2 * n_merges + 2)) {
  shift_ = 64 - std::countr_zero(slots_.size());
}

size_t MergeTable::SlotOf(TokenId left, TokenId right) const {
  // Fibonacci hashing: the product's high bits depend on all bits of both ids.
  const uint64_t pair = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15u >> shift_;
}

void MergeTable::Add(TokenId left, TokenId right, Merge merge) {
  size_t at = SlotOf(left, right);
  while (slots_[at].left != kNoToken) {
    if (slots_[at].left == left && slots_[at].right == right) return;
    at = (at + 1) & (slots_.size() - 1);
  }
  slots_[at] = {left, right, merge};
}

MergeTable::Merge MergeTable::Find(TokenId left, TokenId right) const {
  size_t at = SlotOf(left, right);
  while (slots_[at].left != kNoToken) {
    if (slots_[at].left == left && slots_[at].right == right) return slots_[at].merge;
    at = (at + 1) & (slots_.size() - 1);
  }
  return {};
}

ByteBpeTokenizer::Tables ByteBpeTokenizer::TablesOf(const Metadata& metadata,
                                                    const Vocabulary& vocabulary) {
  std::unordered_map<std::string_view, TokenId> ids;
  ids.reserve(vocabulary.texts.size());
  for (size_t i = 0; i < vocabulary.texts.size(); ++i) {
    ids.emplace(vocabulary.texts[i], static_cast<TokenId>(i));
  }
  const auto id_of = [&ids](std::string_view text) {
    const auto found = ids.find(text);
    return found == ids.end() ? kNoToken : found->second;
  };

  const std::vector<std::string>* merges = metadata.Strings("tokenizer.ggml.merges");
  if (merges == nullptr) {
    Fail(Code::kCorrupt, "tokenizer.ggml.merges: the list of merges is missing");
  }
  Tables tables{.bytes = {}, .merges = MergeTable(merges->size())};
  const ByteAlphabet alphabet;
  for (size_t byte = 0; byte < 256; ++byte) {
    tables.bytes[byte] = id_of(alphabet.Spell(static_cast<uint8_t>(byte)));
  }
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string& text = (*merges)[rank];
    const size_t space = text.find(' ', 1);
    if (space == std::string::npos) {
      Fail(Code::kCorrupt, "tokenizer.ggml.merges: entry {} \"{}\" is not two tokens and a space",
           rank, text);
    }
    const std::string left = text.substr(0, space), right = text.substr(space + 1);
    const TokenId left_id = id_of(left), right_id = id_of(right), merged = id_of(left + right);
    if (left_id == kNoToken || right_id == kNoToken || merged == kNoToken) {
      Fail(Code::kCorrupt, "tokenizer.ggml.merges: entry {} \"{}\" needs a token that is missing",
           rank, text);
    }
    tables.merges.Add(left_id, right_id, {static_cast<uint32_t>(rank), merged});
  }
  return tables;
}

std::unique_ptr<Tokenizer> ByteBpeTokenizer::FromGguf(const Metadata& metadata) {
  const std::string& pre = metadata.String("tokenizer.ggml.pre");
  Vocabulary vocabulary = Vocabulary::FromGguf(metadata, /*add_bos_default=*/false);
  Tables tables = TablesOf(metadata, vocabulary);
  std::vector<std::string> pieces = PiecesOf(vocabulary);
  return std::unique_ptr<Tokenizer>(
      new ByteBpeTokenizer(pre, std::move(vocabulary), std::move(pieces), std::move(tables)));
}

ByteBpeTokenizer::ByteBpeTokenizer(std::string_view pre, Vocabulary vocabulary,
                                   std::vector<std::string> pieces, Tables tables)
    : TableTokenizer("gpt2/" + std::string(pre), std::move(vocabulary), std::move(pieces),
                     /*adds_prefix_space=*/false),
      tables_(std::move(tables)),
      pre_tokenizer_(pre) {}

void ByteBpeTokenizer::EncodePlain(std::string_view text, bool prefix_space,
                                   std::vector<TokenId>* ids) const {
  PieceMerger merger(tables_.bytes, tables_.merges);
  pre_tokenizer_.Split(text, [&](std::string_view piece) {
    for (; piece.size() > kMaxUnitBytes; piece.remove_prefix(kMaxUnitBytes)) {
      merger.Run(piece.substr(0, kMaxUnitBytes), ids);
    }
    merger.Run(piece, ids);
  });
}

}  // namespace kvasir
