#include "text/table_tokenizer.h"

#include <utility>

#include "base/error.h"

namespace kvasir {

TableTokenizer::TableTokenizer(std::string name, Vocabulary vocabulary,
                               std::vector<std::string> pieces, bool adds_prefix_space)
    : pieces_(std::move(pieces)),
      types_(std::move(vocabulary.types)),
      adds_prefix_space_(adds_prefix_space) {
  CHECK(pieces_.size() == types_.size());
  bos_ = vocabulary.bos;
  eos_ = vocabulary.eos;
  ends_ = std::move(vocabulary.ends);
  add_bos_ = vocabulary.add_bos;
  name_ = std::move(name);
  chat_template_ = std::move(vocabulary.chat_template);
  for (size_t i = 0; i < types_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const bool user_defined = types_[i] == TokenType::kUserDefined;
    if (user_defined) user_defined_.Add(vocabulary.texts[i], id);
    if (user_defined || types_[i] == TokenType::kControl || types_[i] == TokenType::kUnknown) {
      all_special_.Add(vocabulary.texts[i], id);
    }
  }
}

std::vector<TokenId> TableTokenizer::Encode(std::string_view text, bool special,
                                            bool prefix_space) const {
  const SpecialTokens& tokens = special ? all_special_ : user_defined_;
  std::vector<TokenId> ids;
  size_t at = 0;
  while (at < text.size()) {
    const SpecialTokens::Match match = tokens.FindNext(text, at);
    const size_t end = match.length == 0 ? text.size() : match.begin;
    // The text after a special token begins anew, so the prefix rule holds for it too.
    if (end > at) EncodePlain(text.substr(at, end - at), prefix_space && adds_prefix_space_, &ids);
    if (match.length == 0) break;
    ids.push_back(match.id);
    prefix_space = true;
    at = end + match.length;
  }
  return ids;
}

bool TableTokenizer::IsControl(TokenId id) const {
  return InRange(id) && types_[static_cast<size_t>(id)] == TokenType::kControl;
}

std::string TableTokenizer::Piece(TokenId id, bool special) const {
  if (!InRange(id)) {
    Fail(Code::kInvalid, "token {}: the vocabulary has {} tokens", id, types_.size());
  }
  const auto index = static_cast<size_t>(id);
  const bool hidden = types_[index] == TokenType::kControl || types_[index] == TokenType::kUnknown;
  return hidden && !special ? std::string() : pieces_[index];
}

std::string TableTokenizer::Decode(std::span<const TokenId> ids, bool special,
                                   bool at_start) const {
  std::string text;
  bool drop_space = adds_prefix_space_ && at_start;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string piece = Piece(ids[i], special);
    if (i == 0 && ids[i] == bos_) {
      drop_space = adds_prefix_space_;
      text += piece;
      continue;
    }
    text += drop_space && piece.starts_with(' ') ? piece.substr(1) : piece;
    drop_space = false;
  }
  return text;
}

}  // namespace kvasir
