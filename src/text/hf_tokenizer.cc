#include "text/hf_tokenizer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/json.h"
#include "format/quote.h"
#include "text/byte_bpe.h"
#include "text/hf_pipeline.h"
#include "text/hf_vocabulary.h"
#include "text/sentencepiece.h"

namespace kvasir {

namespace {

using nlohmann::json;

constexpr size_t kMaxValues = 4'000'000;  // the largest vocabularies known have a million

// Ids and their texts, as they come.
class VocabularyBuilder {
 public:
  explicit VocabularyBuilder(std::string where) : where_(std::move(where)) {}

  // An object of texts and ids.
  void AddAll(const json& ids, const char* place) {
    if (!ids.is_object()) Fail(Code::kCorrupt, "{}: {}: must be an object", where_, place);
    n_entries_ += ids.size();
    ids_.reserve(n_entries_);
    texts_.reserve(n_entries_);
    for (const auto& [text, id] : ids.items()) Set(text, IdOf(id, place), place);
  }
  // A token that is matched whole.
  void AddToken(const std::string& text, const json& id, AddedToken token) {
    ++n_entries_;
    token.id = IdOf(id, "added tokens");
    Set(text, token.id, "added tokens");
    AddOrReplace(token);
  }
  // Makes a token of the vocabulary one that is matched whole, or an added one a control token.
  void MakeSpecial(std::string_view text) {
    const TokenId id = Find(text);
    if (id == kNoToken) return;
    const auto known = added_at_.find(id);
    if (known == added_at_.end()) {
      AddOrReplace({.id = id, .special = true});
    } else {
      added_[known->second].special = true;
    }
  }
  TokenId Find(std::string_view text) const {
    const auto found = ids_.find(std::string(text));
    return found == ids_.end() ? kNoToken : found->second;
  }
  bool IsAdded(TokenId id) const { return added_at_.contains(id); }
  const std::unordered_map<std::string, TokenId>& ids() const { return ids_; }

  Vocabulary Take(bool byte_fallback, TokenId unknown) {
    Vocabulary v;
    for (std::optional<std::string>& text : texts_) {
      const bool byte = text && byte_fallback && ByteOfToken(*text) >= 0;
      v.types.push_back(!text ? TokenType::kUnused : byte ? TokenType::kByte : TokenType::kNormal);
      v.texts.push_back(text ? std::move(*text) : std::string());
    }
    for (const AddedToken& token : added_) {
      v.types[static_cast<size_t>(token.id)] =
          token.special ? TokenType::kControl : TokenType::kUserDefined;
    }
    if (unknown != kNoToken) v.types[static_cast<size_t>(unknown)] = TokenType::kUnknown;
    v.unknown = unknown;
    v.added = std::move(added_);
    return v;
  }

 private:
  void AddOrReplace(const AddedToken& token) {
    const auto [place, fresh] = added_at_.try_emplace(token.id, added_.size());
    if (fresh) added_.emplace_back();
    added_[place->second] = token;
  }
  TokenId IdOf(const json& value, const char* place) const {
    // Vocabularies have few holes; a table with more would be larger than the file.
    const size_t limit = 4 * n_entries_ + 1024;
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= limit) {
      Fail(Code::kCorrupt, "{}: {}: {} is no id of one of {} tokens", where_, place,
           Quoted(value.dump(-1, ' ', true)), n_entries_);
    }
    return static_cast<TokenId>(value.get<uint64_t>());
  }
  void Set(const std::string& text, TokenId id, const char* place) {
    const auto index = static_cast<size_t>(id);
    if (index >= texts_.size()) texts_.resize(index + 1);
    if ((texts_[index] && *texts_[index] != text) ||
        ids_.try_emplace(text, id).first->second != id) {
      Fail(Code::kCorrupt, "{}: {}: token {} {} contradicts another one", where_, place, id,
           Quoted(text));
    }
    texts_[index] = text;
  }

