// Writes the tensors of one file to another, each in a type of its choice.
//
// A tensor of the wanted type is copied byte for byte; any other is expanded to f32 and encoded
// again, rows shared among threads. Bytes written do not depend on their number.
//
// Cost     Memory: 1 MiB or one row per thread, and as much of encoded rows. Time: that of
//          format/quantize.h and format/dequantize.h.
// Errors   kInvalid naming tensor and element for a value that the type cannot hold; kIo.
// Threads  One, which the workers help.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/workers.h"
#include "format/gguf_writer.h"
#include "tensor/dtype.h"

namespace kvasir {

struct SourceTensor {
  std::string name;
  std::vector<uint64_t> shape;  // innermost first
  DType dtype = DType::kF32;
  const uint8_t* data = nullptr;
  // Above 0: rows (elements of a vector) belong to so many heads, in whose rows channels i and i +
  // d/2 turn together under RoPE; they are written as neighbours 2i and 2i + 1, the order of GGUF's
  // "llama".
  uint32_t pairing_heads = 0;
};

class TensorRecoder {
 public:
  // `done` hears now and then how many bytes of the source were read since it last did.
  using Progress = std::function<void(uint64_t bytes)>;
  TensorRecoder(Workers& workers, GgufWriter& writer, Progress done)
      : workers_(workers), writer_(writer), done_(std::move(done)), scratch_(workers.size()) {}

  // The next tensor of the writer.
  void Write(const SourceTensor& source, DType to);

 private:
  void Copy(const SourceTensor& source, uint64_t bytes);
  void Encode(const SourceTensor& source, uint64_t rows, uint64_t cols, DType to);

  Workers& workers_;
  GgufWriter& writer_;
  Progress done_;
  std::vector<std::vector<float>> scratch_;  // one for each worker
  std::vector<uint8_t> encoded_;
};

}  // namespace kvasir
