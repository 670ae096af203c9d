#include "cli/codec.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

constexpr CodecName kCodecNames[] = {
    {Codec::kF32, "f32", "f32"}, {Codec::kF16, "f16", "f16"}, {Codec::kBF16, "bf16", "bf16"},
    {Codec::kQ8, "q8", "q8_0"},  {Codec::kQ4, "q4", "q4_0"},
};
static_assert(std::size(kCodecNames) == kDenseCodecs);

constexpr Option kFor = {
    .name = "for", .type = OptionType::kChoice, .choices = "k|v", .help = "only keys or values"};
constexpr Option kLayers = {.name = "layers", .help = "only layers A-B, counted from 0"};
// `value`: empty where there is no window unless it is asked for.
constexpr Option Recent(std::string_view value) {
  return {.name = "recent",
          .type = OptionType::kCount,
          .min = 32,
          .max = 65536,
          .value = value,
          .help = "newest tokens that stay dense, a multiple of 32"};
}
constexpr Option kWhen = {.name = "when",
                          .type = OptionType::kChoice,
                          .value = "stream",
                          .choices = "stream|prompt",
                          .help = "encode while a prompt is read, or at its end"};

constexpr Option kDenseOptions[] = {kFor, kLayers};
constexpr Option kQuantizedOptions[] = {kFor, kLayers, Recent(""), kWhen};
constexpr Option kMustafarOptions[] = {
    {.name = "sparsity", .value = "0.5", .help = "fraction removed of every row, 0.100 to 0.950"},
    {.name = "keep",
     .type = OptionType::kCount,
     .min = 1,
     .max = kMaxHeadDim,
     .help = "elements kept of every row, in place of sparsity"},
    {.name = "type",
     .type = OptionType::kChoice,
     .value = "bf16",
     .choices = "bf16|f16|i8",
     .help = "of the elements kept"},
    Recent("32"),
    {.name = "mode",
     .type = OptionType::kChoice,
     .value = "page",
     .choices = "page|exact",
     .help = "prune pages of 64 tokens, or every row as it leaves the window (slow)"},
    kWhen,
    {.name = "score",
     .type = OptionType::kChoice,
     .value = "magnitude",
     .choices = "magnitude|query",
     .help =
         "what stays of a key: its largest elements, or those that the last queries weigh most"},
    kFor,
    kLayers,
};

bool IsMustafar(std::string_view name) { return name == "mustafar" || name == "bitmap-sparse"; }

// `flag` says whether llama.cpp's names are meant; both families of names are taken everywhere,
// since they contradict each other nowhere.
Codec FindCodec(std::string_view name, std::string_view flag) {
  std::vector<std::string_view> known;
  for (const CodecName& row : kCodecNames) {
    if (row.name == name || row.llama == name) return row.codec;
    known.push_back(flag == "--kv-codec" ? row.name : row.llama);
  }
  if (flag == "--kv-codec") known.emplace_back("mustafar");
  Fail(Code::kUsage, "{}: unknown codec {}; known are {}", flag, Quoted(name),
       fmt::join(known, ", "));
}

std::span<const Option> OptionsOf(Codec codec) {
  if (IsSparse(codec)) return kMustafarOptions;
  if (IsInteger(codec)) return kQuantizedOptions;
  return kDenseOptions;
}

// "0.5" as 500: whole thousandths, so that counts never depend on rounding.
uint32_t Thousandths(const OptionValues& values) {
  const std::string text = values.Text("sparsity");
  const std::string_view digits =
      text.starts_with("0.") ? std::string_view(text).substr(2) : std::string_view();
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || digits.size() > 3 || error != std::errc() ||
      end != digits.data() + digits.size()) {
    Fail(Code::kUsage, "{}: sparsity={}: a number such as 0.5 or 0.625, of up to three decimals",
         values.where(), Quoted(text));
  }
  for (size_t i = digits.size(); i < 3; ++i) number *= 10;
  if (number < 100 || number > 950) {
    Fail(Code::kUsage, "{}: sparsity={}: from 0.100 to 0.950; keep=N keeps any number of elements",
         values.where(), text);
  }
  return number;
}

void ReadLayers(const OptionValues& values, EncodingRule* rule) {
  if (!values.Has("layers")) return;
  const std::string text = values.Text("layers");
  const char* const last = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), last, rule->first_layer);
  rule->last_layer = rule->first_layer;
  if (error == std::errc() && at != last && *at == '-') {
    const auto range = std::from_chars(at + 1, last, rule->last_layer);
    at = range.ptr;
    error = range.ec;
  }
  if (error != std::errc() || at != last || rule->last_layer < rule->first_layer ||
      rule->last_layer == EncodingRule::kLastLayer) {
    Fail(Code::kUsage, "{}: layers={}: one layer or a range A-B, counted from 0", values.where(),
         Quoted(text));
  }
}

