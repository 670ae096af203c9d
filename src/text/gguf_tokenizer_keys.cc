#include "text/gguf_tokenizer_keys.h"

#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/quote.h"
#include "text/hf_tokenizer_folder.h"
#include "text/hf_vocabulary.h"

namespace kvasir {

namespace {

class KeyWriter {
 public:
  explicit KeyWriter(Metadata* keys) : keys_(*keys) {}

  void Text(const char* name, std::string text) {
    keys_.Set(name, std::move(text), GgufType::kString);
  }
  void Texts(const char* name, std::vector<std::string> texts) {
    keys_.Set(name, MetadataArray{std::move(texts)}, GgufType::kString);
  }
  void Ints(const char* name, std::vector<int64_t> numbers) {
    keys_.Set(name, MetadataArray{std::move(numbers)}, GgufType::kI32);
  }
  void Flag(const char* name, bool value) { keys_.Set(name, value, GgufType::kBool); }
  void Id(const char* name, TokenId id) {
    if (id != kNoToken) keys_.Set(name, static_cast<uint64_t>(id), GgufType::kU32);
  }

 private:
  Metadata& keys_;
};

// GGUF has flags for a vocabulary's rules, none for single tokens.
void CheckAddedTokens(const Vocabulary& vocabulary, const std::string& where) {
  for (const AddedToken& token : vocabulary.added) {
    if (!token.lstrip && !token.rstrip && !token.single_word) continue;
    Fail(Code::kUnsupported,
         "{}: the token {} is matched with lstrip, rstrip or single_word, which GGUF cannot say",
         where, Quoted(vocabulary.texts[static_cast<size_t>(token.id)]));
  }
}

void CheckRules(const HfVocabulary& read, uint32_t vocab_size, const std::string& where) {
  if (!read.pipeline.byte_level) {
    Fail(Code::kUnsupported,
         "{}: the tokenizer is SentencePiece's kind; byte-level ones can be written to GGUF",
         where);
  }
  // Readers take it from the name of the rule.
  if (read.ignores_merges != (read.pipeline.pre == "llama3")) {
    Fail(Code::kUnsupported, "{}: ignore_merges is {}, which GGUF cannot say with the rule {}",
         where, read.ignores_merges, read.pipeline.pre);
  }
  if (read.vocabulary.size() > vocab_size) {
    Fail(Code::kCorrupt, "{}: the tokenizer has {} tokens, the model {}", where,
         read.vocabulary.size(), vocab_size);
  }
  CheckAddedTokens(read.vocabulary, where);
}

void PutTokens(const Vocabulary& vocabulary, uint32_t vocab_size, KeyWriter* keys) {
  std::vector<std::string> texts = vocabulary.texts;
  std::vector<int64_t> types;
  for (const TokenType type : vocabulary.types) types.push_back(static_cast<int64_t>(type));
  types.resize(vocab_size, static_cast<int64_t>(TokenType::kUnused));
  texts.resize(vocab_size);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) texts[i] = fmt::format("[PAD{}]", i);
  }
  keys->Texts("tokenizer.ggml.tokens", std::move(texts));
  keys->Ints("tokenizer.ggml.token_type", std::move(types));
}

// EOS has a key, and two further ends; more of them are known by their names.
void PutSpecial(const Vocabulary& vocabulary, KeyWriter* keys) {
  keys->Id("tokenizer.ggml.bos_token_id", vocabulary.bos);
  keys->Id("tokenizer.ggml.eos_token_id", vocabulary.eos);
  keys->Id("tokenizer.ggml.unknown_token_id", vocabulary.unknown);
  constexpr const char* kEnds[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
  size_t n_ends = 0;
  for (const TokenId id : vocabulary.ends) {
    if (id != vocabulary.eos && n_ends < std::size(kEnds)) keys->Id(kEnds[n_ends++], id);
  }
  keys->Flag("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
  if (!vocabulary.chat_template.empty()) {
    keys->Text("tokenizer.chat_template", vocabulary.chat_template);
  }
}

}  // namespace

bool AddTokenizerKeys(const std::string& folder, uint32_t vocab_size, Metadata* keys) {
  KeyWriter writer(keys);
  const HfTokenizerFolder files(folder);
  if (!files.HasVocabulary()) {
    writer.Text("tokenizer.ggml.model", "none");
    return false;
  }
  const HfVocabulary read = ReadHfVocabulary(files.files(), files.path());
  CheckRules(read, vocab_size, files.path());
  writer.Text("tokenizer.ggml.model", "gpt2");
  writer.Text("tokenizer.ggml.pre",
              read.pipeline.pre == "llama3" ? "llama-bpe" : read.pipeline.pre);
  PutTokens(read.vocabulary, vocab_size, &writer);
  std::vector<std::string> merges;
  merges.reserve(read.merges.size());
  for (const auto& [left, right] : read.merges) merges.push_back(fmt::format("{} {}", left, right));
  writer.Texts("tokenizer.ggml.merges", std::move(merges));
  PutSpecial(read.vocabulary, &writer);
  return true;
}

}  // namespace kvasir
