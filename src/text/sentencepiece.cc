#include "text/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

constexpr std::string_view kSpace = "\u2581";

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  result.reserve(text.size());
  size_t at = 0;
  for (size_t hit; (hit = text.find(from, at)) != std::string_view::npos; at = hit + from.size()) {
    result.append(text, at, hit - at).append(to);
  }
  return result.append(text, at);
}

bool HasSpaceInside(std::string_view text) {
  while (text.starts_with(kSpace)) text.remove_prefix(kSpace.size());
  return text.find(kSpace) != std::string_view::npos;
}

// The byte that a token "<0x41>" stands for.
uint8_t ByteOf(std::string_view text, size_t id) {
  const bool shaped = text.size() == 6 && text.starts_with("<0x") && text.ends_with('>');
  const std::string digits(shaped ? text.substr(3, 2) : "");
  char* end = nullptr;
  const auto byte = std::strtoul(digits.c_str(), &end, 16);
  if (!shaped || end != digits.c_str() + 2 || digits[0] == '+' || digits[0] == '-' ||
      digits[0] == ' ') {
    Fail(Code::kCorrupt, "tokenizer.ggml.tokens: byte token {} is \"{}\", not like \"<0x41>\"", id,
         text);
  }
  return static_cast<uint8_t>(byte);
}

std::vector<std::string> PiecesOf(const Vocabulary& vocabulary) {
  std::vector<std::string> pieces(vocabulary.texts.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string& text = vocabulary.texts[i];
    switch (vocabulary.types[i]) {
      case TokenType::kByte:
        pieces[i] = std::string(1, static_cast<char>(ByteOf(text, i)));
        break;
      case TokenType::kControl:
      case TokenType::kUnknown:
        pieces[i] = text;
        break;
      default:
        pieces[i] = ReplaceAll(text, kSpace, " ");
    }
  }
  return pieces;
}

}  // namespace

// Merges one stretch of escaped text after another; keeps its buffers between them.
class SentencePieceTokenizer::Merger {
 public:
  explicit Merger(const Tables& tables) : tables_(tables) {}

  void Run(std::string_view text, std::vector<TokenId>* ids) {
    text_ = text;
    symbols_.clear();
    candidates_.clear();
    for (size_t at = 0; at < text.size();) {
      const size_t length = Utf8UnitLength(text.substr(at));
      const auto index = static_cast<uint32_t>(symbols_.size());
      symbols_.push_back(
          {static_cast<uint32_t>(at), static_cast<uint32_t>(length), index - 1, index + 1});
      at += length;
    }
    if (symbols_.empty()) return;
    symbols_.front().previous = kEnd;
    symbols_.back().next = kEnd;
    MergeAll();
    for (uint32_t at = 0; at != kEnd; at = symbols_[at].next) Emit(symbols_[at], ids);
  }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  struct Symbol {
    uint32_t begin, length;  // length 0: merged into its left neighbour
    uint32_t previous, next;
  };
  struct Candidate {
    float score;
    uint32_t at, length;
    // The highest score first, then the leftmost.
    bool operator<(const Candidate& other) const {
      return score != other.score ? score < other.score : at > other.at;
    }
  };

  bool FindCandidate(uint32_t at) {
    const Symbol& left = symbols_[at];
    const uint32_t length = left.length + symbols_[left.next].length;
    if (length > tables_.longest) return false;
    const auto found = tables_.normal.find(text_.substr(left.begin, length));
    if (found == tables_.normal.end()) return false;
    candidates_.push_back({tables_.scores[static_cast<size_t>(found->second)], at, length});
    return true;
  }
  void PushCandidate(uint32_t at) {
    if (FindCandidate(at)) std::push_heap(candidates_.begin(), candidates_.end());
  }

  void MergeAll() {
    for (uint32_t at = 0; at + 1 < symbols_.size(); ++at) FindCandidate(at);
    std::make_heap(candidates_.begin(), candidates_.end());
    while (!candidates_.empty()) {
      const Candidate best = candidates_.front();
      std::pop_heap(candidates_.begin(), candidates_.end());
      candidates_.pop_back();
      Symbol& symbol = symbols_[best.at];
      // Symbols only grow, so a candidate is stale exactly if the lengths no longer add up.
      if (symbol.length == 0 || symbol.next == kEnd) continue;
      Symbol& next = symbols_[symbol.next];
      if (symbol.length + next.length != best.length) continue;
      symbol.length = best.length;
      symbol.next = next.next;
      next.length = 0;
      if (symbol.next != kEnd) {
        symbols_[symbol.next].previous = best.at;
        PushCandidate(best.at);
      }
      if (symbol.previous != kEnd) PushCandidate(symbol.previous);
    }
  }

