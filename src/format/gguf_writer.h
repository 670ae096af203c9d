// Writes GGUF files, version 3: key-values and the table at once, tensor data as it comes.
//
// What ParseGguf read and this writes again is read alike: the same keys in the same order with the
// same types, the same tensors, the same bytes.
//
// Cost     The header in memory; of tensor data nothing.
// Errors   kInvalid for what the format cannot hold; kIo. The file appears whole or not at all.
// Threads  One.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/whole_file.h"
#include "format/gguf.h"

namespace kvasir {

// A tensor to write. Its bytes follow from type and shape.
struct GgufTensorPlan {
  std::string name;
  std::vector<uint64_t> shape;  // innermost first
  DType dtype = DType::kF32;
  uint64_t bytes() const;
};

// What is in front of the data: magic, counts, key-values, table, padding. Data lies behind it in
// the order of `tensors`, each padded to the alignment that the key general.alignment states.
std::string GgufHeader(const Metadata& metadata, std::span<const GgufTensorPlan> tensors);

class GgufWriter {
 public:
  GgufWriter(std::string path, const Metadata& metadata, std::vector<GgufTensorPlan> tensors);

  // The next bytes of the tensors, in their order; a piece lies within one tensor.
  void Write(std::span<const uint8_t> bytes);
  // After the last byte of the last tensor: the file takes its name.
  void Finish();

 private:
  void PadTensor();

  WholeFile file_;
  std::vector<GgufTensorPlan> tensors_;
  uint64_t alignment_;
  size_t tensor_ = 0;     // the one that comes
  uint64_t written_ = 0;  // of its bytes
};

}  // namespace kvasir
