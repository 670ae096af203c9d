#include "eval/text_suite.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace kvasir {

namespace {

constexpr uint32_t kMostTokens = 1u << 24;

constexpr Option kOptions[] = {
    {.name = "file", .help = "text"},
    {.name = "mode",
     .type = OptionType::kChoice,
     .value = "stream",
     .choices = "stream|windows|forced",
     .help = "one text from begin to end; pieces of `window` tokens; a prompt of `p` tokens, and "
             "the rest as if generated"},
    {.name = "tokens",
     .type = OptionType::kCount,
     .min = 2,
     .max = kMostTokens,
     .help = "of the text; without it all that the context holds"},
    {.name = "block",
     .type = OptionType::kCount,
     .min = 1,
     .max = 512,
     .value = "32",
     .help = "rows of a pass, and block of policies that name none"},
    {.name = "window",
     .type = OptionType::kCount,
     .min = 4,
     .max = kMostTokens,
     .help = "with mode=windows: its tokens (512)"},
    {.name = "p",
     .type = OptionType::kCount,
     .min = 1,
     .max = kMostTokens,
     .help = "with mode=forced: tokens that are prompt"},
};

uint32_t Count(const OptionValues& values, const char* name, uint32_t otherwise) {
  return values.Has(name) ? static_cast<uint32_t>(values.Count(name)) : otherwise;
}

}  // namespace

TextSuite ParseTextSuite(const NamedSpec& spec) {
  OptionValues values("--suite ppl", kOptions);
  for (const auto& [key, value] : spec.values) values.Set(key, value);
  if (!values.Given("file")) Fail(Code::kUsage, "--suite ppl: file=TEXT is missing");
  TextSuite suite;
  suite.file = values.Text("file");
  suite.tokens = Count(values, "tokens", 0);
  TextProtocol& protocol = suite.protocol;
  for (const TextMode mode : {TextMode::kStream, TextMode::kWindows, TextMode::kForced}) {
    if (Name(mode) == values.Text("mode")) protocol.mode = mode;
  }
  const bool windows = protocol.mode == TextMode::kWindows;
  const bool forced = protocol.mode == TextMode::kForced;
  if (values.Given("window") && !windows) {
    Fail(Code::kUsage, "--suite ppl: window= belongs to mode=windows");
  }
  if (values.Given("p") != forced) {
    Fail(Code::kUsage, "--suite ppl: {}",
         forced ? "mode=forced needs p=N, the tokens of the prompt" : "p= belongs to mode=forced");
  }
  protocol.block = Count(values, "block", 0);
  protocol.window = windows ? Count(values, "window", 512) : 0;
  protocol.prompt = Count(values, "p", 0);
  const uint32_t least = windows ? protocol.window : protocol.prompt + 1;
  if (suite.tokens > 0 && suite.tokens < least) {
    Fail(Code::kUsage, "--suite ppl: tokens={} is less than the {} that mode={} reads at least",
         suite.tokens, least, Name(protocol.mode));
  }
  return suite;
}

std::string TextSuite::Spec() const {
  std::string text = fmt::format("ppl:file={},mode={},tokens={},block={}", file,
                                 Name(protocol.mode), tokens, protocol.block);
  if (protocol.mode == TextMode::kWindows) text += fmt::format(",window={}", protocol.window);
  if (protocol.mode == TextMode::kForced) text += fmt::format(",p={}", protocol.prompt);
  return text;
}

EvalResult TextResult(const TextSuite& suite, const EvalCase& c, const EvalCase& dense,
                      const TextRun& run, uint64_t tokens_read) {
  const TextProtocol& protocol = suite.protocol;
  EvalResult result;
  result.case_label = c.label;
  result.suite = "ppl";
  result.task = result.mode = Name(protocol.mode);
  result.spec = suite.Spec();
  result.block = protocol.block;
  result.policy_block =
      static_cast<uint32_t>(std::strtoul(PolicyValue(c.policy, "block").c_str(), nullptr, 10));
  result.length = tokens_read;
  result.window = protocol.window;
  result.prompt = protocol.prompt;
  result.first_drop = run.first_drop;
  result.inactive = !c.reference && !run.drops_in_range && !c.Encodes(dense);
  // Nothing scored: the first drop came after the last token, and what is shown is all of them.
  const bool any = std::any_of(run.tokens.begin(), run.tokens.end(),
                               [](const TokenFigures& token) { return token.scored; });
  result.quality = Summarize(run.tokens, any);
  result.quality_all = Summarize(run.tokens, false);
  result.n = result.quality->scored;
  result.buckets = Buckets(run.tokens);
  result.memory = run.memory;
  if (!c.reference) {
    const uint64_t tokens = protocol.mode == TextMode::kWindows ? protocol.window : tokens_read;
    result.nominal_ratio = NominalRatio(c.policy, tokens);
  }
  return result;
}

}  // namespace kvasir
