#include "cli/codec.h"

#include <optional>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

constexpr CodecName kCodecNames[] = {
    {Codec::kF32, "f32", "f32"}, {Codec::kF16, "f16", "f16"}, {Codec::kBF16, "bf16", "bf16"},
    {Codec::kQ8, "q8", "q8_0"},  {Codec::kQ4, "q4", "q4_0"},
};
static_assert(std::size(kCodecNames) == kDenseCodecs);

constexpr Option kSpecOptions[] = {
    {.name = "for", .type = OptionType::kChoice, .choices = "k|v", .help = "only keys or values"},
};

// `flag` says whether llama.cpp's names are meant; both families of names are taken everywhere,
// since they contradict each other nowhere.
Codec FindCodec(std::string_view name, std::string_view flag) {
  std::vector<std::string_view> known;
  for (const CodecName& row : kCodecNames) {
    if (row.name == name || row.llama == name) return row.codec;
    known.push_back(flag == "--kv-codec" ? row.name : row.llama);
  }
  Fail(Code::kUsage, "{}: unknown codec {}; known are {}", flag, Quoted(name),
       fmt::join(known, ", "));
}

// One side of the pair, set at most once.
class Side {
 public:
  explicit Side(std::string_view name) : name_(name) {}
  void Set(Codec codec, std::string_view flag) {
    if (codec_) Fail(Code::kUsage, "{}: the codec of the {} is given twice", flag, name_);
    codec_ = codec;
  }
  Codec Or(Codec otherwise) const { return codec_.value_or(otherwise); }

 private:
  std::string_view name_;
  std::optional<Codec> codec_;
};

}  // namespace

std::span<const CodecName> AllCodecs() { return kCodecNames; }

std::string_view Name(Codec codec) {
  for (const CodecName& row : kCodecNames) {
    if (row.codec == codec) return row.name;
  }
  CheckFailed(__FILE__, __LINE__, "every codec has a name");
}

std::string Name(CodecPair pair) {
  if (pair.k == pair.v) return std::string(Name(pair.k.codec));
  return fmt::format("k={},v={}", Name(pair.k.codec), Name(pair.v.codec));
}

CodecPair ParseCodecs(const Arguments& args, Codec otherwise) {
  Side k("keys"), v("values");
  for (const std::string& text : args.List("kv-codec")) {
    const NamedSpec spec = SplitSpec(text, "--kv-codec");
    const Codec codec = FindCodec(spec.name, "--kv-codec");
    OptionValues values(fmt::format("--kv-codec {}", spec.name), kSpecOptions);
    for (const auto& [key, value] : spec.values) values.Set(key, value);
    const std::string side = values.Has("for") ? values.Text("for") : "";
    if (side != "v") k.Set(codec, "--kv-codec");
    if (side != "k") v.Set(codec, "--kv-codec");
  }
  if (args.Given("cache-type-k"))
    k.Set(FindCodec(args.values().Text("cache-type-k"), "-ctk"), "-ctk");
  if (args.Given("cache-type-v"))
    v.Set(FindCodec(args.values().Text("cache-type-v"), "-ctv"), "-ctv");
  return {k.Or(otherwise), v.Or(otherwise)};
}

}  // namespace kvasir
