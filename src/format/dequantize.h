// Expansion of stored rows to f32, in plain loops: what every type means, exactly.
//
// The order of f32 operations is that of the formats' reference expansion: results are equal to it
// bit for bit (a NaN stays a NaN), so kernels/ and the exact compute path can be judged by these
// values. Not here: speed. Kernels read blocks themselves.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace kvasir {

// Expands `n` elements (a multiple of the type's block) from `src`, which needs no alignment.
void DequantizeRow(DType dtype, const uint8_t* src, float* dst, uint64_t n);

}  // namespace kvasir