  std::string where_;
  size_t n_entries_ = 0;
  std::vector<std::optional<std::string>> texts_;
  std::unordered_map<std::string, TokenId> ids_;
  std::vector<AddedToken> added_;
  std::unordered_map<TokenId, size_t> added_at_;
};

bool FlagOf(const json& object, const char* key, bool otherwise) {
  const auto found = object.find(key);
  return found == object.end() || !found->is_boolean() ? otherwise : found->get<bool>();
}

// {"content", "special", "normalized", "lstrip", "rstrip", "single_word"}
AddedToken FlagsOf(const json& token) {
  AddedToken flags;
  flags.special = FlagOf(token, "special", false);
  flags.normalized = FlagOf(token, "normalized", !flags.special);
  flags.lstrip = FlagOf(token, "lstrip", false);
  flags.rstrip = FlagOf(token, "rstrip", false);
  flags.single_word = FlagOf(token, "single_word", false);
  return flags;
}

// A text, or an object with one as "content"; none for anything else.
std::optional<std::string> TextOf(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object()) return std::nullopt;
  const auto content = value.find("content");
  if (content == value.end() || !content->is_string()) return std::nullopt;
  return content->get<std::string>();
}

bool LooksSpecial(std::string_view text) { return text.starts_with("<|") && text.ends_with("|>"); }

// The folder's files, parsed where they are there.
class Reader {
 public:
  Reader(const HfTokenizerFiles& files, const std::string& where)
      : files_(files),
        where_(where),
        tokenizer_config_(Parse("tokenizer_config.json")),
        special_tokens_map_(Parse("special_tokens_map.json")),
        config_(Parse("config.json")),
        generation_config_(Parse("generation_config.json")) {}

  HfVocabulary Read() {
    if (Has("tokenizer.json")) return FromTokenizerJson();
    if (Has("vocab.json") && Has("merges.txt")) return FromVocabAndMerges();
    Fail(Code::kNotFound, "{}: neither tokenizer.json nor vocab.json with merges.txt{}", where_,
         Has("tokenizer.model") ? "; tokenizer.model is not read" : "");
  }

 private:
  bool Has(std::string_view name) const { return files_.contains(name); }
  std::string Path(std::string_view name) const { return where_ + "/" + std::string(name); }
  json Parse(const char* name, size_t max_values = kMaxJsonValues) const {
    const auto found = files_.find(name);
    if (found == files_.end()) return json::object();
    json document = ParseJson(found->second, Path(name), max_values);
    if (!document.is_object()) Fail(Code::kCorrupt, "{}: must be an object", Path(name));
    return document;
  }

  HfVocabulary FromTokenizerJson();
  HfVocabulary FromVocabAndMerges();
  static MergeList MergesOf(const json& merges, const std::string& where);
  // What both forms take from the files beside them.
  void AddTokensBeside(VocabularyBuilder* builder) const;
  void Finish(TokenId leading, Vocabulary* vocabulary) const;
  std::optional<std::string> NamedToken(const char* key) const;
  std::set<std::string> NamedTokens() const;
  std::string ChatTemplate() const;
  std::string PreTokenizerByClass(const VocabularyBuilder& builder) const;

  const HfTokenizerFiles& files_;
  const std::string& where_;
  json tokenizer_config_, special_tokens_map_, config_, generation_config_;
};

// Pairs, or texts of two tokens with a space between.
MergeList Reader::MergesOf(const json& merges, const std::string& where) {
  MergeList list;
  list.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.is_string()) {
      list.push_back(SplitMerge(merge.get_ref<const std::string&>(), list.size(), where));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      list.emplace_back(merge[0].get_ref<const std::string&>(),
                        merge[1].get_ref<const std::string&>());
    } else {
      Fail(Code::kCorrupt, "{}: entry {} is no pair of tokens", where, list.size());
    }
  }
  return list;
}

