#include "cli/setup.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "cli/files.h"
#include "cli/host.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "format/gguf.h"
#include "format/quote.h"

namespace kvasir {

std::string ModelPath(const Arguments& args) {
  if (!args.Given("model")) {
    Fail(Code::kUsage, "{}: --model is missing: -m FILE, or a name in {}", args.verb().name,
         ModelsDir());
  }
  return ResolveModel(args.values().Text("model"), ModelsDir());
}

namespace {

// `metadata`: that of a GGUF file.
std::unique_ptr<Tokenizer> TokenizerOf(const std::string& path, const Metadata* metadata) {
  try {
    return metadata == nullptr ? Tokenizer::FromFolder(path) : Tokenizer::FromGguf(*metadata);
  } catch (const Error& error) {
    throw Error(
        error.code(),
        fmt::format("no tokenizer: {}; such a model takes token ids: eval ppl --tokens FILE",
                    error.what()));
  }
}

}  // namespace

std::unique_ptr<Tokenizer> OpenTokenizer(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return TokenizerOf(path, nullptr);
  const Metadata metadata = ReadGgufMetadata(path);
  return TokenizerOf(path, &metadata);
}

std::string TemplateSource(const Arguments& args, const Tokenizer& tokenizer) {
  if (!args.Given("chat-template-file")) return std::string(tokenizer.chat_template());
  return ReadTextFile(args.values().Text("chat-template-file"), "--chat-template-file");
}

OpenedModel::OpenedModel(const Arguments& args) : OpenedModel(ModelPath(args)) {}

OpenedModel::OpenedModel(const std::string& model_path) : file_(ModelFile::Open(model_path)) {
  const std::filesystem::path path(file_.path());
  name_ = path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
  if (name_.empty()) name_ = path.parent_path().filename().string();  // "folder/"
  try {
    const bool folder = file_.kind() == ModelFile::Kind::kHuggingFace;
    tokenizer_ = TokenizerOf(file_.path(), folder ? nullptr : &file_.metadata());
    if (tokenizer_->vocab_size() > file_.config().vocab_size) {
      Fail(Code::kCorrupt, "{}: the tokenizer has {} tokens, the model {}", file_.path(),
           tokenizer_->vocab_size(), file_.config().vocab_size);
    }
  } catch (const Error& error) {
    tokenizer_.reset();
    no_tokenizer_ = error;  // who needs it will hear
  }
}

const Tokenizer& OpenedModel::NeedTokenizer() const {
  if (!tokenizer_) throw Error(*no_tokenizer_);
  return *tokenizer_;
}

bool OpenedModel::HasTemplate(const Arguments& args) const {
  return args.Given("chat-template-file") || (tokenizer_ && !tokenizer_->chat_template().empty());
}

PromptBuilder OpenedModel::Prompts(const Arguments& args, bool chat) {
  const Tokenizer& tokenizer = NeedTokenizer();
  if (!chat || !HasTemplate(args)) return PromptBuilder(tokenizer, nullptr);
  if (!chat_template_) {
    chat_template_ = std::make_unique<ChatTemplate>(TemplateSource(args, tokenizer));
  }
  return PromptBuilder(tokenizer, chat_template_.get());
}

const Kernels& ChooseKernels(const Arguments& args) {
  if (!args.Given("simd")) return BestKernels();
  const std::string target = args.values().Text("simd");
  if (const Kernels* kernels = FindKernels(target)) return *kernels;
  std::vector<std::string_view> names;
  for (const Kernels* kernels : AvailableKernels()) names.push_back(kernels->target);
  Fail(Code::kUsage, "--simd: {} cannot run here; this machine has {}", Quoted(target),
       fmt::join(names, ", "));
}

size_t ChooseThreads(const Arguments& args) {
  return args.Given("threads") ? args.values().Count("threads") : Workers::AvailableCores();
}

// Whole MiB, so that the number is one to read.
uint64_t DefaultKvMemory() {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  return std::max(AvailableMemory() / 4 / kMiB, uint64_t{16}) * kMiB;
}

SamplingParams SamplingFrom(const OptionValues& values) {
  SamplingParams params;
  params.temperature = static_cast<float>(values.Real("temp"));
  params.top_k = static_cast<uint32_t>(values.Count("top-k"));
  params.top_p = static_cast<float>(values.Real("top-p"));
  params.min_p = static_cast<float>(values.Real("min-p"));
  params.repeat_penalty = static_cast<float>(values.Real("repeat-penalty"));
  params.presence_penalty = static_cast<float>(values.Real("presence-penalty"));
  params.frequency_penalty = static_cast<float>(values.Real("frequency-penalty"));
  if (values.Given("seed")) params.seed = values.Count("seed");
  return params;
}

namespace {

// The text of a content that is a list of text parts and nothing else.
std::optional<std::string> JoinedParts(const TemplateValue& content) {
  if (content.list() == nullptr) return std::nullopt;
  std::string text;
  for (const TemplateValue& part : content.list()->items) {
    const TemplateValue* type = part.dict() == nullptr ? nullptr : part.dict()->Find("type");
    const TemplateValue* piece = part.dict() == nullptr ? nullptr : part.dict()->Find("text");
    if (type == nullptr || type->string() == nullptr || *type->string() != "text" ||
        piece == nullptr || piece->string() == nullptr) {
      return std::nullopt;
    }
    text += *piece->string();
  }
  return text;
}

}  // namespace

std::vector<ChatMessage> MessagesFromFile(const std::string& path, ContentParts parts) {
  TemplateValue document = ParseTemplateValue(ReadTextFile(path, "--messages"), path);
  if (document.dict() != nullptr && document.dict()->Find("messages") != nullptr) {
    document = TemplateValue(*document.dict()->Find("messages"));
  }
  std::vector<ChatMessage> messages = MessagesFrom(document, path);
  if (parts == ContentParts::kKeep) return messages;
  for (ChatMessage& message : messages) {
    if (message.whole.dict() == nullptr) continue;
    jinja::Dict whole = *message.whole.dict();
    const TemplateValue* content = whole.Find("content");
    const auto text = content == nullptr ? std::nullopt : JoinedParts(*content);
    if (!text.has_value()) continue;
    message.content = *text;
    whole.Set("content", TemplateValue::Of(*text));
    message.whole = whole.items.size() > 2 ? TemplateValue::Of(std::move(whole)) : TemplateValue();
  }
  return messages;
}

namespace {

uint32_t PrefixInterval(const OptionValues& values) {
  constexpr uint32_t kDefault = 256;
  const std::string text = values.Text("prefix-cache");
  if (text == "on") return kDefault;
  if (text == "off") return 0;
  uint32_t tokens = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tokens);
  if (error != std::errc() || end != text.data() + text.size() || tokens == 0) {
    Fail(Code::kUsage, "--prefix-cache: {}: on, off, or a number of tokens from 1", Quoted(text));
  }
  return tokens;
}

}  // namespace

