// What the sources of the matrix product in simd/ share.
#pragma once

#include "kernels/matmul_kernels.h"
#include "kernels/simd/target.h"

namespace kvasir::KVASIR_SIMD {

void QuantizeRow(const float* x, const QuantizedRows& row);
void FillExact(kvasir::MatMulKernels* table);
void FillFast(kvasir::MatMulKernels* table);
void FillFastFloat(kvasir::MatMulKernels* table);  // avx512

}  // namespace kvasir::KVASIR_SIMD
