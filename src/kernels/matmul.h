// Matrix products: out[r][o] = sum over k of x[r][k] * w[o][k] (+ bias[o]), for packed weights.
//
// One product for one row, a few, and many: bits of an output element depend on weight type, target
// and length alone [contract: rows.equal]. Several products over the same rows run in one
// fork-join.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/workers.h"
#include "kernels/table.h"
#include "tensor/view.h"

namespace kvasir {

enum class Compute : uint8_t { kExact, kFast };

// Weights in the layout of kernels/matmul_kernels.h; owner.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Repacks a tensor of the file, in parallel. Any DType. The result does not refer to `source`.
  static PackedMatrix Pack(const TensorView& source, Workers& workers);

  PackedKind kind() const { return kind_; }
  uint32_t outputs() const { return outputs_; }
  uint32_t k() const { return k_; }
  size_t bytes() const { return data_.size(); }
  PackedGroups Groups(size_t first, size_t n) const;
  size_t n_groups() const { return (outputs_ + kGroup - 1) / kGroup; }

 private:
  PackedKind kind_ = PackedKind::kF32;
  uint32_t outputs_ = 0, k_ = 0;
  size_t group_bytes_ = 0;
  AlignedBuffer data_;
};

// Activations of one fork-join: the f32 rows and, when a product needs it, their int8 form. Owner
// of the int8 scratch for at most `max_rows` rows of at most `max_k` floats.
class Activations {
 public:
  Activations(size_t max_rows, size_t max_k);
  // Takes the rows to multiply next. With kFast and k a multiple of 32 they are quantized once, in
  // parallel.
  void Set(const Kernels& kernels, Workers& workers, Compute compute, Rows x);

  const Rows& rows() const { return x_; }
  Compute compute() const { return compute_; }
  // Null if not quantized.
  const QuantizedRows* quantized() const { return is_quantized_ ? &quantized_ : nullptr; }
  size_t bytes() const { return buffer_.size(); }

 private:
  Rows x_;
  Compute compute_ = Compute::kExact;
  bool is_quantized_ = false;
  QuantizedRows quantized_ = {};
  size_t max_rows_, max_blocks_;
  AlignedBuffer buffer_;
};

struct MatMulJob {
  const PackedMatrix* w = nullptr;
  const float* bias = nullptr;  // [outputs], or null
  Rows out;                 // stride >= outputs rounded up to 16; padding columns receive anything
  bool accumulate = false;  // out += product (residual stream)
};

// All jobs multiply the same activations.
void MatMul(const Kernels& kernels, Workers& workers, const Activations& x,
            std::span<const MatMulJob> jobs);

}  // namespace kvasir
