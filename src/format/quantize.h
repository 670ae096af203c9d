// Encoding of f32 rows in the types that files store: the inverse of format/dequantize.h.
//
// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, F16 and BF16 have one usual encoder, and the bytes are its bytes.
// Q4_K and Q6_K leave the choice of scales free: the ones here search for the smallest squared
// error (format/quantize_k.cc says how). Of one build, bytes depend on the values alone;
// another compiler's Q6_K may differ where two scales are nearly as good.
//
// Cost     About 1 to 3 ns an element on one core; 20 for Q4_K and Q6_K.
// Threads  No state: any.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace kvasir {

// Whether QuantizeRow writes this type.
bool CanQuantizeTo(DType dtype);

// The first value that the type cannot hold (NaN, an infinity, or so large that a scale would be
// infinite); n where there is none.
uint64_t FirstUnfit(DType dtype, const float* values, uint64_t n);

// Encodes `n` values (a multiple of the type's block, all fit) into `dst`, which needs no
// alignment.
void QuantizeRow(DType dtype, const float* values, uint8_t* dst, uint64_t n);

// Blocks of 256 for QuantizeRow.
void QuantizeQ4_K(const float* values, uint8_t* block);
void QuantizeQ6_K(const float* values, uint8_t* block);

}  // namespace kvasir
