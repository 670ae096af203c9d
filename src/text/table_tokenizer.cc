#include "text/table_tokenizer.h"

#include <utility>

#include "base/error.h"
#include "text/nfc.h"

namespace kvasir {

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  result.reserve(text.size());
  size_t at = 0;
  for (size_t hit; (hit = text.find(from, at)) != std::string_view::npos; at = hit + from.size()) {
    result.append(text, at, hit - at).append(to);
  }
  return result.append(text, at);
}

TableTokenizer::TableTokenizer(std::string name, Vocabulary vocabulary,
                               std::vector<std::string> pieces, const TextRules& rules)
    : pieces_(std::move(pieces)), types_(std::move(vocabulary.types)), rules_(rules) {
  CHECK(pieces_.size() == types_.size());
  bos_ = vocabulary.bos;
  eos_ = vocabulary.eos;
  ends_ = std::move(vocabulary.ends);
  add_bos_ = vocabulary.add_bos;
  name_ = std::move(name);
  chat_template_ = std::move(vocabulary.chat_template);
  for (const AddedToken& token : vocabulary.added) {
    std::string text = vocabulary.texts[static_cast<size_t>(token.id)];
    if (token.normalized) {
      text = Normalized(text, rules_.escapes_when_normalizing, /*prefix=*/true).value_or(text);
    }
    for (const bool special : {false, true}) {
      if (token.special && !special) continue;
      Matchers& matchers = matchers_[special];
      (token.normalized ? matchers.normalized : matchers.plain).Add(text, token);
    }
  }
}

std::optional<std::string> TableTokenizer::Normalized(std::string_view part, bool escape,
                                                      bool prefix) const {
  std::optional<std::string> text;
  if (rules_.nfc) text = ToNfc(part);
  if (escape) {
    const bool prepend = prefix && rules_.prefix == Prefix::kEachPart && !part.empty();
    text = (prepend ? std::string(kVisibleSpace) : std::string()) +
           ReplaceAll(text ? *text : part, " ", kVisibleSpace);
  }
  return text;
}

bool TableTokenizer::WantsPrefix(std::string_view part, bool first, bool prefix_space) const {
  switch (rules_.prefix) {
    case Prefix::kNone:
      return false;
    case Prefix::kEachPart:
      return prefix_space;
    case Prefix::kFirstPartWithoutOne:
      if (!first) return false;
      [[fallthrough]];
    case Prefix::kEachPartWithoutOne:
      return prefix_space && !part.starts_with(' ') && !part.starts_with(kVisibleSpace);
  }
  return false;
}

void TableTokenizer::EncodePart(std::string_view part, const Matchers& matchers, bool first,
                                bool prefix_space, IdSink* ids) const {
  // Spaces are escaped while merging, without a copy, unless a token may have to be found there.
  const bool escape = rules_.escapes_when_normalizing && !matchers.normalized.empty();
  const std::optional<std::string> copy = Normalized(part, escape, prefix_space);
  if (copy) part = *copy;
  for (size_t at = 0; at < part.size();) {
    const AddedTokens::Match match = matchers.normalized.FindNext(part, at);
    const size_t end = match.length == 0 ? part.size() : match.begin;
    if (end > at) {
      const std::string_view rest = part.substr(at, end - at);
      EncodePlain(rest, !escape && WantsPrefix(rest, first && at == 0, prefix_space), ids);
    }
    if (match.length == 0) break;
    ids->Push(match.id);
    prefix_space = true;
    at = end + match.length;
  }
}

void TableTokenizer::Match(std::string_view text, bool special, bool prefix_space,
                           IdSink* ids) const {
  const Matchers& matchers = matchers_[special];
  for (size_t at = 0; at < text.size();) {
    const AddedTokens::Match match = matchers.plain.FindNext(text, at);
    const size_t end = match.length == 0 ? text.size() : match.begin;
    if (end > at) EncodePart(text.substr(at, end - at), matchers, at == 0, prefix_space, ids);
    if (match.length == 0) break;
    ids->Push(match.id);
    // The text after an added token begins anew, so the prefix rule holds for it too.
    prefix_space = true;
    at = end + match.length;
  }
  ids->Flush();
}

std::vector<TokenId> TableTokenizer::Encode(std::string_view text, bool special,
                                            bool prefix_space) const {
  std::vector<TokenId> all;
  const Sink append = [&all](std::span<const TokenId> ids) {
    all.insert(all.end(), ids.begin(), ids.end());
  };
  IdSink ids(append);
  Match(text, special, prefix_space, &ids);
  return all;
}

void TableTokenizer::EncodeTo(std::string_view text, bool special, const Sink& sink) const {
  IdSink ids(sink);
  Match(text, special, /*prefix_space=*/true, &ids);
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
  const bool drops = rules_.prefix != Prefix::kNone;
  bool drop_space = drops && at_start;
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string piece = Piece(ids[i], special);
    if (i == 0 && ids[i] == bos_) {
      drop_space = drops;
      text += piece;
      continue;
    }
    text += drop_space && piece.starts_with(' ') ? piece.substr(1) : piece;
    drop_space = false;
  }
  return text;
}

}  // namespace kvasir