  void Emit(const Symbol& symbol, std::vector<TokenId>* ids) const {
    const std::string_view text = text_.substr(symbol.begin, symbol.length);
    const auto found = tables_.normal.find(text);
    if (found != tables_.normal.end()) {
      ids->push_back(found->second);
      return;
    }
    const bool spelled = std::ranges::all_of(
        text, [&](char c) { return tables_.bytes[static_cast<uint8_t>(c)] != kNoToken; });
    if (spelled) {
      for (const char c : text) ids->push_back(tables_.bytes[static_cast<uint8_t>(c)]);
    } else if (tables_.unknown != kNoToken) {
      ids->push_back(tables_.unknown);
    }
  }

  const Tables& tables_;
  std::string_view text_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> candidates_;
};

SentencePieceTokenizer::Tables SentencePieceTokenizer::TablesOf(const Metadata& metadata,
                                                                const Vocabulary& vocabulary) {
  const std::vector<double> scores = metadata.Floats("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.texts.size()) {
    Fail(Code::kCorrupt,
         "tokenizer.ggml.scores: {} scores for {} tokens; there must be one for each",
         scores.size(), vocabulary.texts.size());
  }
  if (!metadata.Has("tokenizer.ggml.token_type")) {
    Fail(Code::kCorrupt,
         "tokenizer.ggml.token_type is missing; without it byte tokens are unknown");
  }
  Tables tables;
  tables.texts = vocabulary.texts;
  // Most pairs of neighbours are no token: in a sparse table their look-up ends at an empty bucket.
  tables.normal.max_load_factor(0.25);
  tables.normal.reserve(tables.texts.size());
  tables.unknown = vocabulary.unknown;
  tables.bytes.fill(kNoToken);
  tables.scores.assign(scores.begin(), scores.end());
  for (size_t i = 0; i < tables.texts.size(); ++i) {
    const std::string& text = tables.texts[i];
    const auto id = static_cast<TokenId>(i);
    if (vocabulary.types[i] == TokenType::kByte) {
      tables.bytes[ByteOf(text, i)] = id;
    } else if (vocabulary.types[i] == TokenType::kNormal && !text.empty()) {
      if (std::isnan(scores[i])) {
        Fail(Code::kCorrupt, "tokenizer.ggml.scores: the score of token {} is not a number", i);
      }
      tables.normal.emplace(text, id);
      tables.longest = std::max(tables.longest, text.size());
      tables.space_only_first = tables.space_only_first && !HasSpaceInside(text);
    }
  }
  return tables;
}

std::unique_ptr<Tokenizer> SentencePieceTokenizer::FromGguf(const Metadata& metadata) {
  Vocabulary vocabulary = Vocabulary::FromGguf(metadata, /*add_bos_default=*/true);
  Tables tables = TablesOf(metadata, vocabulary);
  std::vector<std::string> pieces = PiecesOf(vocabulary);
  const bool adds_prefix_space = metadata.Bool("tokenizer.ggml.add_space_prefix", true);
  return std::unique_ptr<Tokenizer>(new SentencePieceTokenizer(
      std::move(vocabulary), std::move(pieces), adds_prefix_space, std::move(tables)));
}

SentencePieceTokenizer::SentencePieceTokenizer(Vocabulary vocabulary,
                                               std::vector<std::string> pieces,
                                               bool adds_prefix_space, Tables tables)
    : TableTokenizer("llama", std::move(vocabulary), std::move(pieces), adds_prefix_space),
      tables_(std::move(tables)) {}

void SentencePieceTokenizer::EncodePlain(std::string_view text, bool prefix_space,
                                         std::vector<TokenId>* ids) const {
  Merger merger(tables_);
  std::string stretch(prefix_space ? kSpace : "");
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8UnitLength(text.substr(at));
    std::string_view unit = text.substr(at, length);
    if (unit == " ") unit = kSpace;
    // No token reaches over the end of a word: merging words apart gives the same ids.
    const bool word_ends = tables_.space_only_first && unit == kSpace && !stretch.ends_with(kSpace);
    if (word_ends || stretch.size() + unit.size() > kMaxUnitBytes) {
      merger.Run(stretch, ids);
      stretch.clear();
    }
    stretch += unit;
    at += length;
  }
  merger.Run(stretch, ids);
}

}  // namespace kvasir