// Model settings that change what merging does, and are not known here.
void RefuseOtherModels(const json& model, const std::string& where) {
  const auto type = model.find("type");
  // Old files leave the type out; then merges show what it is.
  if (type == model.end() ? !model.contains("merges") : *type != "BPE") {
    Fail(Code::kUnsupported, "{}: model {}: known is BPE", where,
         Quoted(type == model.end() ? "without a type" : type->dump(-1, ' ', true)));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix", "dropout"}) {
    const auto found = model.find(key);
    if (found == model.end() || found->is_null() || *found == "" || *found == 0) continue;
    Fail(Code::kUnsupported, "{}: model.{} {}: only none is known", where, key,
         Quoted(found->dump(-1, ' ', true)));
  }
  if (!model.contains("vocab")) Fail(Code::kCorrupt, "{}: model.vocab is missing", where);
  if (!model.contains("merges") || !model["merges"].is_array()) {
    Fail(Code::kCorrupt, "{}: model.merges: a list is needed", where);
  }
}

HfVocabulary Reader::FromTokenizerJson() {
  const std::string path = Path("tokenizer.json");
  const auto kept = std::make_shared<const json>(Parse("tokenizer.json", kMaxValues));
  const json& document = *kept;
  const auto found = document.find("model");
  if (found == document.end() || !found->is_object()) {
    Fail(Code::kCorrupt, "{}: model: an object is needed", path);
  }
  const json& model = *found;
  RefuseOtherModels(model, path);
  const bool byte_fallback = FlagOf(model, "byte_fallback", false);
  HfVocabulary read;
  read.ignores_merges = FlagOf(model, "ignore_merges", false);
  read.pipeline = ReadHfPipeline(document, path);

  VocabularyBuilder builder(path);
  builder.AddAll(model["vocab"], "model.vocab");
  const auto added = document.find("added_tokens");
  if (added != document.end() && added->is_array()) {
    for (const json& token : *added) {
      const std::optional<std::string> text = TextOf(token);
      if (!text || !token.is_object() || !token.contains("id")) {
        Fail(Code::kCorrupt, "{}: added_tokens: each needs an id and a content", path);
      }
      builder.AddToken(*text, token["id"], FlagsOf(token));
    }
  }
  AddTokensBeside(&builder);
  const auto unknown = model.find("unk_token");
  const TokenId unknown_id = unknown == model.end() || !unknown->is_string()
                                 ? kNoToken
                                 : builder.Find(unknown->get_ref<const std::string&>());
  read.vocabulary = builder.Take(byte_fallback && !read.pipeline.byte_level, unknown_id);
  Finish(LeadingToken(document, path), &read.vocabulary);
  read.merges_place = path + ": model.merges";
  read.merges = MergesOf(model["merges"], read.merges_place);
  if (!read.pipeline.byte_level && read.ignores_merges) {
    Fail(Code::kUnsupported, "{}: model.ignore_merges: known for byte-level vocabularies only",
         path);
  }
  read.pipeline.pieces.byte_fallback = byte_fallback;
  read.pipeline.pieces.fuse_unknown = FlagOf(model, "fuse_unk", false);
  read.texts = kept;
  return read;
}

// merges.txt: a comment that names the version, then a merge a line.
MergeList MergesOfLines(std::string_view text, const std::string& where) {
  MergeList merges;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const bool version = at == 0 && line.starts_with("#version");
    if (!line.empty() && !version) merges.push_back(SplitMerge(line, merges.size(), where));
    at = end + 1;
  }
  return merges;
}

