#include <charconv>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "format/quote.h"

namespace kvasir {

namespace {

// YYYY-MM-DD, with HH:MM or HH:MM:SS behind a T or a space; or seconds since 1970, told in local
// time. Errors: kUsage.
std::tm ParseTime(const std::string& text) {
  std::tm time{};
  int64_t seconds = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, seconds);
  const std::time_t whole = seconds;
  if (error == std::errc() && end == last && localtime_r(&whole, &time) != nullptr) return time;
  for (const char* form :
       {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"}) {
    time = {};
    const char* rest = strptime(text.c_str(), form, &time);
    if (rest == nullptr || rest != last) continue;
    const std::tm typed = time;
    std::tm normal = time;
    // Also says which day of the week and of the year it is.
    if (timegm(&normal) != -1 && normal.tm_mday == typed.tm_mday) return normal;
  }
  Fail(Code::kUsage, "--now: {}: a time is written as 2026-01-31T12:00:00", Quoted(text));
}

TemplateExtras ExtrasFrom(const Arguments& args) {
  const OptionValues& values = args.values();
  TemplateExtras extras;
  if (args.Given("tools")) {
    const std::string path = values.Text("tools");
    extras.tools = ParseTemplateValue(ReadTextFile(path, "--tools"), path);
    if (extras.tools.dict() != nullptr && extras.tools.dict()->Find("tools") != nullptr) {
      extras.tools = TemplateValue(*extras.tools.dict()->Find("tools"));
    }
    if (extras.tools.list() == nullptr && !extras.tools.IsNone()) {
      Fail(Code::kInvalid, "{}: not a list of tools", path);
    }
  }
  if (args.Given("kwargs")) {
    const TemplateValue kwargs = ParseTemplateValue(values.Text("kwargs"), "--kwargs");
    if (kwargs.dict() == nullptr) Fail(Code::kInvalid, "--kwargs: not a JSON object");
    for (const auto& [name, value] : kwargs.dict()->items) {
      extras.variables.emplace_back(name, value);
    }
  }
  // One time for all renderings of a run.
  if (args.Given("now")) extras.now = ParseTime(values.Text("now"));
  return extras;
}

}  // namespace

void TemplateVerb(const Arguments& args) {
  if (!args.Given("messages")) Fail(Code::kUsage, "template: --messages FILE is missing");
  Output output(args);
  const TemplateExtras extras = ExtrasFrom(args);
  // The tokenizer alone: weights need not be there, nor of a family that runs here.
  const std::string path = ModelPath(args);
  const std::unique_ptr<Tokenizer> tokenizer = OpenTokenizer(path);
  if (!args.Given("chat-template-file") && tokenizer->chat_template().empty()) {
    Fail(Code::kInvalid, "{}: has no chat template; give one with --chat-template-file", path);
  }
  const ChatTemplate chat_template(TemplateSource(args, *tokenizer));
  const PromptBuilder prompts(*tokenizer, &chat_template);
  const std::vector<ChatMessage> messages =
      MessagesFromFile(args.values().Text("messages"), ContentParts::kKeep);
  const bool open_turn = !args.values().On("no-generation-prompt");
  const std::string text = prompts.Render(messages, open_turn, extras);
  const auto tokens = [&] {
    try {
      return prompts.Chat(messages, open_turn, extras).tokens;
    } catch (const Error& error) {
      if (error.code() != Code::kInvalid) throw;
      Note(fmt::format("{}; run would refuse this, tokens has it as that token", error.what()));
      return tokenizer->Encode(text, /*special=*/true);
    }
  };
  if (output.json()) {
    output.Json({{"text", text}, {"tokens", tokens()}});
  } else {
    output.Text(text);
  }
}

}  // namespace kvasir
