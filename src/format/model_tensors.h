// The tensors that a configuration asks for (format/model_file.h lists them) against those a file
// has.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "format/model_config.h"
#include "format/problems.h"

namespace kvasir {

// By GGUF's name; innermost dimension first.
using TensorShapes = std::map<std::string, std::vector<uint64_t>, std::less<>>;

// Problems: kCorrupt for what is missing or of another shape, kUnsupported for tensors whose
// presence means that the model computes something this engine does not.
void CheckModelTensors(const ModelConfig& config, const TensorShapes& tensors,
                       const std::string& where, Problems& problems);

}  // namespace kvasir
