#include "cli/run.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/files.h"
#include "cli/generate.h"
#include "cli/host.h"
#include "cli/verbs.h"
#include "server/openai.h"

namespace kvasir {

namespace {

Prompt PromptFrom(const Arguments& args, OpenedModel& opened) {
  const OptionValues& values = args.values();
  if (args.Given("messages")) {
    const auto messages = MessagesFromFile(values.Text("messages"), ContentParts::kJoin);
    return opened.Prompts(args, UsesTemplate(args, true)).Chat(messages);
  }
  const bool typed = args.Given("prompt");
  const std::string text =
      typed ? values.Text("prompt") : ReadTextFile(values.Text("file"), "--file");
  // An empty prompt is the beginning-of-text token alone, unless --chat asks for an empty turn.
  const bool chat = UsesTemplate(args, typed && !text.empty());
  const PromptBuilder prompts = opened.Prompts(args, chat);
  return prompts.has_template() ? prompts.Chat({{"user", text}}) : prompts.Plain(text);
}

void CheckCombination(const Arguments& args) {
  const int prompts = args.Given("prompt") + args.Given("file") + args.Given("messages");
  if (prompts > 1) Fail(Code::kUsage, "run: give one of -p, -f and --messages");
  if (args.values().On("raw") && args.values().On("chat")) {
    Fail(Code::kUsage, "run: --raw and --chat exclude each other");
  }
  if (args.Given("ask") && !args.Given("file") && !args.Given("prompt")) {
    Fail(Code::kUsage, "run: --ask needs a document: -f FILE");
  }
  if (prompts > 0) return;
  if (!IsTerminal(STDIN_FILENO) && !args.values().On("chat")) {
    Fail(Code::kUsage, "run: no prompt: give -p TEXT, -f FILE or --messages FILE");
  }
  if (args.values().On("json") || args.Given("output")) {
    Fail(Code::kUsage, "run: a chat has no single result: --json and --output need a prompt");
  }
}

void RunOnce(const Arguments& args, OpenedModel& opened, Output& output) {
  const Prompt prompt = PromptFrom(args, opened);
  Session session(args, opened, /*batch=*/false);
  Engine& engine = session.engine();
  Request request = RequestFrom(args.values(), args.List("stop"));
  request.tokens = prompt.tokens;
  request.keep_state = true;  // so that the ledger still shows it at the end
  Pin(engine, prompt, &request);
  Generation generation =
      Complete(engine, std::move(request), output.streams() ? &output : nullptr);

  if (output.json()) {
    nlohmann::ordered_json document = {
        {"text", generation.text},
        {"tokens", generation.tokens},
        {"prompt_tokens", generation.prompt_tokens},
        {"stop_reason", Name(generation.stop_reason)},
        {"seed", generation.seed},
        {"timings", TimingsJson(generation.timings)},
        {"kv", KvOf(session, engine, generation)},
        {"memory", MemoryJson()},
    };
    output.Json(document);
  } else if (!output.streams()) {
    output.Text(generation.text);
  } else if (::isatty(STDOUT_FILENO)) {
    output.Stream("\n");  // for the shell's prompt; a pipe gets the text byte for byte
  }
  session.PrintNotices();
  if (!args.Given("seed") && args.values().Real("temp") > 0) {
    Note(fmt::format("seed {}", generation.seed));
  }
  if (const std::string note = LengthNote(generation); !note.empty()) Note(note);
}

}  // namespace

bool UsesTemplate(const Arguments& args, bool otherwise) {
  if (args.values().On("raw")) return false;
  if (args.values().On("chat")) return true;
  return otherwise;
}

void RunVerb(const Arguments& args) {
  CheckCombination(args);
  Output output(args);
  OpenedModel opened(args);
  opened.NeedTokenizer();
  if (!args.Given("prompt") && !args.Given("file") && !args.Given("messages")) {
    Session session(args, opened, /*batch=*/false);
    Chat(args, session);
  } else if (args.Given("ask")) {
    Session session(args, opened, /*batch=*/false);
    AskQuestions(args, session, output);
  } else {
    RunOnce(args, opened, output);
  }
}

}  // namespace kvasir
