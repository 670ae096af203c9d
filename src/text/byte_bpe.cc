#include "text/byte_bpe.h"

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "format/quote.h"
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

std::vector<std::string> PiecesOf(const Vocabulary& vocabulary, const ByteAlphabet& alphabet) {
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

}  // namespace

std::pair<std::string_view, std::string_view> SplitMerge(std::string_view text, size_t rank,
                                                         std::string_view where) {
  const size_t space = text.find(' ', 1);
  if (space == std::string_view::npos) {
    Fail(Code::kCorrupt, "{}: entry {} {} is not two tokens and a space", where, rank,
         Quoted(text));
  }
  return {text.substr(0, space), text.substr(space + 1)};
}

MergeTable MergeTableOf(const TokenIndex& index, const MergeList& merges, std::string_view where) {
  MergeTable table(merges.size());
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    joined.assign(left).append(right);
    const TokenId left_id = index.Find(left), right_id = index.Find(right);
    const TokenId merged = index.Find(joined);
    if (left_id == kNoToken || right_id == kNoToken || merged == kNoToken) {
      Fail(Code::kCorrupt, "{}: entry {}, {} and {}, needs a token that is missing", where, rank,
           Quoted(left), Quoted(right));
    }
    table.Add(left_id, right_id, {static_cast<uint32_t>(rank), merged});
  }
  return table;
}

std::unique_ptr<Tokenizer> ByteBpeTokenizer::FromGguf(const Metadata& metadata) {
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  Rules rules{.pre = metadata.String("tokenizer.ggml.pre")};
  // Llama 3's vocabulary has tokens that its merges do not reach, and its texts begin with BOS.
  rules.whole_pieces = PreTokenizer(rules.pre).rule() == "llama3";
  const std::vector<std::string>* texts = metadata.Strings(kMerges);
  if (texts == nullptr) Fail(Code::kCorrupt, "{}: the list of merges is missing", kMerges);
  MergeList merges;
  merges.reserve(texts->size());
  for (size_t i = 0; i < texts->size(); ++i) {
    merges.push_back(SplitMerge((*texts)[i], i, kMerges));
  }
  return Create(Vocabulary::FromGguf(metadata, /*add_bos_default=*/rules.whole_pieces), merges,
                rules, kMerges);
}

std::unique_ptr<Tokenizer> ByteBpeTokenizer::Create(Vocabulary vocabulary, const MergeList& merges,
                                                    const Rules& rules, std::string_view where) {
  std::array<TokenId, 256> bytes;
  const TokenIndex index(vocabulary);
  const ByteAlphabet alphabet;
  for (size_t byte = 0; byte < 256; ++byte) {
    bytes[byte] = index.Find(alphabet.Spell(static_cast<uint8_t>(byte)));
  }
  MergeTable table = MergeTableOf(index, merges, where);
  std::vector<std::string> pieces = PiecesOf(vocabulary, alphabet);
  return std::unique_ptr<Tokenizer>(new ByteBpeTokenizer(std::move(vocabulary), std::move(pieces),
                                                         bytes, std::move(table), rules));
}

ByteBpeTokenizer::ByteBpeTokenizer(Vocabulary vocabulary, std::vector<std::string> pieces,
                                   const std::array<TokenId, 256>& bytes, MergeTable merges,
                                   const Rules& rules)
    : TableTokenizer("gpt2/" + rules.pre, std::move(vocabulary), std::move(pieces),
                     {.nfc = rules.nfc}),
      bytes_(bytes),
      merges_(std::move(merges)),
      pre_tokenizer_(rules.pre) {
  if (!rules.whole_pieces) return;
  whole_.reserve(vocab_size());
  for (size_t i = 0; i < vocab_size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (type(id) == TokenType::kNormal) whole_.emplace(piece(id), id);
  }
}

void ByteBpeTokenizer::EncodePlain(std::string_view text, bool prefix, IdSink* ids) const {
  SymbolMerger merger(merges_);
  pre_tokenizer_.Split(text, [&](std::string_view piece) {
    for (; piece.size() > kMaxUnitBytes; piece.remove_prefix(kMaxUnitBytes)) {
      EncodePiece(piece.substr(0, kMaxUnitBytes), &merger, ids);
    }
    EncodePiece(piece, &merger, ids);
  });
}

void ByteBpeTokenizer::EncodePiece(std::string_view piece, SymbolMerger* merger,
                                   IdSink* ids) const {
  if (const auto found = whole_.find(piece); found != whole_.end()) {
    ids->Push(found->second);
    return;
  }
  merger->Clear();
  for (const char c : piece) {
    const TokenId id = bytes_[static_cast<uint8_t>(c)];
    if (id != kNoToken) merger->Add(id);
  }
  for (const TokenId id : merger->Merge()) ids->Push(id);
}

}  // namespace kvasir
