// What tokenizers with a table of tokens share: added tokens in text, normalization, bytes of
// tokens, decoding.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace kvasir {

// Units longer than this are encoded in parts, which bounds the memory a merge needs (about 50
// bytes for each byte of a unit) and lets 32 bits hold a position.
inline constexpr size_t kMaxUnitBytes = size_t{1} << 22;

// How SentencePiece writes a space.
inline constexpr std::string_view kVisibleSpace = "\u2581";

// What happens to text before it is cut and merged.
struct TextRules {
  // Where a space is put before text. "Part": text between added tokens.
  enum class Prefix {
    kNone,
    kEachPart,
    kEachPartWithoutOne,   // unless it begins with one
    kFirstPartWithoutOne,  // and only at the start of the text
  };
  Prefix prefix = Prefix::kNone;
  // The prefix and the escaping of spaces are normalization: they apply to added tokens that are
  // matched in normalized text.
  bool escapes_when_normalizing = false;
  bool nfc = false;
};

// Takes ids as they come and hands them on in bulk.
class IdSink {
 public:
  explicit IdSink(const Tokenizer::Sink& sink) : sink_(sink) { ids_.reserve(kMany); }
  void Push(TokenId id) {
    if (ids_.size() == kMany) Flush();
    ids_.push_back(id);
  }
  void Flush() {
    if (!ids_.empty()) sink_(ids_);
    ids_.clear();
  }

 private:
  static constexpr size_t kMany = size_t{1} << 14;
  const Tokenizer::Sink& sink_;
  std::vector<TokenId> ids_;
};

class TableTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> Encode(std::string_view text, bool special,
                              bool prefix_space) const override;
  void EncodeTo(std::string_view text, bool special, const Sink& sink) const override;
  std::string Piece(TokenId id, bool special) const override;
  std::string Decode(std::span<const TokenId> ids, bool special, bool at_start) const override;
  size_t vocab_size() const override { return types_.size(); }
  bool IsControl(TokenId id) const override;

 protected:
  // `pieces`: the bytes that each token stands for.
  TableTokenizer(std::string name, Vocabulary vocabulary, std::vector<std::string> pieces,
                 const TextRules& rules);

  const std::string& piece(TokenId id) const { return pieces_[static_cast<size_t>(id)]; }
  TokenType type(TokenId id) const { return types_[static_cast<size_t>(id)]; }

  // Appends the ids of text that holds no added tokens. `prefix`: a space goes before it.
  virtual void EncodePlain(std::string_view text, bool prefix, IdSink* ids) const = 0;

 private:
  // Tokens matched in text as it is and in normalized text.
  struct Matchers {
    AddedTokens plain, normalized;
  };
  using Prefix = TextRules::Prefix;

  void Match(std::string_view text, bool special, bool prefix_space, IdSink* ids) const;
  void EncodePart(std::string_view part, const Matchers& matchers, bool first, bool prefix_space,
                  IdSink* ids) const;
  bool WantsPrefix(std::string_view part, bool first, bool prefix_space) const;
  // What normalization makes of the part; none if it stays as it is.
  std::optional<std::string> Normalized(std::string_view part, bool escape, bool prefix) const;
  bool InRange(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < types_.size(); }

  std::vector<std::string> pieces_;
  std::vector<TokenType> types_;
  TextRules rules_;
  std::array<Matchers, 2> matchers_;  // without control tokens, with them
};

// Text with every `from` replaced.
std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to);

}  // namespace kvasir
