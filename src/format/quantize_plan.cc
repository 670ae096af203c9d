#include "format/quantize_plan.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

// Numbers of general.file_type as GGUF's specification lists them.
constexpr QuantizeTarget kTargets[] = {
    {"F32", 0, DType::kF32},   {"F16", 1, DType::kF16},      {"BF16", 32, DType::kBF16},
    {"Q8_0", 7, DType::kQ8_0}, {"Q6_K", 18, DType::kQ6_K},   {"Q5_0", 8, DType::kQ5_0},
    {"Q5_1", 9, DType::kQ5_1}, {"Q4_K_M", 15, DType::kQ4_K}, {"Q4_0", 2, DType::kQ4_0},
    {"Q4_1", 3, DType::kQ4_1},
};

char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool EqualInAnyCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return ToLower(x) == ToLower(y); });
}

bool IsMatrix(const SourceTensor& tensor) {
  return tensor.shape.size() > 1 && tensor.name.ends_with("weight") &&
         !tensor.name.ends_with("_norm.weight");
}

// Of "blk.N.…"; nothing for other names.
bool LayerOf(std::string_view name, uint32_t* layer) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return false;
  const char* begin = name.data() + kPrefix.size();
  return std::from_chars(begin, name.data() + name.size(), *layer).ec == std::errc();
}

// The layers that Q4_K_M spends bits on: the first and last eighths, and every third between.
bool UsesMoreBits(uint32_t layer, uint32_t n_layers) {
  const uint32_t eighth = n_layers / 8;
  return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

DType WantedType(const QuantizeTarget& target, const ModelConfig& config,
                 const SourceTensor& tensor) {
  const bool blocks = Info(target.dtype).block > 1;
  const std::string_view output = config.tied_embeddings ? "token_embd.weight" : "output.weight";
  if (tensor.name == output && blocks && target.dtype != DType::kQ8_0) {
    return tensor.shape[0] % Info(DType::kQ6_K).block == 0 ? DType::kQ6_K : DType::kQ8_0;
  }
  uint32_t layer = 0;
  if (target.dtype == DType::kQ4_K && LayerOf(tensor.name, &layer)) {
    const bool sensitive =
        tensor.name.ends_with(".attn_v.weight") || tensor.name.ends_with(".ffn_down.weight");
    if (sensitive && UsesMoreBits(layer, config.n_layers)) return DType::kQ6_K;
  }
  return target.dtype;
}

DType Fitting(DType wanted, uint64_t row) {
  if (row % Info(wanted).block == 0) return wanted;
  if (wanted == DType::kQ4_K) return Fitting(DType::kQ5_0, row);
  if (wanted == DType::kQ6_K) return Fitting(DType::kQ8_0, row);
  return DType::kF16;
}

}  // namespace

const QuantizeTarget& FindQuantizeTarget(std::string_view name) {
  for (const QuantizeTarget& target : kTargets) {
    if (EqualInAnyCase(target.name, name)) return target;
  }
  Fail(Code::kUsage, "{}: no type that is written here; known are {}", Quoted(name),
       QuantizeTargetNames());
}

std::string QuantizeTargetNames() {
  std::string names;
  for (const QuantizeTarget& target : kTargets) {
    if (!names.empty()) names += ", ";
    for (const char c : target.name) names += ToLower(c);
  }
  return names;
}

TensorPlan PlanTensor(const QuantizeTarget& target, const ModelConfig& config,
                      const SourceTensor& tensor) {
  if (!IsMatrix(tensor)) return {};
  const DType wanted = WantedType(target, config, tensor);
  return {wanted, Fitting(wanted, tensor.shape[0])};
}

}  // namespace kvasir