std::unique_ptr<Model> LoadModel(const Arguments& args, const OpenedModel& opened,
                                 const Kernels& kernels, Workers& workers, uint32_t max_rows) {
  const bool exact = args.values().Text("compute") == "f32";
  ProgressBar bar("loading model");
  return Model::Load(opened.file(), kernels, workers,
                     {.compute = exact ? Compute::kExact : Compute::kFast, .max_rows = max_rows},
                     [&](double fraction) { bar.Update(fraction); });
}

Session::Session(const Arguments& args, OpenedModel& opened, bool batch,
                 const std::optional<std::string>& policy)
    : opened_(opened), kernels_(ChooseKernels(args)), workers_(ChooseThreads(args)) {
  const OptionValues& values = args.values();
  const bool exact = values.Text("compute") == "f32";
  EngineOptions options;
  if (policy || values.Has("kv-policy")) {
    options.policy = policy ? *policy : values.Text("kv-policy");
  }
  options.encoding = ParseCodecs(args, exact ? Codec::kF32 : Codec::kF16);
  options.context = values.Given("ctx-size") ? static_cast<uint32_t>(values.Count("ctx-size")) : 0;
  options.step_tokens = static_cast<uint32_t>(values.Count("step-tokens"));
  options.chunk = static_cast<uint32_t>(values.Count("chunk"));
  if (batch) options.max_sequences = static_cast<uint32_t>(values.Count("parallel"));
  if (args.verb().bit == kServe) options.prefix_interval = PrefixInterval(values);
  const bool kv_memory_given = values.Given("kv-memory");
  if (kv_memory_given) options.kv_memory = values.Size("kv-memory");
  // What a policy may keep can follow from the budget of one sequence, not from one that many
  // share.
  options.kv_memory_explicit = kv_memory_given && !batch;

  // A policy that contradicts itself is refused before weights are read.
  const ModelConfig& config = opened.file().config();
  MakePolicy(options.policy, {.memory_bytes = options.kv_memory_explicit ? options.kv_memory : 0,
                              .shape = LanesOf(config, options.encoding),
                              .facts = FactsOf(config)});

  // Scratch for a pass grows with its rows: one prompt needs no more than a chunk.
  model_ = LoadModel(args, opened, kernels_, workers_,
                     batch ? options.step_tokens : std::min(options.chunk, options.step_tokens));
  if (!kv_memory_given) {
    options.kv_memory = DefaultKvMemory();
    AddNotice(fmt::format("KV budget {}, a quarter of the free memory; --kv-memory sets another",
                          FormatSize(options.kv_memory)));
  }
  engine_ = std::make_unique<Engine>(*model_, opened.tokenizer(), kernels_, workers_, options);
  if (values.On("verbose")) {
    AddNotice(fmt::format("{}: {} on {} threads, weights {}, scratch {}", opened.name(),
                          kernels_.target, workers_.size(), FormatSize(model_->weight_bytes()),
                          FormatSize(model_->scratch_bytes())));
  }
}

Session::~Session() = default;

void Session::PrintNotices() {
  for (const std::string& line : notices_) Note(line);
  notices_.clear();
}

nlohmann::ordered_json KvJson(const Session& session, const Engine& engine, const KvUse& use) {
  const Ledger ledger = engine.ledger();
  return {{"policy", engine.policy() ? engine.policy()->Spec() : "none"},
          {"codec", Name(session.encoding())},
          {"positions", use.positions},
          {"entries_kept", use.entries_kept},
          {"entries_dropped", use.entries_dropped},
          {"bytes_peak", ledger.bytes_peak},
          {"bytes_end", use.bytes_end},
          {"bytes_side", use.bytes_side},
          {"budget_bytes", ledger.budget_bytes},
          {"bytes_tables", ledger.bytes_tables},
          {"bytes_reserved_peak", ledger.bytes_reserved_peak},
          {"entries_peak_per_lane", ledger.entries_peak_per_lane},
          {"cached", {{"tokens", 0}, {"tier", "none"}}},
          {"recalled", 0},
          {"recomputed", 0},
          {"rungs", nlohmann::ordered_json::array()}};
}

nlohmann::ordered_json MemoryJson() {
  return {{"resident_bytes", ResidentBytes()}, {"resident_peak_bytes", PeakResidentBytes()}};
}

}  // namespace kvasir
