// The kernels of one SIMD target, and the choice among the targets this machine can run.
//
// A kernel is written once (portable vectors, simd/vec.h) or once per target where the machine
// decides; every source in simd/ is compiled once per target into namespace kvasir::simd_<target>
// and fills its part of the table. There is no other dispatch. Kernels take pointers and sizes,
// allocate nothing, throw nothing.
//
// Equal bits [contract: rows.equal]: on one target an output element depends on its own inputs
// alone, never on how many rows or columns run beside it, on threads, or on tiles.
#pragma once

#include <span>
#include <string_view>

#include "kernels/limit_kernels.h"
#include "kernels/matmul_kernels.h"
#include "kernels/plane_kernels.h"
#include "kernels/row_kernels.h"

namespace kvasir {

struct Kernels {
  const char* target = nullptr;  // "portable", "avx2", "avx512"
  RowKernels rows;
  MatMulKernels matmul;
  PlaneKernels planes;
  LimitKernels limits;
};

// Targets this machine can run, portable first, best last.
std::span<const Kernels* const> AvailableKernels();
const Kernels& BestKernels();
const Kernels* FindKernels(std::string_view target);  // nullptr if unknown or not runnable here
// Names of all targets that were compiled in, runnable or not.
std::span<const std::string_view> CompiledTargets();

}  // namespace kvasir
