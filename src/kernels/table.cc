#include "kernels/table.h"

#include <vector>

#include "kernels/simd/fill.h"

namespace kvasir {

namespace {

Kernels MakePortable() {
  Kernels k;
  k.target = "portable";
  simd_portable::FillRows(&k.rows);
  simd_portable::FillMatMul(&k.matmul);
  simd_portable::FillPlanes(&k.planes);
  return k;
}

#if defined(KVASIR_HAVE_AVX2)
Kernels MakeAvx2() {
  Kernels k;
  k.target = "avx2";
  simd_avx2::FillRows(&k.rows);
  simd_avx2::FillMatMul(&k.matmul);
  simd_avx2::FillPlanes(&k.planes);
  return k;
}
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
#endif

std::vector<const Kernels*> Runnable() {
  static const Kernels portable = MakePortable();
  std::vector<const Kernels*> all = {&portable};
#if defined(KVASIR_HAVE_AVX2)
  if (HasAvx2()) {
    static const Kernels avx2 = MakeAvx2();
    all.push_back(&avx2);
  }
#endif
  return all;
}

}  // namespace

std::span<const Kernels* const> AvailableKernels() {
  static const std::vector<const Kernels*> all = Runnable();
  return all;
}

const Kernels& BestKernels() { return *AvailableKernels().back(); }

const Kernels* FindKernels(std::string_view target) {
  for (const Kernels* k : AvailableKernels()) {
    if (target == k->target) return k;
  }
  return nullptr;
}

std::span<const std::string_view> CompiledTargets() {
  static constexpr std::string_view kTargets[] = {
      "portable",
#if defined(KVASIR_HAVE_AVX2)
      "avx2",
#endif
  };
  return kTargets;
}

}  // namespace kvasir
