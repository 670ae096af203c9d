// Views of rows, and the aligned memory behind them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace kvasir {

// A matrix inside a file, as it is stored: `rows` rows of `cols` elements, rows contiguous.
// A vector has rows == 1.
struct TensorView {
  DType dtype = DType::kF32;
  uint64_t rows = 0, cols = 0;
  const uint8_t* data = nullptr;

  uint64_t row_bytes() const { return cols / Info(dtype).block * Info(dtype).bytes; }
  uint64_t bytes() const { return rows * row_bytes(); }
  const uint8_t* row(uint64_t i) const { return data + i * row_bytes(); }
};

// Rows of floats in scratch memory. `stride` is in floats.
struct Rows {
  float* data = nullptr;
  size_t count = 0, dim = 0, stride = 0;
  float* row(size_t i) const { return data + i * stride; }
  Rows Slice(size_t begin, size_t n) const { return {data + begin * stride, n, dim, stride}; }
};

// Anonymous memory, zeroed, aligned to 2 MiB where it is larger than that and advised to use huge pages
// (worth 20-40 % of every step bound by memory bandwidth). Move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);  // throws Error{kIo} when the system refuses
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kvasir
