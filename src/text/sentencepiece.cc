#include "text/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

bool HasSpaceInside(std::string_view text) {
  while (text.starts_with(kVisibleSpace)) text.remove_prefix(kVisibleSpace.size());
  return text.find(kVisibleSpace) != std::string_view::npos;
}

std::vector<std::string> PiecesOf(const Vocabulary& vocabulary) {
  std::vector<std::string> pieces(vocabulary.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string& text = vocabulary.texts[i];
    switch (vocabulary.types[i]) {
      case TokenType::kByte:
        if (ByteOfToken(text) < 0) {
          Fail(Code::kCorrupt, "byte token {} is \"{}\", not like \"<0x41>\"", i, text);
        }
        pieces[i] = std::string(1, static_cast<char>(ByteOfToken(text)));
        break;
      case TokenType::kControl:
      case TokenType::kUnknown:
        pieces[i] = text;
        break;
      default:
        pieces[i] = ReplaceAll(text, kVisibleSpace, " ");
    }
  }
  return pieces;
}

// Equal scores share a rank; the highest has rank 0.
std::vector<uint32_t> RanksOf(const std::vector<double>& scores) {
  std::vector<float> steps(scores.begin(), scores.end());
  std::ranges::sort(steps, std::greater<>());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  std::vector<uint32_t> ranks;
  ranks.reserve(scores.size());
  for (const double score : scores) {
    const auto place = std::ranges::lower_bound(steps, static_cast<float>(score), std::greater<>());
    ranks.push_back(static_cast<uint32_t>(place - steps.begin()));
  }
  return ranks;
}

std::vector<double> ScoresOf(const Metadata& metadata, const Vocabulary& vocabulary) {
  std::vector<double> scores = metadata.Floats("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.size()) {
    Fail(Code::kCorrupt,
         "tokenizer.ggml.scores: {} scores for {} tokens; there must be one for each",
         scores.size(), vocabulary.size());
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (vocabulary.types[i] == TokenType::kNormal && std::isnan(scores[i])) {
      Fail(Code::kCorrupt, "tokenizer.ggml.scores: the score of token {} is not a number", i);
    }
    if (std::isnan(scores[i])) scores[i] = 0;  // of a token that no merge makes
  }
  return scores;
}

}  // namespace

TokenId SentencePieceTokenizer::Symbols::Find(std::string_view character) const {
  const uint32_t c = DecodeUtf8Unit(character);
  if (c < ascii.size()) return ascii[c];
  const auto found = others.find(c);
  return found == others.end() ? kNoToken : found->second;
}

void SentencePieceTokenizer::Symbols::Add(std::string_view character, TokenId symbol) {
  const uint32_t c = DecodeUtf8Unit(character);
  if (c >= ascii.size()) {
    others.emplace(c, symbol);
  } else if (ascii[c] == kNoToken) {
    ascii[c] = symbol;
  }
}

SentencePieceTokenizer::Symbols SentencePieceTokenizer::SymbolsOf(const Vocabulary& vocabulary) {
  Symbols symbols;
  symbols.n_tokens = vocabulary.size();
  symbols.ascii.fill(kNoToken);
  symbols.others.max_load_factor(0.5);
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const std::string& text = vocabulary.texts[i];
    if (vocabulary.types[i] != TokenType::kNormal || text.empty()) continue;
    if (Utf8UnitLength(text) == text.size()) symbols.Add(text, static_cast<TokenId>(i));
  }
  return symbols;
}

// Finds the merges that scores imply: every way in which a token is two symbols side by side.
class SentencePieceTokenizer::ScoredVocabulary {
 public:
  ScoredVocabulary(const Vocabulary& vocabulary, const std::vector<double>& scores,
                   Symbols* symbols)
      : ranks_(RanksOf(scores)), symbols_(symbols) {
    for (size_t i = 0; i < vocabulary.size(); ++i) {
      if (vocabulary.types[i] == TokenType::kNormal) {
        normal_.emplace(vocabulary.texts[i], static_cast<TokenId>(i));
      }
    }
  }

  MergeTable Merges() {
    for (const auto& [text, id] : normal_) AddCharacters(text, id);
    for (const auto& [text, id] : normal_) AddSplits(text, id);
    MergeTable table(splits_.size());
    for (const Split& split : splits_) {
      table.Add(split.left, split.right, {ranks_[static_cast<size_t>(split.whole)], split.whole});
    }
    return table;
  }

 private:
  struct Split {
    TokenId left, right, whole;
  };

  void AddCharacters(std::string_view text, TokenId id) {
    if (text.size() > AddedTokens::kMaxBytes) {
      Fail(Code::kUnsupported, "token {}: {} bytes; up to {} can be merged", id, text.size(),
           AddedTokens::kMaxBytes);
    }
    for (size_t at = 0; at < text.size();) {
      const std::string_view character = text.substr(at, Utf8UnitLength(text.substr(at)));
      at += character.size();
      if (symbols_->Find(character) != kNoToken) continue;
      symbols_->Add(character,
                    static_cast<TokenId>(symbols_->n_tokens + symbols_->characters.size()));
      symbols_->characters.emplace_back(character);
    }
  }
  TokenId SymbolOf(std::string_view text) const {
    if (Utf8UnitLength(text) == text.size()) return symbols_->Find(text);
    const auto found = normal_.find(text);
    return found == normal_.end() ? kNoToken : found->second;
  }
  void AddSplits(std::string_view text, TokenId id) {
    for (size_t at = 0; at < text.size();) {
      at += Utf8UnitLength(text.substr(at));
      if (at == text.size()) break;
      const TokenId left = SymbolOf(text.substr(0, at));
      const TokenId right = left == kNoToken ? kNoToken : SymbolOf(text.substr(at));
      if (right != kNoToken) splits_.push_back({left, right, id});
    }
  }

