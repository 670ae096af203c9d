#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/codec.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "format/json.h"
#include "format/quote.h"
#include "format/survey.h"
#include "kv/lane_set.h"
#include "server/openai.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir {

namespace {

using nlohmann::ordered_json;

constexpr size_t kShortText = 64;    // bytes of a value that a listing shows
constexpr size_t kShortArray = 4;    // elements
constexpr size_t kSpecialRows = 40;  // special tokens listed for people

struct ToJson {
  template <typename T>
  ordered_json operator()(const T& value) const {
    return value;
  }
  ordered_json operator()(const std::vector<bool>& values) const {
    ordered_json list = ordered_json::array();
    for (const bool value : values) list.push_back(value);
    return list;
  }
  ordered_json operator()(const MetadataArray& array) const {
    return std::visit(ToJson{}, array.values);
  }
};

// The same, at most kShortArray elements of an array.
struct ToShortJson {
  template <typename T>
  ordered_json operator()(const T& value) const {
    return value;
  }
  ordered_json operator()(const MetadataArray& array) const {
    return std::visit(
        [](const auto& values) {
          ordered_json list = ordered_json::array();
          for (size_t i = 0; i < std::min(values.size(), kShortArray); ++i) {
            list.push_back(ToJson{}(
                static_cast<typename std::decay_t<decltype(values)>::value_type>(values[i])));
          }
          return list;
        },
        array.values);
  }
};

std::string_view TypeName(GgufType type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<size_t>(type)];
}

// Cut where it is long, and not inside a letter.
void Shorten(ordered_json* value) {
  if (value->is_array()) {
    for (ordered_json& item : *value) Shorten(&item);
    return;
  }
  if (!value->is_string()) return;
  auto& text = value->get_ref<std::string&>();
  if (text.size() <= kShortText) return;
  size_t end = kShortText;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text = text.substr(0, end) + "…";
}

// {"key", "type", "value"}, long values cut; with "length" what they are cut from.
ordered_json KeyRow(const std::string& key, std::string type, ordered_json value, size_t length) {
  ordered_json row = {{"key", key}, {"type", std::move(type)}};
  const bool is_text = value.is_string();
  if (value.is_array() || (is_text && length > kShortText)) row["length"] = length;
  Shorten(&value);
  row["value"] = std::move(value);
  return row;
}

ordered_json GgufKeys(const Metadata& metadata) {
  std::vector<std::pair<const std::string*, const MetadataEntry*>> entries;
  for (const auto& [key, entry] : metadata.all()) entries.emplace_back(&key, &entry);
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.second->place < b.second->place; });
  ordered_json rows = ordered_json::array();
  for (const auto& [key, entry] : entries) {
    const auto* array = std::get_if<MetadataArray>(&entry->value);
    const auto* text = std::get_if<std::string>(&entry->value);
    std::string type(TypeName(entry->type));
    if (array != nullptr) type = "array of " + type;
    const size_t length = array != nullptr ? array->size() : text != nullptr ? text->size() : 0;
    rows.push_back(KeyRow(*key, std::move(type), std::visit(ToShortJson{}, entry->value), length));
  }
  return rows;
}

ordered_json FolderKeys(const ordered_json& config) {
  ordered_json rows = ordered_json::array();
  for (const auto& [key, value] : config.items()) {
    const size_t length =
        value.is_string() ? value.get_ref<const std::string&>().size() : value.size();
    ordered_json shown = value;
    if (shown.is_array() && shown.size() > kShortArray)
      shown.erase(shown.begin() + kShortArray, shown.end());
    if (shown.is_object()) shown = DumpJson(shown);
    rows.push_back(KeyRow(key, value.type_name(), std::move(shown), length));
  }
  return rows;
}

// What surveys say, and what is found on the way.
class Inspection {
 public:
  explicit Inspection(const std::string& path) : path_(path), survey_(SurveyModel(path)) {
    if (!survey_.config_text.empty()) {
      ParseJson(survey_.config_text, path_);  // stricter than the library
      folder_config_ = ordered_json::parse(survey_.config_text);
    }
    for (const Error& error : survey_.problems) problems_.push_back(error.what());
  }

  ordered_json Report(bool tensors);
  // Errors: kNotFound.
  ordered_json ValueOf(const std::string& key) const;

 private:
  bool is_gguf() const { return survey_.kind == ModelFile::Kind::kGguf; }
  std::unique_ptr<Tokenizer> OpenTokenizer() const;
  void AddTypes(ordered_json* report) const;
  void AddShape(ordered_json* report) const;
  void AddText(ordered_json* report);
  ordered_json Tensors() const;

