#include "text/hf_pipeline.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "format/quote.h"
#include "text/pretokenizer.h"

namespace kvasir {

namespace {

using nlohmann::json;

constexpr char kNothing[] = "";

// A part of a tokenizer.json with the place for messages.
struct Step {
  const json* value;
  const std::string* where;
  const char* part;  // "normalizer"

  std::string Type() const { return Text("type", kNothing); }
  std::string Text(const char* key, const char* otherwise) const {
    const auto found = value->find(key);
    if (found == value->end()) return otherwise;
    if (!found->is_string()) Wrong(key, "a text");
    return found->get<std::string>();
  }
  bool Flag(const char* key, bool otherwise) const {
    const auto found = value->find(key);
    if (found == value->end() || found->is_null()) return otherwise;
    if (!found->is_boolean()) Wrong(key, "true or false");
    return found->get<bool>();
  }
  // A pattern: {"String": text} or {"Regex": text}.
  std::string Pattern(const char* kind) const {
    const auto found = value->find("pattern");
    if (found == value->end() || !found->is_object() || found->size() != 1) return kNothing;
    const auto text = found->find(kind);
    return text == found->end() || !text->is_string() ? kNothing : text->get<std::string>();
  }
  [[noreturn]] void Wrong(const char* key, const char* wanted) const {
    Fail(Code::kCorrupt, "{}: {}.{}: must be {}", *where, part, key, wanted);
  }
  [[noreturn]] void Refuse(std::string_view known) const {
    Fail(Code::kUnsupported, "{}: {} {}: not one that is known here; known are {}", *where, part,
         Quoted(value->dump(-1, ' ', /*ensure_ascii=*/true)), known);
  }
};

void Flatten(const Step& step, const char* list, std::vector<Step>* steps) {
  if (step.value->is_null()) return;
  if (!step.value->is_object()) {
    Fail(Code::kCorrupt, "{}: {}: an object with a type is needed", *step.where, step.part);
  }
  if (step.Type() != "Sequence") {
    steps->push_back(step);
    return;
  }
  const auto found = step.value->find(list);
  if (found == step.value->end() || !found->is_array()) step.Wrong(list, "a list");
  for (const json& part : *found) Flatten({&part, step.where, step.part}, list, steps);
}

std::vector<Step> Steps(const json& document, const std::string& where, const char* part,
                        const char* list) {
  std::vector<Step> steps;
  const auto found = document.find(part);
  if (found != document.end()) Flatten({&*found, &where, part}, list, &steps);
  return steps;
}

struct KnownPattern {
  std::string_view regex, rule;
};
// As real files spell them.
constexpr KnownPattern kPatterns[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "gpt-2"},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "gpt-2"},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "qwen2"},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "llama3"},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
     R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
     R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     "tekken"},
};

std::string RuleOfPattern(const Step& step) {
  const std::string regex = step.Pattern("Regex");
  for (const KnownPattern& known : kPatterns) {
    if (known.regex == regex) return std::string(known.rule);
  }
  step.Refuse("the patterns of " + PreTokenizer::KnownRules());
}

bool IsSplit(const Step& step) {
  return step.Type() == "Split" && step.Text("behavior", kNothing) == "Isolated" &&
         !step.Flag("invert", false);
}

// The rule that the steps before ByteLevel and ByteLevel itself make together.
std::string RuleOf(const std::vector<Step>& steps) {
  const Step& last = steps.back();
  constexpr char kKnown[] =
      "ByteLevel alone or after Digits, Split by a known pattern and ByteLevel, Metaspace";
  if (last.Flag("add_prefix_space", true)) last.Refuse("ByteLevel without a prefix space");
  const bool cuts = last.Flag("use_regex", true);
  if (steps.size() == 1 && cuts) return "gpt-2";
  if (steps.size() != 2) steps.front().Refuse(kKnown);
  const Step& first = steps.front();
  if (first.Type() == "Digits" && first.Flag("individual_digits", false) && cuts) return "smollm";
  if (!IsSplit(first) || cuts) first.Refuse(kKnown);
  return RuleOfPattern(first);
}

constexpr char kNormalizers[] =
    "NFC for byte-level vocabularies, Prepend and Replace of a space by U+2581 for others";

void ReadByteLevel(const std::vector<Step>& normalizers, const std::vector<Step>& steps,
                   HfPipeline* pipeline) {
  pipeline->byte_level = true;
  pipeline->pre = RuleOf(steps);
  for (const Step& step : normalizers) {
    if (step.Type() != "NFC") step.Refuse(kNormalizers);
    pipeline->nfc = true;
  }
}