void ReadSides(const OptionValues& values, EncodingRule* rule) {
  const std::string side = values.Has("for") ? values.Text("for") : "";
  rule->keys = side != "v";
  rule->values = side != "k";
}

// Reads the window, and what goes with it.
SealRule ReadSeals(const OptionValues& values, EncodingRule* rule) {
  SealRule seals;
  if (!values.Has("recent")) {
    if (values.Given("when")) {
      Fail(Code::kUsage, "{}: when={} needs a window: recent=32", values.where(),
           values.Text("when"));
    }
    return seals;
  }
  seals.recent = rule->recent = static_cast<uint32_t>(values.Count("recent"));
  if (seals.recent % 32 != 0) {
    Fail(Code::kUsage, "{}: recent={}: a multiple of 32, such as {}", values.where(), seals.recent,
         seals.recent / 32 * 32);
  }
  seals.at_prompt_end = values.Text("when") == "prompt";
  return seals;
}

void ReadMustafar(const OptionValues& values, EncodingRule* rule, SealRule* seals) {
  const std::string type = values.Text("type");
  rule->codec = type == "bf16"  ? Codec::kSparseBF16
                : type == "f16" ? Codec::kSparseF16
                                : Codec::kSparseI8;
  rule->open = type == "f16" ? Codec::kF16 : Codec::kBF16;
  if (values.Given("keep")) {
    if (values.Given("sparsity")) {
      Fail(Code::kUsage, "{}: keep and sparsity exclude each other: give one", values.where());
    }
    rule->keep = static_cast<uint32_t>(values.Count("keep"));
  } else {
    rule->thousandths = Thousandths(values);
  }
  rule->by_query = values.Text("score") == "query";
  if (rule->by_query && !rule->keys) {
    Fail(Code::kUsage, "{}: score=query weighs keys: leave it, or for=v", values.where());
  }
  seals->by_row = values.Text("mode") == "exact";
  if (seals->by_row && rule->by_query) {
    Fail(Code::kUsage,
         "{}: score=query is taken once for a page, mode=exact prunes row by row: give mode=page",
         values.where());
  }
  if (!seals->by_row) return;
  if (rule->codec == Codec::kSparseI8) {
    Fail(Code::kUsage,
         "{}: mode=exact keeps the paper's own values in the window, type=i8 rounds them: give "
         "type=bf16 or type=f16",
         values.where());
  }
  if (values.Given("when") && !seals->at_prompt_end) {
    Fail(Code::kUsage, "{}: mode=exact reads prompts dense, as the paper does: leave when=stream",
         values.where());
  }
  seals->at_prompt_end = true;
}

std::string Describe(const SealRule& seals) {
  return fmt::format("recent={},when={},mode={}", seals.recent,
                     seals.at_prompt_end ? "prompt" : "stream", seals.by_row ? "exact" : "page");
}

void AddRule(Encoding* encoding, const EncodingRule& rule, std::string_view flag) {
  for (const EncodingRule& other : encoding->rules) {
    const bool both_keys = rule.keys && other.keys, both_values = rule.values && other.values;
    if (!both_keys && !both_values) continue;
    if (rule.first_layer > other.last_layer || other.first_layer > rule.last_layer) continue;
    Fail(Code::kUsage,
         "{}: the codec of the {} is given twice: tell them apart by for= or layers=", flag,
         both_keys ? "keys" : "values");
  }
  encoding->rules.push_back(rule);
}

// What is one dense codec for all layers needs no rule.
void FoldPlain(Encoding* encoding) {
  std::erase_if(encoding->rules, [&](const EncodingRule& rule) {
    const bool plain = rule.recent == 0 && rule.last_layer == EncodingRule::kLastLayer;
    if (plain && rule.keys) encoding->k = rule.codec;
    if (plain && rule.values) encoding->v = rule.codec;
    return plain;
  });
}