  std::string path_;
  ModelSurvey survey_;
  ordered_json folder_config_;
  ordered_json problems_ = ordered_json::array();
};

ordered_json Inspection::Report(bool tensors) {
  ordered_json report = {{"kind", is_gguf() ? "gguf" : "huggingface"},
                         {"path", path_},
                         {"files", survey_.files},
                         {"bytes", survey_.file_bytes}};
  report["architecture"] =
      survey_.architecture.empty() ? ordered_json() : ordered_json(survey_.architecture);
  AddShape(&report);
  AddTypes(&report);
  report["keys"] = is_gguf() ? GgufKeys(survey_.metadata) : FolderKeys(folder_config_);
  AddText(&report);
  if (tensors) report["tensors"] = Tensors();
  report["problems"] = problems_;
  return report;
}

ordered_json Inspection::ValueOf(const std::string& key) const {
  const MetadataValue* value = survey_.metadata.Find(key);
  if (value != nullptr) return std::visit(ToJson{}, *value);
  const auto found = folder_config_.find(key);
  if (found != folder_config_.end()) return *found;
  Fail(Code::kNotFound, "--kv: {} is no key of {}", Quoted(key), path_);
}

void Inspection::AddShape(ordered_json* report) const {
  if (!survey_.config) {
    for (const char* key : {"shape", "context", "kv_bytes_per_token"}) (*report)[key] = nullptr;
    return;
  }
  const ModelConfig& c = *survey_.config;
  (*report)["shape"] = {{"layers", c.n_layers},
                        {"hidden", c.hidden},
                        {"heads", c.n_heads},
                        {"kv_heads", c.n_kv_heads},
                        {"head_dim", c.head_dim},
                        {"intermediate", c.intermediate},
                        {"vocabulary", c.vocab_size},
                        {"norm_eps", c.norm_eps},
                        {"rope_theta", c.rope.theta},
                        {"rope_interleaved", c.rope.interleaved},
                        {"rope_scaling", Name(c.rope.scaling)},
                        {"rope_factor", c.rope.factor},
                        {"sliding_window", c.sliding_window},
                        {"tied_embeddings", c.tied_embeddings}};
  (*report)["context"] = c.context_length;
  ordered_json bytes = ordered_json::object();
  const auto add = [&](const Encoding& encoding) {
    const LaneShape shape = LanesOf(c, encoding);
    bytes[Name(encoding)] = shape.lanes() * shape.EntryBytes();
  };
  for (const CodecName& row : AllCodecs()) add({.k = row.codec, .v = row.codec});
  // Behind the window.
  for (const char* sparsity : {"0.5", "0.7"}) {
    add(ParseEncoding({fmt::format("mustafar:sparsity={}", sparsity)}, Codec::kF16));
  }
  (*report)["kv_bytes_per_token"] = std::move(bytes);
}

void Inspection::AddTypes(ordered_json* report) const {
  std::map<std::string, uint64_t> counts, bytes;
  for (const SurveyedTensor& tensor : survey_.tensors) {
    std::string name = tensor.type;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    ++counts[name];
    bytes[name] += tensor.bytes;
  }
  (*report)["types"] = counts;
  (*report)["type_bytes"] = bytes;
}

ordered_json Inspection::Tensors() const {
  ordered_json list = ordered_json::array();
  for (const SurveyedTensor& tensor : survey_.tensors) {
    list.push_back({{"name", tensor.name},
                    {"type", tensor.type},
                    {"shape", tensor.shape},
                    {"bytes", tensor.bytes == 0 ? ordered_json() : ordered_json(tensor.bytes)}});
  }
  return list;
}

// Null where the files have none.
std::unique_ptr<Tokenizer> Inspection::OpenTokenizer() const {
  if (is_gguf()) {
    const bool has = survey_.metadata.Has("tokenizer.ggml.model");
    return has ? Tokenizer::FromGguf(survey_.metadata) : nullptr;
  }
  try {
    return Tokenizer::FromFolder(path_);
  } catch (const Error& error) {
    if (error.code() == Code::kNotFound) return nullptr;
    throw;
  }
}

