// The files of a Hugging Face folder: config.json, and model.safetensors or the shards that
// model.safetensors.index.json lists.
#pragma once

#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "format/model_config.h"
#include "format/safetensors.h"

namespace kvasir {

struct HfFolder {
  struct Tensor {
    SafeTensor info;  // under GGUF's name
    size_t file = 0;  // index into files
  };
  ModelConfig config;
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;  // file by file, by offset
};

// Errors: kNotFound for missing files, those of ParseHfConfig, ParseShardIndex and
// ParseSafetensors, kCorrupt where index and files disagree.
HfFolder OpenHfFolder(const std::string& path);

}  // namespace kvasir