HfVocabulary Reader::FromVocabAndMerges() {
  const std::string path = Path("vocab.json");
  VocabularyBuilder builder(path);
  builder.AddAll(Parse("vocab.json", kMaxValues), "tokens");
  AddTokensBeside(&builder);
  // Nothing says which tokens are control tokens but their names.
  for (const auto& [text, id] : builder.ids()) {
    if (LooksSpecial(text) && !builder.IsAdded(id)) builder.MakeSpecial(text);
  }
  HfVocabulary read;
  read.pipeline.byte_level = true;
  read.pipeline.pre = PreTokenizerByClass(builder);
  read.pipeline.nfc = read.pipeline.pre == "qwen2";
  read.vocabulary = builder.Take(/*byte_fallback=*/false, kNoToken);
  Finish(kNoToken, &read.vocabulary);
  read.merges_place = Path("merges.txt");
  read.merges = MergesOfLines(files_.find("merges.txt")->second, read.merges_place);
  return read;
}

// vocab.json does not say how text is cut; the class that reads it does, or else the model's kind.
std::string Reader::PreTokenizerByClass(const VocabularyBuilder& builder) const {
  std::string name = tokenizer_config_.value("tokenizer_class", json()).is_string()
                         ? tokenizer_config_["tokenizer_class"].get<std::string>()
                         : "";
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  const json kind = config_.value("model_type", json());
  if (name == "Qwen2Tokenizer" ||
      (name != "GPT2Tokenizer" && (kind == "qwen2" || kind == "qwen3"))) {
    return "qwen2";
  }
  if (name != "GPT2Tokenizer" && kind != "gpt2" && kind != "llama") {
    Fail(Code::kUnsupported,
         "{}: how text is cut before merges.txt applies is not said: known are tokenizer_class "
         "GPT2Tokenizer and Qwen2Tokenizer in tokenizer_config.json, model_type gpt2, llama, "
         "qwen2, qwen3 in config.json; or give tokenizer.json",
         Path("vocab.json"));
  }
  // Vocabularies trained on single digits have no token of two: SmolLM's, which share GPT-2's
  // class.
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool joins_digits = std::ranges::any_of(builder.ids(), [&](const auto& entry) {
    const std::string& text = entry.first;
    return text.size() == 2 && is_digit(text[0]) && is_digit(text[1]);
  });
  return joins_digits ? "gpt-2" : "smollm";
}

// added_tokens_decoder, added_tokens.json, and what the files name as special.
void Reader::AddTokensBeside(VocabularyBuilder* builder) const {
  const std::set<std::string> named = NamedTokens();
  const auto decoder = tokenizer_config_.find("added_tokens_decoder");
  if (decoder != tokenizer_config_.end() && decoder->is_object()) {
    for (const auto& [key, token] : decoder->items()) {
      const std::optional<std::string> text = TextOf(token);
      const bool number = !key.empty() && key.size() < 10 &&
                          std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
      if (!text || !token.is_object() || !number) {
        Fail(Code::kCorrupt, "{}: added_tokens_decoder: {} is no id with a content",
             Path("tokenizer_config.json"), Quoted(key));
      }
      const auto id = static_cast<TokenId>(std::stol(key));
      // tokenizer.json, where it knows the token, is what counts.
      if (builder->IsAdded(id) || builder->IsAdded(builder->Find(*text))) continue;
      builder->AddToken(*text, uint64_t{static_cast<uint32_t>(id)}, FlagsOf(token));
    }
  }
  const json added = Parse("added_tokens.json");
  for (const auto& [text, id] : added.items()) {
    if (builder->Find(text) != kNoToken) continue;
    const bool special = LooksSpecial(text) || named.contains(text);
    builder->AddToken(text, id, {.special = special, .normalized = !special});
  }
  for (const std::string& text : named) builder->MakeSpecial(text);
}

constexpr const char* kNamedTokens[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                        "cls_token", "sep_token", "mask_token"};

std::optional<std::string> Reader::NamedToken(const char* key) const {
  for (const json* file : {&tokenizer_config_, &special_tokens_map_}) {
    const auto found = file->find(key);
    if (found == file->end()) continue;
    if (std::optional<std::string> text = TextOf(*found)) return text;
  }
  return std::nullopt;
}