void AddSpec(Encoding* encoding, const std::string& text) {
  const NamedSpec spec = SplitSpec(text, "--kv-codec");
  EncodingRule rule;
  rule.codec = IsMustafar(spec.name) ? Codec::kSparseBF16 : FindCodec(spec.name, "--kv-codec");
  OptionValues values(fmt::format("--kv-codec {}", spec.name), OptionsOf(rule.codec));
  for (const auto& [key, value] : spec.values) values.Set(key, value);
  ReadSides(values, &rule);
  ReadLayers(values, &rule);
  if (IsSparse(rule.codec) || IsInteger(rule.codec)) {
    SealRule seals = ReadSeals(values, &rule);
    if (IsSparse(rule.codec)) ReadMustafar(values, &rule, &seals);
    if (seals.recent > 0 && encoding->seals.recent > 0 && !(seals == encoding->seals)) {
      Fail(Code::kUsage,
           "{}: {} beside {}: the planes of a page are encoded together, so these are the same for "
           "all",
           values.where(), Describe(seals), Describe(encoding->seals));
    }
    if (seals.recent > 0) encoding->seals = seals;
  }
  AddRule(encoding, rule, "--kv-codec");
}

std::string NameOf(const EncodingRule& rule, const SealRule& seals) {
  std::vector<std::string> words;
  if (rule.keep > 0) {
    words.push_back(fmt::format("keep={}", rule.keep));
  } else if (rule.thousandths > 0) {
    std::string digits = fmt::format("{:03}", rule.thousandths);
    while (digits.size() > 1 && digits.back() == '0') digits.pop_back();
    words.push_back("sparsity=0." + digits);
  }
  if (IsSparse(rule.codec)) {
    words.push_back(rule.codec == Codec::kSparseI8    ? "type=i8"
                    : rule.codec == Codec::kSparseF16 ? "type=f16"
                                                      : "type=bf16");
  }
  if (rule.by_query) words.emplace_back("score=query");
  if (rule.recent > 0) {
    words.push_back(fmt::format("recent={}", rule.recent));
    if (seals.by_row) {
      words.emplace_back("mode=exact");
    } else if (seals.at_prompt_end) {
      words.emplace_back("when=prompt");
    }
  }
  if (rule.last_layer != EncodingRule::kLastLayer) {
    words.push_back(fmt::format("layers={}-{}", rule.first_layer, rule.last_layer));
  }
  std::string name(IsSparse(rule.codec) ? "mustafar" : Name(rule.codec));
  if (!words.empty()) name += fmt::format(":{}", fmt::join(words, ","));
  return name;
}

std::string SideName(const Encoding& encoding, bool keys) {
  std::vector<std::string> names = {std::string(Name(keys ? encoding.k : encoding.v))};
  for (const EncodingRule& rule : encoding.rules) {
    if (!(keys ? rule.keys : rule.values)) continue;
    if (rule.last_layer == EncodingRule::kLastLayer) names.clear();
    names.push_back(NameOf(rule, encoding.seals));
  }
  return fmt::format("{}", fmt::join(names, "+"));
}

}  // namespace

std::span<const CodecName> AllCodecs() { return kCodecNames; }
std::span<const Option> MustafarOptions() { return kMustafarOptions; }

std::string_view Name(Codec codec) {
  for (const CodecName& row : kCodecNames) {
    if (row.codec == codec) return row.name;
  }
  CheckFailed(__FILE__, __LINE__, "every dense codec has a name");
}

std::string KeysName(const Encoding& encoding) { return SideName(encoding, true); }
std::string ValuesName(const Encoding& encoding) { return SideName(encoding, false); }

std::string Name(const Encoding& encoding) {
  const std::string k = KeysName(encoding), v = ValuesName(encoding);
  return k == v ? k : fmt::format("k={},v={}", k, v);
}

Encoding ParseEncoding(const std::vector<std::string>& specs, Codec otherwise) {
  Encoding encoding = {.k = otherwise, .v = otherwise};
  for (const std::string& text : specs) AddSpec(&encoding, text);
  FoldPlain(&encoding);
  return encoding;
}

Encoding ParseCodecs(const Arguments& args, Codec otherwise) {
  Encoding encoding = {.k = otherwise, .v = otherwise};
  for (const std::string& text : args.List("kv-codec")) AddSpec(&encoding, text);
  for (const bool keys : {true, false}) {
    const std::string_view option = keys ? "cache-type-k" : "cache-type-v";
    const std::string_view flag = keys ? "-ctk" : "-ctv";
    if (!args.Given(option)) continue;
    EncodingRule rule = {.keys = keys, .values = !keys};
    rule.codec = FindCodec(args.values().Text(option), flag);
    AddRule(&encoding, rule, flag);
  }
  FoldPlain(&encoding);
  return encoding;
}

}  // namespace kvasir
