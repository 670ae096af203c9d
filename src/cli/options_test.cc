#include "cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/help.h"

namespace kvasir {
namespace {

using testing::HasSubstr;

const CliVerb& VerbNamed(std::string_view name) {
  for (const CliVerb& verb : AllVerbs()) {
    if (verb.name == name) return verb;
  }
  ADD_FAILURE() << name;
  return AllVerbs()[0];
}

Arguments Parse(std::string_view verb, const std::vector<std::string_view>& args) {
  return ParseArguments(VerbNamed(verb), args);
}

std::string Refusal(std::string_view verb, const std::vector<std::string_view>& args) {
  try {
    Parse(verb, args);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    return error.what();
  }
  return "accepted";
}

std::vector<std::string> Words(std::string_view list) {
  std::vector<std::string> words;
  while (!list.empty()) {
    const size_t bar = list.find('|');
    words.emplace_back(list.substr(0, bar));
    list = bar == std::string_view::npos ? std::string_view() : list.substr(bar + 1);
  }
  return words;
}

TEST(OptionTable, ObeysItsOwnLimitsForEveryVerb) {
  for (const CliVerb& verb : AllVerbs()) {
    EXPECT_THAT(CheckTable(TableOf(verb)), testing::IsEmpty()) << verb.name;
  }
}

TEST(OptionTable, NamesEveryFormOnceForAVerb) {
  std::set<std::string> any;
  for (const CliVerb& verb : AllVerbs()) {
    std::set<std::string> seen;
    for (const CliOption& option : AllOptions()) {
      if ((option.verbs & verb.bit) == 0) continue;
      std::vector<std::string> forms = {"--" + std::string(option.option.name)};
      for (const std::string& alias : Words(option.aliases)) forms.push_back("--" + alias);
      if (!option.short_form.empty()) forms.push_back("-" + std::string(option.short_form));
      for (const std::string& form : forms) {
        EXPECT_TRUE(seen.insert(form).second) << verb.name << " " << form;
      }
    }
    any.merge(seen);
  }
  for (const CliOption& option : AllOptions()) {
    EXPECT_NE(option.verbs, 0u) << option.option.name;
    EXPECT_FALSE(option.option.help.empty()) << option.option.name;
    const bool takes_value = option.option.type != OptionType::kSwitch;
    EXPECT_EQ(takes_value, !option.metavar.empty()) << option.option.name;
  }
  // A hint about a flag that works would never be seen.
  for (const FlagHint& hint : AllHints()) {
    for (const std::string& flag : Words(hint.flags)) EXPECT_TRUE(any.insert(flag).second) << flag;
  }
}

TEST(OptionTable, IsWhatHelpPrints) {
  for (const CliVerb& verb : AllVerbs()) {
    const std::string help = VerbHelp(verb);
    for (const Option& option : TableOf(verb)) {
      EXPECT_THAT(help, HasSubstr("--" + std::string(option.name)));
    }
  }
  EXPECT_THAT(VerbHelp(VerbNamed("run")), HasSubstr("default 0.95"));
}

TEST(Parser, TakesShortLongAndJoinedForms) {
  const Arguments args = Parse("run", {"-m", "x.gguf", "--predict=5", "-ub", "64", "--kv-memory",
                                       "1MiB", "--json", "-p", "--not-a-flag"});
  EXPECT_EQ(args.values().Text("model"), "x.gguf");
  EXPECT_EQ(args.values().Count("predict"), 5u);
  EXPECT_EQ(args.values().Count("chunk"), 64u);
  EXPECT_EQ(args.values().Size("kv-memory"), 1048576u);
  EXPECT_TRUE(args.values().On("json"));
  EXPECT_FALSE(args.values().On("raw"));
  EXPECT_EQ(args.values().Text("prompt"), "--not-a-flag");
}

TEST(Parser, KnowsTheNamesOfOtherEngines) {
  const Arguments args =
      Parse("batch", {"--max-num-batched-tokens", "100", "--max-num-seqs", "3", "--max-model-len",
                      "77", "--temperature", "0", "--ubatch-size", "9", "--n-predict", "2"});
  EXPECT_EQ(args.values().Count("step-tokens"), 100u);
  EXPECT_EQ(args.values().Count("parallel"), 3u);
  EXPECT_EQ(args.values().Count("ctx-size"), 77u);
  EXPECT_EQ(args.values().Real("temp"), 0);
  EXPECT_EQ(args.values().Count("chunk"), 9u);
  EXPECT_EQ(args.values().Count("predict"), 2u);
}

TEST(Parser, KeepsRepeatedValuesInOrder) {
  const Arguments args = Parse("run", {"--stop", "a=b", "-r", "", "--stop=c=d"});
  EXPECT_THAT(args.List("stop"), testing::ElementsAre("a=b", "", "c=d"));
  EXPECT_TRUE(args.Given("stop"));
  EXPECT_FALSE(args.Given("kv-codec"));
}

TEST(Parser, TakesAWordWithoutDashAsTheModel) {
  EXPECT_EQ(Parse("inspect", {"file.gguf", "--tensors"}).values().Text("model"), "file.gguf");
  EXPECT_THAT(Refusal("inspect", {"a", "b"}), HasSubstr("\"b\""));
  const Arguments three = Parse("quantize", {"in", "--threads", "2", "out", "q8_0"});
  EXPECT_EQ(three.values().Text("model"), "in");
  EXPECT_EQ(three.values().Text("output"), "out");
  EXPECT_EQ(three.values().Text("type"), "q8_0");
  // A flag takes its place among them.
  EXPECT_EQ(Parse("quantize", {"in", "-o", "out", "f16"}).values().Text("type"), "f16");
  EXPECT_THAT(Refusal("quantize", {"a", "b", "c", "d"}), HasSubstr("\"d\""));
}

TEST(Parser, AnswersAMisspeltFlagWithTheNearest) {
  EXPECT_THAT(Refusal("run", {"--kv-memroy", "1GiB"}), HasSubstr("did you mean --kv-memory?"));
  EXPECT_THAT(Refusal("run", {"--tmep", "1"}), HasSubstr("did you mean --temp?"));
  EXPECT_THAT(Refusal("run", {"--zzzzzzzzzz"}), HasSubstr("kvasir help run"));
}

TEST(Parser, AnswersFlagsOfOthersWithTheirReplacement) {
  for (const std::string_view flag : {"-ngl", "-fa", "--mlock", "--no-mmap", "-hf"}) {
    EXPECT_THAT(Refusal("run", {flag, "1"}), HasSubstr(std::string(flag) + ": ")) << flag;
  }
  for (const std::string_view flag :
       {"--cache-ram", "--gpu-memory-utilization", "--kv-offloading-size"}) {
    EXPECT_THAT(Refusal("run", {flag, "1"}), HasSubstr("--kv-memory")) << flag;
  }
  EXPECT_THAT(Refusal("run", {"--gpu-memory-utilization=0.9"}), HasSubstr("--kv-memory"));
}

TEST(Parser, TakesTheVerbsOwnEntryOfASharedName) {
  EXPECT_EQ(Parse("bench serve", {"--model", "name"}).values().Real("temp"), 0);
  EXPECT_EQ(Parse("run", {"--model", "name"}).values().Real("temp"), 0.8);
  EXPECT_THAT(Refusal("bench serve", {"-m", "x"}), HasSubstr("-m does not belong here"));
}

TEST(Parser, RefusesWhatDoesNotBelongToTheVerb) {
  EXPECT_THAT(Refusal("eval ppl", {"--temp", "0"}), HasSubstr("a flag of run, batch"));
}

TEST(Parser, RefusesMissingWrongAndDoubledValues) {
  EXPECT_THAT(Refusal("run", {"-m"}), HasSubstr("needs a value"));
  EXPECT_THAT(Refusal("run", {"-n", "x"}), HasSubstr("whole number"));
  EXPECT_THAT(Refusal("run", {"-n", "-1"}), HasSubstr("whole number"));
  EXPECT_THAT(Refusal("run", {"--top-p", "1.5"}), HasSubstr("from 0 to 1"));
  EXPECT_THAT(Refusal("run", {"--kv-memory", "lots"}), HasSubstr("bytes like"));
  EXPECT_THAT(Refusal("run", {"--compute", "f64"}), HasSubstr("f32|fast"));
  EXPECT_THAT(Refusal("run", {"-n", "1", "--predict", "2"}), HasSubstr("twice"));
}

TEST(Parser, TakesTheWholeRangeOfSeeds) {
  EXPECT_EQ(Parse("run", {"--seed", "18446744073709551615"}).values().Count("seed"), UINT64_MAX);
}

TEST(Verbs, AreFoundByOneOrTwoWords) {
  size_t n = 0;
  const std::string_view eval[] = {"eval", "ppl", "-m"};
  EXPECT_EQ(FindVerb(eval, &n).bit, kEvalPpl);
  EXPECT_EQ(n, 2u);
  const std::string_view suites[] = {"eval", "-m"};
  EXPECT_EQ(FindVerb(suites, &n).bit, kEval);
  EXPECT_EQ(n, 1u);
  const std::string_view run[] = {"run"};
  EXPECT_EQ(FindVerb(run, &n).bit, kRun);
  EXPECT_EQ(n, 1u);
}

TEST(Verbs, AnswerAMisspeltOneWithTheNearest) {
  size_t n = 0;
  const std::string_view args[] = {"inspcet"};
  try {
    FindVerb(args, &n);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("did you mean inspect?"));
  }
}

TEST(Help, ExplainsAPolicyFromItsTable) {
  EXPECT_THAT(TopicHelp("keydiff"), HasSubstr("budget"));
  EXPECT_THAT(TopicHelp("policies"), HasSubstr("keydiff"));
  EXPECT_THAT(TopicHelp("mustafar"), HasSubstr("sparsity"));
  EXPECT_THROW(TopicHelp("kyediff"), Error);
}

}  // namespace
}  // namespace kvasir
