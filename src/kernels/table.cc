#include "kernels/table.h"

#include <vector>

#include "kernels/simd/fill.h"

namespace kvasir {

namespace {

// KVASIR_TARGET(name, runs here)
#if defined(KVASIR_HAVE_AVX512)
#define KVASIR_X86_TARGETS(KVASIR_TARGET) \
  KVASIR_TARGET(avx2, HasAvx2())          \
  KVASIR_TARGET(avx512, HasAvx512())
#else
#define KVASIR_X86_TARGETS(KVASIR_TARGET)
#endif
#define KVASIR_TARGETS(KVASIR_TARGET) \
  KVASIR_TARGET(portable, true)       \
  KVASIR_X86_TARGETS(KVASIR_TARGET)

#if defined(KVASIR_HAVE_AVX512)
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
// What Zen 4 and Sapphire Rapids have. Older AVX-512 processors run the AVX2 kernels.
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
#endif

std::vector<const Kernels*> Runnable() {
  std::vector<const Kernels*> all;
#define KVASIR_ADD(name, runs)            \
  if (runs) {                             \
    static const Kernels table = [] {     \
      Kernels k;                          \
      k.target = #name;                   \
      simd_##name::FillRows(&k.rows);     \
      simd_##name::FillMatMul(&k.matmul); \
      simd_##name::FillPlanes(&k.planes); \
      simd_##name::FillLimits(&k.limits); \
      return k;                           \
    }();                                  \
    all.push_back(&table);                \
  }
  KVASIR_TARGETS(KVASIR_ADD)
#undef KVASIR_ADD
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
#define KVASIR_NAME(name, runs) #name,
  static constexpr std::string_view kTargets[] = {KVASIR_TARGETS(KVASIR_NAME)};
#undef KVASIR_NAME
  return kTargets;
}

}  // namespace kvasir
