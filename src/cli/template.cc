#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/setup.h"
#include "cli/verbs.h"
#include "format/json.h"
#include "server/openai.h"

namespace kvasir {

void TemplateVerb(const Arguments& args) {
  if (!args.Given("messages")) Fail(Code::kUsage, "template: --messages FILE is missing");
  Output output(args);
  OpenedModel opened(args);
  opened.NeedTokenizer();
  if (!opened.HasTemplate(args)) {
    Fail(Code::kInvalid, "{}: has no chat template; give one with --chat-template-file",
         opened.file().path());
  }
  const std::vector<ChatMessage> messages = MessagesFromFile(args.values().Text("messages"));
  const PromptBuilder prompts = opened.Prompts(args, /*chat=*/true);
  const bool open_turn = !args.values().On("no-generation-prompt");
  const Prompt prompt = prompts.Chat(messages, open_turn);
  const std::string text = prompts.Render(messages, open_turn);
  if (output.json()) {
    const nlohmann::ordered_json document = {{"text", text}, {"tokens", prompt.tokens}};
    output.Json(document);
  } else {
    output.Text(text);
  }
}

}  // namespace kvasir
