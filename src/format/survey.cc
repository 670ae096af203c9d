#include "format/survey.h"

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/mapped_file.h"
#include "format/gguf_parts.h"
#include "format/hf_config.h"
#include "format/json.h"
#include "format/model_tensors.h"
#include "format/quote.h"
#include "format/safetensors.h"

namespace kvasir {

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxJsonFile = size_t{64} << 20;  // as where models are opened

// Keeps what `step` throws.
template <typename F>
void Try(Problems& problems, F&& step) {
  try {
    step();
  } catch (const Error& error) {
    problems.Add(error);
  }
}

const SurveyedTensor* Find(const ModelSurvey& survey, std::string_view name) {
  for (const SurveyedTensor& tensor : survey.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

void CheckTensors(const ModelSurvey& survey, const std::string& where, Problems& problems) {
  TensorShapes shapes;
  for (const SurveyedTensor& tensor : survey.tensors) {
    if (!shapes.emplace(tensor.name, tensor.shape).second) {
      problems.Add(Code::kCorrupt, "{}: the tensor {} occurs twice", where, Quoted(tensor.name));
    }
  }
  CheckModelTensors(*survey.config, shapes, where, problems);
}

ModelSurvey SurveyGgufFile(const std::string& path) {
  ModelSurvey survey;
  Problems problems(&survey.problems);
  for (GgufPart& part : OpenGguf(path, problems)) {
    if (survey.files.empty()) survey.metadata = std::move(part.gguf.metadata);
    survey.files.push_back(part.file.path());
    survey.file_bytes += part.bytes.size();
    for (GgufTensor& tensor : part.gguf.tensors) {
      survey.tensors.push_back({std::move(tensor.name), GgufTypeName(tensor.type),
                                std::move(tensor.shape), tensor.bytes});
    }
  }
  const Metadata& metadata = survey.metadata;
  if (metadata.Uint("split.no", 0) > 0)
    return survey;  // a later part alone: the keys are elsewhere
  if (survey.tensors.empty()) {
    problems.Add(Code::kCorrupt, "{}: holds no tensors (a vocabulary-only file?)", path);
  }
  Try(problems, [&] {
    survey.architecture = metadata.String("general.architecture");
    const SurveyedTensor* embedding = Find(survey, "token_embd.weight");
    const bool is_matrix = embedding != nullptr && embedding->shape.size() > 1;
    survey.config = ConfigFromGguf(metadata, is_matrix ? embedding->shape[1] : 0, path);
    survey.config->tied_embeddings = Find(survey, "output.weight") == nullptr;
  });
  if (survey.config && !survey.tensors.empty()) CheckTensors(survey, path, problems);
  return survey;
}

// ---- Hugging Face folders ----------------------------------------------------------------------

std::string ReadJsonText(const fs::path& path) {
  const MappedFile file(path.string());
  if (file.bytes().size() > kMaxJsonFile) {
    Fail(Code::kCorrupt, "{}: {} bytes; up to {} are expected", file.path(), file.bytes().size(),
         kMaxJsonFile);
  }
  return {file.bytes().begin(), file.bytes().end()};
}

// "model_type", whatever else is wrong.
std::string StatedArchitecture(const std::string& text, const std::string& where) {
  const nlohmann::json config = ParseJson(text, where);
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  return type != config.end() && type->is_string() ? type->get<std::string>() : std::string();
}

// `listed`: the tensors that the index places in this file; null: all belong to the model.
void AddFile(ModelSurvey& survey, const fs::path& path, const std::set<std::string>* listed,
             Problems& problems) {
  const MappedFile file(path.string());
  Safetensors parsed = SurveySafetensors(file.bytes(), file.path(), problems);
  size_t found = 0;
  for (SafeTensor& tensor : parsed.tensors) {
    if (listed != nullptr && !listed->contains(tensor.name)) continue;
    ++found;
    std::vector<uint64_t> shape(tensor.shape.rbegin(), tensor.shape.rend());
    if (shape.empty()) shape.push_back(1);
    std::string name = GgufTensorName(tensor.name);
    if (survey.config && survey.config->tied_embeddings && name == "output.weight") continue;
    survey.tensors.push_back(
        {std::move(name), std::move(tensor.type), std::move(shape), tensor.bytes});
  }
  if (listed != nullptr && found != listed->size()) {
    problems.Add(Code::kCorrupt, "{}: holds {} of the {} tensors that the index places here",
                 file.path(), found, listed->size());
  }
  survey.files.push_back(file.path());
  survey.file_bytes += file.bytes().size();
}

void AddFiles(ModelSurvey& survey, const fs::path& root, Problems& problems) {
  const fs::path whole = root / "model.safetensors", index = root / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(whole, ignored)) {
    Try(problems, [&] { AddFile(survey, whole, nullptr, problems); });
    return;
  }
  if (!fs::exists(index, ignored)) {
    problems.Add(Code::kNotFound, "{}: neither model.safetensors nor model.safetensors.index.json",
                 root.string());
    return;
  }
  std::map<std::string, std::set<std::string>> shards;
  for (auto& [tensor, shard] : ParseShardIndex(ReadJsonText(index), index.string())) {
    shards[shard].insert(tensor);
  }
  for (const auto& [shard, tensors] : shards) {
    Try(problems, [&] { AddFile(survey, root / shard, &tensors, problems); });
  }
}

ModelSurvey SurveyFolder(const std::string& path) {
  ModelSurvey survey;
  survey.kind = ModelFile::Kind::kHuggingFace;
  Problems problems(&survey.problems);
  const std::string where = (fs::path(path) / "config.json").string();
  survey.config_text = ReadJsonText(where);
  survey.architecture = StatedArchitecture(survey.config_text, where);
  Try(problems, [&] { survey.config = ParseHfConfig(survey.config_text, where); });
  Try(problems, [&] { AddFiles(survey, path, problems); });
  if (survey.config && !survey.tensors.empty()) CheckTensors(survey, path, problems);
  return survey;
}

}  // namespace

ModelSurvey SurveyModel(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) ? SurveyFolder(path) : SurveyGgufFile(path);
}

}  // namespace kvasir