std::set<std::string> Reader::NamedTokens() const {
  std::set<std::string> texts;
  for (const char* key : kNamedTokens) {
    if (std::optional<std::string> text = NamedToken(key)) texts.insert(std::move(*text));
  }
  for (const json* file : {&tokenizer_config_, &special_tokens_map_}) {
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      const auto found = file->find(key);
      if (found == file->end()) continue;
      for (const json& value : *found) {
        if (std::optional<std::string> text = TextOf(value)) texts.insert(std::move(*text));
      }
    }
  }
  return texts;
}

std::string Reader::ChatTemplate() const {
  if (const auto file = files_.find("chat_template.jinja"); file != files_.end()) {
    return std::string(file->second);
  }
  const auto found = tokenizer_config_.find("chat_template");
  if (found == tokenizer_config_.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  // A list of {"name", "template"}; the first one named "default" serves.
  if (!found->is_array()) return "";
  for (const json& entry : *found) {
    if (!entry.is_object() || entry.value("name", json()) != "default") continue;
    const json text = entry.value("template", json());
    if (text.is_string()) return text.get<std::string>();
  }
  return "";
}

// `leading`: the token that the post-processor puts before a text.
void Reader::Finish(TokenId leading, Vocabulary* vocabulary) const {
  const TokenIndex index(*vocabulary);
  const auto in_range = [&](TokenId id) {
    return id >= 0 && static_cast<size_t>(id) < vocabulary->size();
  };
  const auto find = [&](const char* key) {
    const std::optional<std::string> text = NamedToken(key);
    return text ? index.Find(*text) : kNoToken;
  };
  // An id or a list of them; those that the vocabulary lacks belong to another one.
  const auto ids = [&](const json& file, const char* key) {
    std::vector<TokenId> list;
    const json value = file.value(key, json());
    for (const json& id : value.is_array() ? value : json::array({value})) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary->size()) continue;
      list.push_back(static_cast<TokenId>(id.get<uint64_t>()));
    }
    return list;
  };
  if (leading != kNoToken && !in_range(leading)) {
    Fail(Code::kCorrupt, "{}: post_processor: token {} is not one of the vocabulary's {}",
         Path("tokenizer.json"), leading, vocabulary->size());
  }
  vocabulary->bos = leading != kNoToken ? leading : find("bos_token");
  vocabulary->eos = find("eos_token");
  for (const json* file : {&generation_config_, &config_}) {
    for (const TokenId id : ids(*file, "eos_token_id")) {
      if (vocabulary->eos == kNoToken) vocabulary->eos = id;
      vocabulary->ends.push_back(id);
    }
  }
  const bool configured = !Has("tokenizer_config.json") && !Has("special_tokens_map.json");
  if (vocabulary->bos == kNoToken && configured) {
    const std::vector<TokenId> bos = ids(config_, "bos_token_id");
    if (!bos.empty()) vocabulary->bos = bos.front();
  }
  vocabulary->add_bos = vocabulary->bos != kNoToken &&
                        FlagOf(tokenizer_config_, "add_bos_token", leading != kNoToken);
  vocabulary->FinishEnds();
  vocabulary->chat_template = ChatTemplate();
}

}  // namespace

HfVocabulary ReadHfVocabulary(const HfTokenizerFiles& files, const std::string& where) {
  return Reader(files, where).Read();
}

std::unique_ptr<Tokenizer> ReadHfTokenizer(const HfTokenizerFiles& files,
                                           const std::string& where) {
  HfVocabulary read = ReadHfVocabulary(files, where);
  if (read.pipeline.byte_level) {
    return ByteBpeTokenizer::Create(std::move(read.vocabulary), read.merges, read.byte_rules(),
                                    read.merges_place);
  }
  return SentencePieceTokenizer::Create(std::move(read.vocabulary), read.merges,
                                        read.pipeline.pieces, read.merges_place);
}

}  // namespace kvasir
