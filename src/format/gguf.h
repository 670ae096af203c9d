// The container GGUF, versions 2 and 3, little-endian: key-values, a table of tensors, tensor data.
//
// Every count, length and offset is compared with the bytes that are really there before anything
// is allocated or followed. After a successful parse each tensor lies wholly inside the file,
// aligned, apart from all others, under a name of its own and with a known type whose blocks divide
// its rows.
//
// Cost     One pass over header, key-values and table; tensor data is not touched.
// Errors   kCorrupt (what, at which byte, what would be right); kUnsupported for other versions,
//          byte orders and tensor types.
// Threads  No state: any.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "format/metadata.h"
#include "format/problems.h"
#include "tensor/dtype.h"

namespace kvasir {

inline constexpr uint64_t kMaxGgufKey = 65535;  // the format's own limit
inline constexpr uint64_t kMaxGgufName = 255;   // the format says 64; some writers exceed it
inline constexpr uint64_t kMaxGgufDims = 4;

struct GgufTensor {
  std::string name;
  std::vector<uint64_t> shape;  // one to four dimensions, innermost first, none zero
  uint32_t type = 0;            // GGUF's number of dtype
  DType dtype = DType::kF32;
  uint64_t offset = 0;  // of the first byte, from the start of the file
  uint64_t bytes = 0;
};

struct Gguf {
  uint32_t version = 0;
  uint64_t alignment = 32;
  Metadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file's table
};

// `name` opens error messages.
Gguf ParseGguf(std::span<const uint8_t> bytes, const std::string& name);

// The same for files that are looked at and not run: what is wrong with single tensors goes to
// `problems`; such a tensor has no meaningful dtype, offset and bytes (0 where its type is
// foreign). What the rest of the file hangs on is still thrown.
Gguf SurveyGguf(std::span<const uint8_t> bytes, const std::string& name, Problems& problems);

// Of the data, as the key general.alignment states it. Errors: kCorrupt.
uint64_t GgufAlignment(const Metadata& metadata);

// "Q4_K", "IQ2_XXS", "number 99".
std::string GgufTypeName(uint32_t gguf_id);

// The key-values alone, of any architecture: for vocabulary-only files and inspection. The table of
// tensors is not read.
Metadata ParseGgufMetadata(std::span<const uint8_t> bytes, const std::string& name);
Metadata ReadGgufMetadata(const std::string& path);

}  // namespace kvasir
