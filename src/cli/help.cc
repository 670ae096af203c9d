#include "cli/help.h"

#include <vector>

#include "base/error.h"
#include "cli/codec.h"
#include "format/quote.h"
#include "kernels/table.h"
#include "policy/policy.h"

namespace kvasir {

namespace {

constexpr size_t kWidth = 96, kIndent = 30;

// `text` wrapped behind a column of `kIndent` characters that opens with `head`.
std::string Row(const std::string& head, std::string_view text) {
  std::string out = "  " + head;
  size_t column = out.size();
  if (column + 2 > kIndent) {
    out += '\n';
    column = 0;
  }
  out.append(kIndent - column, ' ');
  column = kIndent;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    const std::string_view word = text.substr(0, space);
    if (column + word.size() > kWidth && column > kIndent) {
      out.back() = '\n';  // was the space after the word before
      out.append(kIndent, ' ');
      column = kIndent;
    }
    out.append(word);
    out += ' ';
    column += word.size() + 1;
    text = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
  }
  while (out.back() == ' ') out.pop_back();
  return out + '\n';
}

std::string Limits(const Option& option) {
  std::string limits;
  if (option.type == OptionType::kCount || option.type == OptionType::kReal) {
    limits = option.max >= 4294967295.0 ? fmt::format("from {}", option.min)
                                        : fmt::format("{} to {}", option.min, option.max);
    if (option.max >= 4294967295.0 && option.min == 0) limits.clear();
  } else if (option.type == OptionType::kChoice) {
    limits = std::string(option.choices);
  }
  if (!option.value.empty()) {
    limits += fmt::format("{}default {}", limits.empty() ? "" : ", ", option.value);
  }
  return limits.empty() ? "" : fmt::format(" ({})", limits);
}

std::string PolicyHelp(const Traits& traits) {
  std::string text =
      fmt::format("--kv-policy {}:key=value,...\n\n{}\n\nKeys:\n", traits.name, traits.summary);
  for (const Option& option : traits.options) {
    text += Row(std::string(option.name), fmt::format("{}{}", option.help, Limits(option)));
  }
  return text;
}

std::string MustafarHelp() {
  std::string text =
      "--kv-codec mustafar:key=value,...   (also: bitmap-sparse)\n\n"
      "Of every key and value that has left a window of recent tokens the elements of largest "
      "magnitude stay.\nMay be given for keys, values and ranges of layers apart.\n\nKeys:\n";
  for (const Option& option : MustafarOptions()) {
    text += Row(std::string(option.name), fmt::format("{}{}", option.help, Limits(option)));
  }
  return text;
}

std::string PoliciesHelp() {
  std::string text =
      "Policies for --kv-policy NAME:key=value,... (kvasir help NAME lists the keys):\n";
  for (const Traits* traits : AllPolicies()) {
    text += Row(std::string(traits->name), traits->summary);
  }
  return text;
}

}  // namespace

std::string VersionText() {
  return fmt::format("kvasir {} ({})\n", KVASIR_VERSION, BestKernels().target);
}

std::string GeneralHelp() {
  std::string text = "Usage: kvasir VERB [flags]\n\nVerbs:\n";
  for (const CliVerb& verb : AllVerbs()) text += Row(std::string(verb.name), verb.summary);
  text += Row("help TOPIC", "a verb's flags, policies, one policy's keys, or mustafar's");
  text += "\nkvasir --version prints the version.\n";
  return text;
}

std::string VerbHelp(const CliVerb& verb) {
  std::string text =
      fmt::format("Usage: kvasir {} {}\n\n{}.\n\nFlags:\n", verb.name, verb.synopsis, verb.summary);
  for (const CliOption& option : AllOptions()) {
    if ((option.verbs & verb.bit) == 0) continue;
    std::string head;
    if (!option.short_form.empty()) head += fmt::format("-{}, ", option.short_form);
    head += fmt::format("--{}", option.option.name);
    if (!option.metavar.empty()) head += fmt::format(" {}", option.metavar);
    text += Row(head, fmt::format("{}{}", option.option.help, Limits(option.option)));
  }
  text += Row("-h, --help", "this text");
  return text;
}

std::string TopicHelp(std::string_view topic) {
  if (topic == "policies") return PoliciesHelp();
  if (topic == "mustafar") return MustafarHelp();
  std::vector<std::string_view> topics = {"policies", "mustafar"};
  for (const CliVerb& verb : AllVerbs()) {
    if (verb.name == topic) return VerbHelp(verb);
  }
  for (const CliVerb& verb : AllVerbs()) {
    if (verb.name.substr(0, verb.name.find(' ')) == topic) return VerbHelp(verb);
    topics.push_back(verb.name);
  }
  if (const Traits* traits = FindPolicy(topic)) return PolicyHelp(*traits);
  for (const Traits* traits : AllPolicies()) topics.push_back(traits->name);
  const std::string_view nearest = Nearest(topic, topics);
  if (!nearest.empty()) {
    Fail(Code::kUsage, "help: unknown topic {}; did you mean {}?", Quoted(topic), nearest);
  }
  Fail(Code::kUsage, "help: unknown topic {}; known are {}", Quoted(topic),
       fmt::join(topics, ", "));
}

}  // namespace kvasir
