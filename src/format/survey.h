// What a model's files hold and everything in them that would be refused, for people to look at. A
// file that cannot be run can still be surveyed: vocabularies alone, unknown architectures and
// types, parts that are missing.
//
// Cost     Headers and tables; tensor data is never touched, so files may be larger than memory.
// Errors   Those of files that cannot be read at all: kNotFound, kIo, kCorrupt headers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/metadata.h"
#include "format/model_config.h"
#include "format/model_file.h"

namespace kvasir {

struct SurveyedTensor {
  std::string name;             // GGUF's, where it has one
  std::string type;             // as the format calls it: "Q4_K", "IQ2_XXS", "BF16"
  std::vector<uint64_t> shape;  // innermost dimension first
  uint64_t bytes = 0;           // 0: not known
};

struct ModelSurvey {
  ModelFile::Kind kind = ModelFile::Kind::kGguf;
  std::vector<std::string> files;  // with tensors, those that could be read
  uint64_t file_bytes = 0;         // of these
  Metadata metadata;               // of GGUF
  std::string config_text;         // config.json of a folder
  std::string architecture;        // as the file says; empty: it does not
  std::optional<ModelConfig> config;
  std::vector<SurveyedTensor> tensors;
  std::vector<Error> problems;
};

ModelSurvey SurveyModel(const std::string& path);

}  // namespace kvasir
