#include "cli/eval_cases.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "cli/codec.h"

namespace kvasir {

namespace {

constexpr std::string_view kCaseFlags[] = {"kv-memory", "kv-policy", "kv-codec", "cache-type-k",
                                           "cache-type-v"};

bool IsCaseFlag(std::string_view name) {
  return std::find(std::begin(kCaseFlags), std::end(kCaseFlags), name) != std::end(kCaseFlags);
}

void SetEncoding(const Encoding& encoding, EvalCase* c) {
  c->encoding = encoding;
  c->codec = Name(encoding);
}

// A case of flags that were parsed alone, or of the plain ones among all.
EvalCase CaseFrom(const Arguments& flags, Codec otherwise) {
  EvalCase c;
  if (flags.Given("kv-policy")) c.policy = flags.values().Text("kv-policy");
  if (flags.Given("kv-memory")) c.kv_memory = flags.values().Size("kv-memory");
  SetEncoding(ParseCodecs(flags, otherwise), &c);
  return c;
}

Arguments ParseFlags(const CliVerb& verb, const std::string& flags) {
  std::vector<std::string> words;
  std::istringstream stream(flags);
  for (std::string word; stream >> word;) words.push_back(word);
  const std::vector<std::string_view> views(words.begin(), words.end());
  Arguments parsed = ParseArguments(verb, views);
  for (const Option& option : TableOf(verb)) {
    if (parsed.help() || (parsed.Given(option.name) && !IsCaseFlag(option.name))) {
      Fail(Code::kUsage, "--{} is no flag of a case; those are --{}",
           parsed.help() ? "help" : option.name, fmt::join(kCaseFlags, ", --"));
    }
  }
  return parsed;
}

// What the plain flags said, as a label.
EvalCase PlainCase(const Arguments& args, Codec otherwise) {
  EvalCase c = CaseFrom(args, otherwise);
  std::vector<std::string> words, flags;
  const auto add = [&](std::string_view flag, const std::string& value) {
    flags.push_back(fmt::format("--{} {}", flag, value));
  };
  if (args.Given("kv-memory")) add("kv-memory", args.values().Text("kv-memory"));
  if (args.Given("kv-policy")) add("kv-policy", c.policy);
  for (const std::string& codec : args.List("kv-codec")) add("kv-codec", codec);
  for (const char* flag : {"cache-type-k", "cache-type-v"}) {
    if (args.Given(flag)) add(flag, args.values().Text(flag));
  }
  if (c.policy != "none") words.push_back(c.policy);
  if (words.empty() || c.codec != Name(otherwise)) words.push_back(c.codec);
  c.label = fmt::format("{}", fmt::join(words, " "));
  c.flags = fmt::format("{}", fmt::join(flags, " "));
  return c;
}

}  // namespace

std::vector<EvalCase> EvalCases(const Arguments& args) {
  const Codec otherwise = args.values().Text("compute") == "f32" ? Codec::kF32 : Codec::kF16;
  EvalCase dense{.label = "dense", .reference = true};
  SetEncoding({otherwise, otherwise}, &dense);
  if (args.Given("reference")) {
    const Codec codec = args.values().Text("reference") == "f32" ? Codec::kF32 : Codec::kF16;
    SetEncoding({codec, codec}, &dense);
  }
  std::vector<EvalCase> cases = {dense};
  if (std::any_of(std::begin(kCaseFlags), std::end(kCaseFlags),
                  [&](std::string_view flag) { return args.Given(flag); })) {
    cases.push_back(PlainCase(args, otherwise));
  }
  std::optional<Sweep> sweep;
  if (args.Given("sweep")) sweep = ParseSweep(args.values().Text("sweep"));
  for (const auto& [label, flags] : ExpandCases(args.List("case"), sweep)) {
    try {
      EvalCase c = CaseFrom(ParseFlags(args.verb(), flags), otherwise);
      c.label = label;
      c.flags = flags;
      cases.push_back(c);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("--case {}: {}", label, error.what()));
    }
  }
  return cases;
}

}  // namespace kvasir