bool EscapesSpaces(const Step& step) {
  return step.Type() == "Replace" && step.Pattern("String") == " " &&
         step.Text("content", kNothing) == kVisibleSpace;
}

// Spaces are escaped either here or by Metaspace.
void ReadNormalizers(const std::vector<Step>& normalizers, TextRules* rules) {
  for (const Step& step : normalizers) {
    const bool prepends =
        step.Type() == "Prepend" && step.Text("prepend", kNothing) == kVisibleSpace;
    if (prepends && rules->prefix == TextRules::Prefix::kNone && !rules->escapes_when_normalizing) {
      rules->prefix = TextRules::Prefix::kEachPart;
    } else if (EscapesSpaces(step)) {
      rules->escapes_when_normalizing = true;
    } else {
      step.Refuse(kNormalizers);
    }
  }
}

void ReadMetaspace(const Step& step, SentencePieceTokenizer::Rules* rules) {
  if (step.Text("replacement", kVisibleSpace.data()) != kVisibleSpace) {
    step.Refuse("Metaspace with U+2581");
  }
  const bool prefix = step.Flag("add_prefix_space", true);
  const std::string scheme = step.Text("prepend_scheme", prefix ? "always" : "never");
  if (scheme == "always") {
    rules->text.prefix = TextRules::Prefix::kEachPartWithoutOne;
  } else if (scheme == "first") {
    rules->text.prefix = TextRules::Prefix::kFirstPartWithoutOne;
  } else if (scheme != "never") {
    step.Refuse("prepend_scheme always, first, never");
  }
  rules->cuts_spaces_apart = step.Flag("split", true);
}

}  // namespace

HfPipeline ReadHfPipeline(const json& document, const std::string& where) {
  const std::vector<Step> normalizers = Steps(document, where, "normalizer", "normalizers");
  const std::vector<Step> steps = Steps(document, where, "pre_tokenizer", "pretokenizers");
  HfPipeline pipeline;
  if (!steps.empty() && steps.back().Type() == "ByteLevel") {
    ReadByteLevel(normalizers, steps, &pipeline);
    return pipeline;
  }
  ReadNormalizers(normalizers, &pipeline.pieces.text);
  const bool escaped = pipeline.pieces.text.escapes_when_normalizing;
  if (steps.size() == 1 && steps[0].Type() == "Metaspace" && normalizers.empty()) {
    ReadMetaspace(steps[0], &pipeline.pieces);
  } else if (!steps.empty()) {
    steps.front().Refuse("ByteLevel, Digits, Split, Metaspace, none after Replace");
  } else if (!escaped) {
    Fail(Code::kUnsupported,
         "{}: pre_tokenizer: none, and no normalizer that replaces spaces: such texts are not "
         "known here",
         where);
  }
  return pipeline;
}

TokenId LeadingToken(const json& document, const std::string& where) {
  for (const Step& step : Steps(document, where, "post_processor", "processors")) {
    if (step.Type() == "ByteLevel") continue;
    if (step.Type() != "TemplateProcessing") step.Refuse("ByteLevel, TemplateProcessing");
    const auto single = step.value->find("single");
    if (single == step.value->end() || !single->is_array()) step.Wrong("single", "a list");
    if (single->empty() || !(*single)[0].is_object()) continue;
    const auto token = (*single)[0].find("SpecialToken");
    if (token == (*single)[0].end()) continue;
    // {"id": name, …}, and under special_tokens: {name: {"ids": [id]}}.
    const auto specials = step.value->find("special_tokens");
    if (!token->is_object() || !token->contains("id") || !(*token)["id"].is_string() ||
        specials == step.value->end() || !specials->is_object()) {
      step.Wrong("single", "a list of special tokens and sequences");
    }
    const auto named = specials->find((*token)["id"].get_ref<const std::string&>());
    if (named == specials->end() || !named->is_object() || !named->contains("ids") ||
        !(*named)["ids"].is_array() || (*named)["ids"].size() != 1 ||
        !(*named)["ids"][0].is_number_unsigned()) {
      step.Wrong("special_tokens", "the one id of each token");
    }
    const auto id = (*named)["ids"][0].get<uint64_t>();
    if (id > INT32_MAX) step.Wrong("special_tokens", "ids of 31 bits");
    return static_cast<TokenId>(id);
  }
  return kNoToken;
}

}  // namespace kvasir
