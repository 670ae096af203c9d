#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/codec.h"
#include "cli/names.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "format/model_file.h"
#include "format/quote.h"
#include "kv/lane_set.h"
#include "tensor/dtype.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir {

namespace {

using nlohmann::ordered_json;

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

ordered_json Shape(const ModelConfig& c) {
  return {{"layers", c.n_layers},
          {"hidden", c.hidden},
          {"heads", c.n_heads},
          {"kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"intermediate", c.intermediate},
          {"vocabulary", c.vocab_size},
          {"norm_eps", c.norm_eps},
          {"rope_theta", c.rope.theta},
          {"rope_interleaved", c.rope.interleaved},
          {"tied_embeddings", c.tied_embeddings}};
}

ordered_json KvBytesPerToken(const ModelConfig& c) {
  ordered_json bytes = ordered_json::object();
  for (const CodecName& row : AllCodecs()) {
    const LaneShape shape = {.n_layers = c.n_layers,
                             .n_kv_heads = c.n_kv_heads,
                             .head_dim = c.head_dim,
                             .k_codec = row.codec,
                             .v_codec = row.codec};
    bytes[std::string(row.name)] = shape.lanes() * shape.EntryBytes();
  }
  return bytes;
}

ordered_json Types(const ModelFile& file) {
  std::map<std::string, uint64_t> types;
  for (const TensorEntry& tensor : file.tensors()) {
    std::string name(Info(tensor.view.dtype).name);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    ++types[name];
  }
  return types;
}

ordered_json Tensors(const ModelFile& file) {
  ordered_json list = ordered_json::array();
  for (const TensorEntry& tensor : file.tensors()) {
    list.push_back({{"name", tensor.name},
                    {"type", Info(tensor.view.dtype).name},
                    {"shape", tensor.shape},
                    {"bytes", tensor.view.bytes()}});
  }
  return list;
}

// Tokenizer and template, with what is wrong with them as problems instead of errors.
void DescribeText(const ModelFile& file, ordered_json* out) {
  ordered_json problems = ordered_json::array(), special = ordered_json::array();
  ordered_json tokenizer_name = nullptr, chat_template = nullptr, ids = nullptr;
  if (!file.metadata().Has("tokenizer.ggml.model")) {
    problems.push_back("no tokenizer that can be read: only token ids can be given");
  } else {
    try {
      const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::FromGguf(file.metadata());
      tokenizer_name = tokenizer->name();
      for (size_t i = 0; i < tokenizer->vocab_size(); ++i) {
        const auto id = static_cast<TokenId>(i);
        if (tokenizer->IsControl(id)) special.push_back(tokenizer->Piece(id, /*special=*/true));
      }
      ids = {
          {"bos", tokenizer->bos() == kNoToken ? ordered_json() : ordered_json(tokenizer->bos())},
          {"eos", tokenizer->eos() == kNoToken ? ordered_json() : ordered_json(tokenizer->eos())},
          {"ends", tokenizer->ends()},
          {"add_bos", tokenizer->add_bos()}};
      if (!tokenizer->chat_template().empty()) {
        chat_template = tokenizer->chat_template();
        const ChatTemplate parsed(tokenizer->chat_template());
      }
    } catch (const Error& error) {
      problems.push_back(error.what());
    }
  }
  (*out)["tokenizer"] = tokenizer_name;
  (*out)["template"] = chat_template;
  (*out)["special_tokens"] = special;
  (*out)["special_ids"] = ids;
  (*out)["problems"] = problems;
}

std::string ForPeople(const ordered_json& report) {
  std::string text;
  for (const auto& [key, value] : report.items()) {
    if (key == "template") {
      text += fmt::format("{:<20} {}\n", key, value.is_null() ? "none" : "yes");
    } else if (key == "tensors") {
      for (const ordered_json& tensor : value) {
        text += fmt::format("  {:<40} {:<6} {:<20} {}\n", tensor["name"].get<std::string>(),
                            tensor["type"].get<std::string>(), tensor["shape"].dump(),
                            tensor["bytes"].get<uint64_t>());
      }
    } else if (key == "special_tokens") {
      text += fmt::format("{:<20} {} tokens\n", key, value.size());
    } else if (value.is_object()) {
      text += key + '\n';
      for (const auto& [name, item] : value.items()) {
        text += fmt::format("  {:<18} {}\n", name, item.dump());
      }
    } else if (key == "problems") {
      text += fmt::format("{:<20} {}\n", key, value.empty() ? "none" : "");
      for (const ordered_json& problem : value) {
        text += fmt::format("  {}\n", problem.get<std::string>());
      }
    } else {
      text += fmt::format("{:<20} {}\n", key,
                          value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  return text;
}

ordered_json ValueOf(const ModelFile& file, const std::string& key) {
  const MetadataValue* value = file.metadata().Find(key);
  if (!value) Fail(Code::kNotFound, "--kv: {} is no key of {}", Quoted(key), file.path());
  return std::visit(ToJson{}, *value);
}

}  // namespace

void InspectVerb(const Arguments& args) {
  if (!args.Given("model")) Fail(Code::kUsage, "inspect: give a file, a folder or a model's name");
  Output output(args);
  const ModelFile file = ModelFile::Open(ResolveModel(args.values().Text("model"), ModelsDir()));
  const ModelConfig& config = file.config();

  if (args.Given("kv") && !output.json()) {
    const ordered_json value = ValueOf(file, args.values().Text("kv"));
    output.Text((value.is_string() ? value.get<std::string>() : value.dump()) + "\n");
    return;
  }
  ordered_json report = {
      {"kind", file.kind() == ModelFile::Kind::kGguf ? "gguf" : "huggingface"},
      {"path", file.path()},
      {"bytes", file.file_bytes()},
      {"architecture", config.architecture},
      {"shape", Shape(config)},
      {"types", Types(file)},
      {"context", config.context_length},
      {"kv_bytes_per_token", KvBytesPerToken(config)},
  };
  DescribeText(file, &report);
  if (args.values().On("tensors")) report["tensors"] = Tensors(file);
  if (args.Given("kv")) {
    const std::string key = args.values().Text("kv");
    report["kv"] = ordered_json::object();
    report["kv"][key] = ValueOf(file, key);
  }
  if (output.json()) {
    output.Json(report);
  } else {
    output.Text(ForPeople(report));
  }
}

}  // namespace kvasir
