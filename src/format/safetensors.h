// The container safetensors: a JSON header that names tensors, then their bytes.
//
// After a successful parse every tensor has a known type and exactly the bytes its shape asks for,
// and the tensors cover the data without holes or overlaps.
//
// Cost     The header (bounded by kMaxSafetensorsHeader); tensor data is not touched.
// Errors   kCorrupt (what, where, what would be right); kUnsupported naming a tensor's type.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "format/problems.h"
#include "tensor/dtype.h"

namespace kvasir {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the format's own limit

struct SafeTensor {
  std::string name;
  // Outermost first, as written; empty for a scalar; zeros are allowed.
  std::vector<uint64_t> shape;
  std::string type;           // "F16", or one that is not known in a survey
  DType dtype = DType::kF32;  // F32, F16 or BF16
  uint64_t offset = 0;        // of the first byte, from the start of the file
  uint64_t bytes = 0;
};

// The shape innermost first, as GGUF has it; a scalar is one element.
std::vector<uint64_t> InnermostFirst(const SafeTensor& tensor);

struct Safetensors {
  std::map<std::string, std::string> metadata;  // "__metadata__"
  std::vector<SafeTensor> tensors;              // by offset
};

// `name` opens error messages.
Safetensors ParseSafetensors(std::span<const uint8_t> bytes, const std::string& name);

// The same for files that are looked at and not run: tensors of unknown types are problems, and
// stay in the list without a meaningful dtype. Everything else is still thrown.
Safetensors SurveySafetensors(std::span<const uint8_t> bytes, const std::string& name,
                              Problems& problems);

}  // namespace kvasir
