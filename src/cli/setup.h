// What the verbs share: a model file with its tokenizer and template, and an engine on top of it.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/workers.h"
#include "cli/codec.h"
#include "cli/options.h"
#include "engine/engine.h"
#include "format/model_file.h"
#include "model/model.h"
#include "server/prompt.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir {

// What --model means: a file or a folder. Errors: kUsage without it, those of ResolveModel.
std::string ModelPath(const Arguments& args);
// The tokenizer of a GGUF file or a Hugging Face folder; weights need not be there. Errors: those
// of Tokenizer, naming --tokens.
std::unique_ptr<Tokenizer> OpenTokenizer(const std::string& path);
// The chat template that --chat-template-file names, or the tokenizer's; empty: there is none.
std::string TemplateSource(const Arguments& args, const Tokenizer& tokenizer);

// A model file, opened and checked; no weights are read. Does not move: others refer to its parts.
class OpenedModel {
 public:
  // Errors: kUsage without --model; those of ResolveModel and ModelFile::Open.
  explicit OpenedModel(const Arguments& args);
  explicit OpenedModel(const std::string& path);
  OpenedModel(const OpenedModel&) = delete;
  OpenedModel& operator=(const OpenedModel&) = delete;

  const ModelFile& file() const { return file_; }
  const std::string& name() const { return name_; }  // file name without suffix
  // nullptr: the model has no tokenizer that this program reads; it still takes token ids.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  // Errors: those of OpenTokenizer.
  const Tokenizer& NeedTokenizer() const;
  // With the model's template, or the one --chat-template-file names, if `chat`. Errors:
  // NeedTokenizer's, a template that cannot be parsed.
  PromptBuilder Prompts(const Arguments& args, bool chat);
  bool HasTemplate(const Arguments& args) const;

 private:
  ModelFile file_;
  std::string name_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<Error> no_tokenizer_;  // why there is none
  std::unique_ptr<ChatTemplate> chat_template_;
};

// With the arithmetic that --compute names, and a progress bar.
std::unique_ptr<Model> LoadModel(const Arguments& args, const OpenedModel& opened,
                                 const Kernels& kernels, Workers& workers, uint32_t max_rows);

// An engine and everything it stands on.
class Session {
 public:
  // Loads the weights. `batch`: passes are as wide as --step-tokens, for many sequences. `policy`:
  // in place of --kv-policy.
  Session(const Arguments& args, OpenedModel& opened, bool batch,
          const std::optional<std::string>& policy = std::nullopt);
  ~Session();

  OpenedModel& opened() { return opened_; }
  Engine& engine() { return *engine_; }
  const Engine& engine() const { return *engine_; }
  const Kernels& kernels() const { return kernels_; }
  Workers& workers() { return workers_; }
  const Model& model() const { return *model_; }
  const Encoding& encoding() const { return engine_->options().encoding; }
  // Says on standard error what was decided without being asked (the budget, a seed); once.
  void PrintNotices();
  void AddNotice(std::string line) { notices_.push_back(std::move(line)); }

 private:
  OpenedModel& opened_;
  const Kernels& kernels_;
  Workers workers_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::string> notices_;
};

// Fields of the kv object that belong to a request rather than to the ledger.
struct KvUse {
  uint64_t positions = 0, entries_kept = 0, entries_dropped = 0;
  uint64_t bytes_end = 0, bytes_side = 0;
};
nlohmann::ordered_json KvJson(const Session& session, const Engine& engine, const KvUse& use);
nlohmann::ordered_json MemoryJson();

const Kernels& ChooseKernels(const Arguments& args);
size_t ChooseThreads(const Arguments& args);
uint64_t DefaultKvMemory();
SamplingParams SamplingFrom(const OptionValues& values);
// What a content is that comes as a list of text parts: the text of all, or for the template to
// read.
enum class ContentParts : uint8_t { kJoin, kKeep };
// From a JSON file: a list of messages, or an object with one as "messages". Errors:
// ReadTextFile's, MessagesFrom's.
std::vector<ChatMessage> MessagesFromFile(const std::string& path, ContentParts parts);

}  // namespace kvasir
