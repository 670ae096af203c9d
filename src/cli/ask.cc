// Many questions about one document: its state is computed once and every question goes on in a
// fork.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/files.h"
#include "cli/generate.h"
#include "cli/run.h"
#include "server/openai.h"

namespace kvasir {

namespace {

std::vector<std::string> QuestionsFrom(const std::string& path) {
  const std::string text = ReadTextFile(path, "--ask");
  std::vector<std::string> questions;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) questions.push_back(std::move(line));
    at = end + 1;
  }
  if (questions.empty()) Fail(Code::kInvalid, "--ask: {}: no question: write one a line", path);
  return questions;
}

CutPrompt Cut(const PromptBuilder& prompts, const std::string& document,
              const std::string& question) {
  const std::string rest = "\n\n" + question;
  return prompts.has_template() ? prompts.ChatCut({{"user", document + rest}}, 0, document.size())
                                : prompts.PlainCut(document, rest);
}

}  // namespace

void AskQuestions(const Arguments& args, Session& session, Output& output) {
  const OptionValues& values = args.values();
  const std::string document =
      args.Given("file") ? ReadTextFile(values.Text("file"), "--file") : values.Text("prompt");
  const std::vector<std::string> questions = QuestionsFrom(values.Text("ask"));
  const PromptBuilder prompts = session.opened().Prompts(args, UsesTemplate(args, true));
  std::vector<CutPrompt> cuts;
  for (const std::string& question : questions) {
    cuts.push_back(Cut(prompts, document, question));
    if (cuts.back().head.tokens != cuts[0].head.tokens) {
      Fail(Code::kUnsupported,
           "chat template: the question changes what it writes before the document; use --raw");
    }
  }

  Engine& engine = session.engine();
  const Request pattern = RequestFrom(values, args.List("stop"));
  const uint64_t seed = pattern.sampling.seed.value_or(RandomSeed());
  Request reading;
  reading.tokens = cuts[0].head.tokens;
  reading.max_tokens = 0;
  reading.sampling.seed = seed;
  reading.keep_state = true;
  const Generation document_read = Complete(engine, std::move(reading), nullptr);
  SequenceState& state = *document_read.state;
  engine.Freeze(state);

  nlohmann::ordered_json answers = nlohmann::ordered_json::array();
  std::string text;
  for (size_t i = 0; i < questions.size(); ++i) {
    Request request = RequestFrom(values, args.List("stop"));
    request.sampling.seed = seed;
    request.tokens = cuts[i].tail;
    request.fork_of = &state;
    const std::string head = fmt::format("{}> {}\n", i > 0 ? "\n" : "", questions[i]);
    if (output.streams()) output.Stream(head);
    const Generation answer =
        Complete(engine, std::move(request), output.streams() ? &output : nullptr);
    if (output.streams()) output.Stream("\n");
    text += head + answer.text + "\n";
    answers.push_back({{"question", questions[i]},
                       {"text", answer.text},
                       {"tokens", answer.tokens},
                       {"prompt_tokens", answer.prompt_tokens},
                       {"stop_reason", Name(answer.stop_reason)},
                       {"timings", TimingsJson(answer.timings)}});
    if (const std::string note = LengthNote(answer); !note.empty()) {
      session.AddNotice(fmt::format("question {}: {}", i + 1, note));
    }
  }
  if (output.json()) {
    nlohmann::ordered_json result = {
        {"text", ""},
        {"tokens", nlohmann::ordered_json::array()},
        {"prompt_tokens", document_read.prompt_tokens},
        {"stop_reason", Name(document_read.stop_reason)},
        {"seed", seed},
        {"timings", TimingsJson(document_read.timings)},
        {"kv", KvOf(session, engine, document_read)},
        {"memory", MemoryJson()},
        {"answers", std::move(answers)},
    };
    output.Json(result);
  } else if (!output.streams()) {
    output.Text(text);
  }
  session.PrintNotices();
  if (!values.Given("seed") && values.Real("temp") > 0) Note(fmt::format("seed {}", seed));
}

}  // namespace kvasir