  std::vector<uint32_t> ranks_;
  Symbols* symbols_;
  std::unordered_map<std::string_view, TokenId> normal_;
  std::vector<Split> splits_;
};

std::unique_ptr<Tokenizer> SentencePieceTokenizer::FromGguf(const Metadata& metadata) {
  Vocabulary vocabulary = Vocabulary::FromGguf(metadata, /*add_bos_default=*/true);
  if (!metadata.Has("tokenizer.ggml.token_type")) {
    Fail(Code::kCorrupt,
         "tokenizer.ggml.token_type is missing; without it byte tokens are unknown");
  }
  Symbols symbols = SymbolsOf(vocabulary);
  MergeTable merges =
      ScoredVocabulary(vocabulary, ScoresOf(metadata, vocabulary), &symbols).Merges();
  std::vector<std::string> pieces = PiecesOf(vocabulary);
  Rules rules;
  if (metadata.Bool("tokenizer.ggml.add_space_prefix", true)) {
    rules.text.prefix = TextRules::Prefix::kEachPart;
  }
  return std::unique_ptr<Tokenizer>(new SentencePieceTokenizer(
      std::move(vocabulary), std::move(pieces), std::move(symbols), std::move(merges), rules));
}

std::unique_ptr<Tokenizer> SentencePieceTokenizer::Create(Vocabulary vocabulary,
                                                          const MergeList& merges,
                                                          const Rules& rules,
                                                          std::string_view where) {
  MergeTable table = MergeTableOf(TokenIndex(vocabulary), merges, where);
  Symbols symbols = SymbolsOf(vocabulary);
  std::vector<std::string> pieces = PiecesOf(vocabulary);
  return std::unique_ptr<Tokenizer>(new SentencePieceTokenizer(
      std::move(vocabulary), std::move(pieces), std::move(symbols), std::move(table), rules));
}

SentencePieceTokenizer::SentencePieceTokenizer(Vocabulary vocabulary,
                                               std::vector<std::string> pieces, Symbols symbols,
                                               MergeTable merges, const Rules& rules)
    : TableTokenizer("llama", vocabulary, std::move(pieces), rules.text),
      rules_(rules),
      unknown_(vocabulary.unknown),
      space_only_first_(true),
      symbols_(std::move(symbols)),
      merges_(std::move(merges)) {
  bytes_.fill(kNoToken);
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const std::string& text = vocabulary.texts[i];
    if (vocabulary.types[i] == TokenType::kByte) {
      bytes_[static_cast<size_t>(ByteOfToken(text))] = static_cast<TokenId>(i);
    } else if (vocabulary.types[i] == TokenType::kNormal) {
      space_only_first_ = space_only_first_ && !HasSpaceInside(text);
    }
  }
}

void SentencePieceTokenizer::EncodePlain(std::string_view text, bool prefix, IdSink* ids) const {
  const TokenId space = symbols_.Find(kVisibleSpace);
  SymbolMerger merger(merges_);
  bool unknown = false, after_space = prefix;
  const auto add = [&](std::string_view character, TokenId symbol) {
    if (symbol == kNoToken) return AddSpelled(character, &unknown, &merger);
    unknown = false;
    merger.Add(symbol);
  };
  if (prefix) add(kVisibleSpace, space);
  for (size_t at = 0; at < text.size();) {
    std::string_view character = text.substr(at, Utf8UnitLength(text.substr(at)));
    at += character.size();
    if (character == " ") character = kVisibleSpace;
    const bool is_space = character == kVisibleSpace;
    // No token reaches over the end of a word: merging words apart gives the same ids.
    const bool word_ends =
        is_space && (rules_.cuts_spaces_apart || (space_only_first_ && !after_space));
    if (word_ends || merger.size() >= kMaxUnitBytes) Flush(&merger, ids);
    add(character, is_space ? space : symbols_.Find(character));
    after_space = is_space;
  }
  Flush(&merger, ids);
}

void SentencePieceTokenizer::AddSpelled(std::string_view character, bool* unknown,
                                        SymbolMerger* merger) const {
  const bool spelled = rules_.byte_fallback && std::ranges::all_of(character, [&](char c) {
                         return bytes_[static_cast<uint8_t>(c)] != kNoToken;
                       });
  if (spelled) {
    for (const char c : character) merger->Add(bytes_[static_cast<uint8_t>(c)]);
  } else if (unknown_ == kNoToken) {
    // Beyond all symbols: keeps its neighbours apart and is dropped in the end.
    merger->Add(static_cast<TokenId>(symbols_.n_tokens + symbols_.characters.size()));
  } else if (!*unknown || !rules_.fuse_unknown) {
    merger->Add(unknown_);
  }
  *unknown = !spelled;
}

void SentencePieceTokenizer::Flush(SymbolMerger* merger, IdSink* ids) const {
  for (const TokenId symbol : merger->Merge()) {
    const auto index = static_cast<size_t>(symbol);
    if (index < symbols_.n_tokens) {
      ids->Push(symbol);
    } else if (index - symbols_.n_tokens < symbols_.characters.size()) {
      // A character of tokens that was merged into none.
      const std::string& character = symbols_.characters[index - symbols_.n_tokens];
      SymbolMerger spelled(merges_);
      bool unknown = false;
      AddSpelled(character, &unknown, &spelled);
      Flush(&spelled, ids);
    }
  }
  merger->Clear();
}

}  // namespace kvasir
