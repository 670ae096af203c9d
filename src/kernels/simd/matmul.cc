#include "kernels/simd/matmul.h"

#include "kernels/simd/fill.h"

namespace kvasir::KVASIR_SIMD {

void FillMatMul(kvasir::MatMulKernels* table) {
  *table = {};
  table->quantize_row = QuantizeRow;
  FillExact(table);
  FillFast(table);
#if defined(KVASIR_TARGET_AVX512)
  FillFastFloat(table);
#endif
}

}  // namespace kvasir::KVASIR_SIMD
