// What each source in simd/ provides for its target; kernels/table.cc puts the table together.
#pragma once

#include "kernels/limit_kernels.h"
#include "kernels/matmul_kernels.h"
#include "kernels/plane_kernels.h"
#include "kernels/row_kernels.h"

#define KVASIR_DECLARE_TARGET(name)                \
  namespace kvasir::simd_##name {                  \
    void FillRows(kvasir::RowKernels* table);      \
    void FillMatMul(kvasir::MatMulKernels* table); \
    void FillPlanes(kvasir::PlaneKernels* table);  \
    void FillLimits(kvasir::LimitKernels* table);  \
  }

KVASIR_DECLARE_TARGET(portable)
KVASIR_DECLARE_TARGET(avx2)
KVASIR_DECLARE_TARGET(avx512)
