#include "format/tensor_recoder.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "format/dequantize.h"
#include "format/quantize.h"
#include "format/quote.h"

namespace kvasir {

namespace {

constexpr uint64_t kTaskElements = uint64_t{1} << 15;
constexpr uint64_t kTasksAtOnce = 16;               // for each worker, between two writes
constexpr uint64_t kCopyBytes = uint64_t{4} << 20;  // between two writes

uint64_t RowBytes(DType dtype, uint64_t cols) {
  return MulOrThrow(cols / Info(dtype).block, Info(dtype).bytes, "a row");
}

// The row of the source that becomes row `row`.
uint64_t SourceRow(uint64_t row, uint64_t rows, uint32_t pairing_heads) {
  if (pairing_heads == 0) return row;
  const uint64_t head_dim = rows / pairing_heads;
  const uint64_t first = row / head_dim * head_dim, channel = row - first;
  return first + channel % 2 * (head_dim / 2) + channel / 2;
}

[[noreturn]] void RefuseValue(const std::string& name, float value, uint64_t row, uint64_t col,
                              DType to) {
  const char* wanted =
      std::isfinite(value) ? "smaller magnitudes are expected" : "finite numbers are expected";
  Fail(Code::kInvalid, "the tensor {}: row {}, column {} is {}, which {} does not hold; {}",
       Quoted(name), row, col, value, Info(to).name, wanted);
}

}  // namespace

void TensorRecoder::Write(const SourceTensor& source, DType to) {
  CHECK(!source.shape.empty() && CanQuantizeTo(to));
  uint64_t cols = source.shape[0], rows = 1;
  for (size_t i = 1; i < source.shape.size(); ++i) {
    rows = MulOrThrow(rows, source.shape[i], source.name);
  }
  if (source.pairing_heads > 0 && rows == 1) std::swap(rows, cols);
  if (source.dtype == to && source.pairing_heads == 0) {
    Copy(source, MulOrThrow(rows, RowBytes(to, cols), source.name));
  } else {
    CHECK(source.pairing_heads == 0 || rows % (2 * uint64_t{source.pairing_heads}) == 0);
    Encode(source, rows, cols, to);
  }
}

void TensorRecoder::Copy(const SourceTensor& source, uint64_t bytes) {
  for (uint64_t begin = 0; begin < bytes; begin += kCopyBytes) {
    const uint64_t n = std::min(kCopyBytes, bytes - begin);
    writer_.Write({source.data + begin, n});
    done_(n);
  }
}

void TensorRecoder::Encode(const SourceTensor& source, uint64_t rows, uint64_t cols, DType to) {
  const uint64_t from_bytes = RowBytes(source.dtype, cols), to_bytes = RowBytes(to, cols);
  const uint64_t rows_a_task = std::max<uint64_t>(kTaskElements / cols, 1);
  const uint64_t rows_at_once = rows_a_task * kTasksAtOnce * workers_.size();
  encoded_.resize(std::min(rows, rows_at_once) * to_bytes);
  for (uint64_t first = 0; first < rows; first += rows_at_once) {
    const uint64_t n = std::min(rows_at_once, rows - first);
    workers_.Run((n + rows_a_task - 1) / rows_a_task, [&](size_t task, size_t worker) {
      std::vector<float>& values = scratch_[worker];
      values.resize(cols);
      for (uint64_t i = task * rows_a_task; i < std::min((task + 1) * rows_a_task, n); ++i) {
        const uint64_t row = SourceRow(first + i, rows, source.pairing_heads);
        DequantizeRow(source.dtype, source.data + row * from_bytes, values.data(), cols);
        const uint64_t unfit = FirstUnfit(to, values.data(), cols);
        if (unfit < cols) RefuseValue(source.name, values[unfit], row, unfit, to);
        QuantizeRow(to, values.data(), encoded_.data() + i * to_bytes, cols);
      }
    });
    writer_.Write({encoded_.data(), n * to_bytes});
    done_(n * from_bytes);
  }
}

}  // namespace kvasir
