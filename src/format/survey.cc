#include "format/survey.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "format/gguf_parts.h"
#include "format/hf_folder.h"
#include "format/json.h"
#include "format/model_tensors.h"
#include "format/quote.h"

namespace kvasir {

namespace {

namespace fs = std::filesystem;

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
  problems.Try([&] {
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

// "model_type", whatever else is wrong.
std::string StatedArchitecture(const std::string& text, const std::string& where) {
  const nlohmann::json config = ParseJson(text, where);
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  return type != config.end() && type->is_string() ? type->get<std::string>() : std::string();
}

ModelSurvey SurveyFolder(const std::string& path) {
  ModelSurvey survey;
  survey.kind = ModelFile::Kind::kHuggingFace;
  Problems problems(&survey.problems);
  HfFolder folder = OpenHfFolder(path, problems);
  survey.architecture =
      StatedArchitecture(folder.config_text, (fs::path(path) / "config.json").string());
  survey.config_text = std::move(folder.config_text);
  survey.config = std::move(folder.config);
  for (const MappedFile& file : folder.files) {
    survey.files.push_back(file.path());
    survey.file_bytes += file.bytes().size();
  }
  for (HfFolder::Tensor& tensor : folder.tensors) {
    SafeTensor& info = tensor.info;
    survey.tensors.push_back(
        {std::move(info.name), std::move(info.type), InnermostFirst(info), info.bytes});
  }
  if (survey.config && !survey.tensors.empty()) CheckTensors(survey, path, problems);
  return survey;
}

}  // namespace

ModelSurvey SurveyModel(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) ? SurveyFolder(path) : SurveyGgufFile(path);
}

}  // namespace kvasir
