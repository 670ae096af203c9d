// The files of a Hugging Face folder: config.json, and model.safetensors or the shards that
// model.safetensors.index.json lists.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "format/model_config.h"
#include "format/problems.h"
#include "format/safetensors.h"

namespace kvasir {

struct HfFolder {
  struct Tensor {
    SafeTensor info;  // under GGUF's name
    size_t file = 0;  // index into files
  };
  std::string config_text;            // config.json
  std::optional<ModelConfig> config;  // none: config.json is refused
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;  // file by file, by offset
};

// Errors: kNotFound for missing files, those of ParseHfConfig, ParseShardIndex and
// ParseSafetensors, kCorrupt where index and files disagree.
HfFolder OpenHfFolder(const std::string& path);
// What can be read of it, config.json at least, and why the rest cannot.
HfFolder OpenHfFolder(const std::string& path, Problems& problems);

}  // namespace kvasir