// Tokenizer and template, with what is wrong with them as problems instead of errors.
void Inspection::AddText(ordered_json* report) {
  ordered_json special = ordered_json::array();
  ordered_json tokenizer_name = nullptr, chat_template = nullptr, ids = nullptr;
  const auto id_or_null = [](TokenId id) {
    return id == kNoToken ? ordered_json() : ordered_json(id);
  };
  try {
    if (const std::unique_ptr<Tokenizer> tokenizer = OpenTokenizer()) {
      tokenizer_name = tokenizer->name();
      for (size_t i = 0; i < tokenizer->vocab_size(); ++i) {
        const auto id = static_cast<TokenId>(i);
        if (tokenizer->IsControl(id)) special.push_back(tokenizer->Piece(id, /*special=*/true));
      }
      ids = {{"bos", id_or_null(tokenizer->bos())},
             {"eos", id_or_null(tokenizer->eos())},
             {"ends", tokenizer->ends()},
             {"add_bos", tokenizer->add_bos()}};
      if (survey_.config && tokenizer->vocab_size() > survey_.config->vocab_size) {
        problems_.push_back(fmt::format("{}: the tokenizer has {} tokens, the model {}", path_,
                                        tokenizer->vocab_size(), survey_.config->vocab_size));
      }
      if (!tokenizer->chat_template().empty()) {
        chat_template = tokenizer->chat_template();
        const ChatTemplate parsed(tokenizer->chat_template());
      }
    } else {
      problems_.push_back("no tokenizer that can be read: only token ids can be given");
    }
  } catch (const Error& error) {
    problems_.push_back(error.what());
  }
  (*report)["tokenizer"] = tokenizer_name;
  (*report)["template"] = chat_template;
  (*report)["special_tokens"] = special;
  (*report)["special_ids"] = ids;
}

// ---- for people --------------------------------------------------------------------------------

// On one line, and nothing a terminal would obey.
std::string Plain(const ordered_json& value) {
  if (value.is_null()) return "unknown";
  const std::string text = DumpJson(value);
  if (!value.is_string()) return text;
  std::string plain;
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    if (text[i] == '\\' && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
    plain += text[i];
  }
  return plain;
}

std::string KeyLine(const ordered_json& row) {
  std::string type = row["type"].get<std::string>();
  if (row.contains("length")) type += fmt::format("[{}]", row["length"].get<size_t>());
  return fmt::format("  {:<44} {:<22} {}\n", Plain(row["key"]), type, DumpJson(row["value"]));
}

std::string TensorLine(const ordered_json& tensor) {
  return fmt::format("  {:<40} {:<7} {:<20} {}\n", Plain(tensor["name"]), Plain(tensor["type"]),
                     DumpJson(tensor["shape"]), Plain(tensor["bytes"]));
}

std::string List(const std::string& key, const ordered_json& values) {
  if (key == "files" && values.size() == 1) return {};
  std::string text =
      fmt::format("{:<20} {}\n", key, values.empty() ? "none" : fmt::format("{}", values.size()));
  const size_t shown =
      key == "special_tokens" ? std::min(values.size(), kSpecialRows) : values.size();
  for (size_t i = 0; i < shown; ++i) {
    if (key == "keys") {
      text += KeyLine(values[i]);
    } else if (key == "tensors") {
      text += TensorLine(values[i]);
    } else if (key == "special_tokens") {
      text += fmt::format("  {}\n", DumpJson(values[i]));
    } else {
      text += fmt::format("  {}\n", Plain(values[i]));
    }
  }
  if (shown < values.size()) {
    text += fmt::format("  and {} more, which --json lists\n", values.size() - shown);
  }
  return text;
}

std::string ForPeople(const ordered_json& report) {
  std::string text;
  for (const auto& [key, value] : report.items()) {
    if (key == "template") {
      text += fmt::format("{:<20} {}\n", key, value.is_null() ? "none" : "yes");
    } else if (value.is_array()) {
      text += List(key, value);
    } else if (value.is_object()) {
      text += key + '\n';
      for (const auto& [name, item] : value.items()) {
        text += fmt::format("  {:<18} {}\n", name, DumpJson(item));
      }
    } else {
      text += fmt::format("{:<20} {}\n", key, Plain(value));
    }
  }
  return text;
}

}  // namespace

void InspectVerb(const Arguments& args) {
  if (!args.Given("model")) Fail(Code::kUsage, "inspect: give a file, a folder or a model's name");
  Output output(args);
  Inspection inspection(ResolveModel(args.values().Text("model"), ModelsDir()));
  const std::string key = args.Given("kv") ? args.values().Text("kv") : "";
  if (args.Given("kv") && !output.json()) {
    const ordered_json value = inspection.ValueOf(key);
    output.Text((value.is_string() ? value.get<std::string>() : DumpJson(value)) + "\n");
    return;
  }
  ordered_json report = inspection.Report(args.values().On("tensors"));
  if (args.Given("kv")) {
    report["kv"] = ordered_json::object();
    report["kv"][key] = inspection.ValueOf(key);
  }
  if (output.json()) {
    output.Json(report);
  } else {
    output.Text(ForPeople(report));
  }
}

}  // namespace kvasir
