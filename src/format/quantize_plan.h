// What each tensor of a model becomes when the model is quantized: the rules of llama.cpp's tools,
// so that a file made here has the types that a reader of its name expects.
//
// Matrices ("….weight" of two and more dimensions, norms excepted) take the target's type, all else
// is F32. The exceptions are the output matrix (or a tied embedding) and, in Q4_K_M, half of the
// value and down projections: the layers whose errors reach the output least diminished get more
// bits. Rows that a type's blocks do not divide take a type of blocks of 32, or F16.
//
// Errors   kUsage for unknown names.
// Threads  No state: any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/model_config.h"
#include "format/tensor_recoder.h"
#include "tensor/dtype.h"

namespace kvasir {

// A kind of file, by the name that llama.cpp's tools give it.
struct QuantizeTarget {
  std::string_view name;  // "Q4_K_M"
  uint32_t file_type;     // general.file_type
  DType dtype;            // of most matrices
};
// In any case: "q4_k_m".
const QuantizeTarget& FindQuantizeTarget(std::string_view name);
// All names in lower case, for help and errors: "f32, f16, …".
std::string QuantizeTargetNames();

struct TensorPlan {
  DType wanted = DType::kF32;
  DType dtype = DType::kF32;  // wanted, or what takes its place
  bool fell_back() const { return wanted != dtype; }
};
TensorPlan PlanTensor(const QuantizeTarget& target, const ModelConfig& config,
                      const SourceTensor& tensor);

}  // namespace kvasir
