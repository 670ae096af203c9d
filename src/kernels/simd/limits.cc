// Peak rates: enough independent accumulators to hide the latency of one instruction, operands that
// never leave registers. An empty asm pins each accumulator: nothing is folded or hoisted away.
#include "kernels/limit_kernels.h"
#include "kernels/simd/fill.h"
#include "kernels/simd/vec.h"

namespace kvasir::KVASIR_SIMD {

namespace {

// Before every loop over the accumulators: one that stays a loop keeps them in memory.
#if defined(__clang__)
#define KVASIR_UNROLL_ALL _Pragma("unroll")
#else
#define KVASIR_UNROLL_ALL _Pragma("GCC unroll 16")
#endif

#if defined(KVASIR_TARGET_AVX512)
#define KVASIR_PIN(x) asm("" : "+v"(x))
#elif defined(KVASIR_TARGET_AVX2)
#define KVASIR_PIN(x) asm("" : "+x"(x))
#endif

#if defined(KVASIR_TARGET_AVX512)

constexpr int kAccumulators = 12;

float F32Loop(uint64_t rounds) {
  __m512 sum[kAccumulators];
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_set1_ps(1.0f);
  for (uint64_t r = 0; r < rounds; ++r) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < kAccumulators; ++i) {
      sum[i] = _mm512_fmadd_ps(sum[i], a, b);
      KVASIR_PIN(sum[i]);
    }
  }
  float total = 0;
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) total += _mm512_cvtss_f32(sum[i]);
  return total;
}

float BF16Loop(uint64_t rounds) {
  __m512 sum[kAccumulators];
  const __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  const __m512bh b = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3a80));
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_setzero_ps();
  for (uint64_t r = 0; r < rounds; ++r) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < kAccumulators; ++i) {
      sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
      KVASIR_PIN(sum[i]);
    }
  }
  float total = 0;
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) total += _mm512_cvtss_f32(sum[i]);
  return total;
}

float Int8Loop(uint64_t rounds) {
  __m512i sum[kAccumulators];
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1);
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_setzero_si512();
  for (uint64_t r = 0; r < rounds; ++r) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < kAccumulators; ++i) {
      sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
      KVASIR_PIN(sum[i]);
    }
  }
  int total = 0;
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) total ^= _mm512_cvtsi512_si32(sum[i]);
  return static_cast<float>(total);
}

uint64_t Read(const uint8_t* bytes, size_t n_bytes) {
  __m512i sum[8];
  KVASIR_UNROLL_ALL
  for (int i = 0; i < 8; ++i) sum[i] = _mm512_setzero_si512();
  for (size_t at = 0; at < n_bytes; at += 512) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < 8; ++i) {
      sum[i] = _mm512_xor_si512(sum[i], _mm512_loadu_si512(bytes + at + 64 * i));
    }
  }
  for (int i = 1; i < 8; ++i) sum[0] = _mm512_xor_si512(sum[0], sum[i]);
  uint64_t words[8];
  memcpy(words, &sum[0], sizeof(words));
  uint64_t total = 0;
  for (const uint64_t word : words) total += word;
  return total;
}

constexpr uint64_t kLaneOps = 2 * 16;  // f32 lanes of a vector

#elif defined(KVASIR_TARGET_AVX2)

constexpr int kAccumulators = 10;

float F32Loop(uint64_t rounds) {
  __m256 sum[kAccumulators];
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm256_set1_ps(1.0f);
  for (uint64_t r = 0; r < rounds; ++r) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < kAccumulators; ++i) {
      sum[i] = _mm256_fmadd_ps(sum[i], a, b);
      KVASIR_PIN(sum[i]);
    }
  }
  float total = 0;
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) total += _mm256_cvtss_f32(sum[i]);
  return total;
}

// Without VNNI a dot product is three instructions: pairs to 16 bits, pairs of those to 32, a sum.
float Int8Loop(uint64_t rounds) {
  __m256i sum[kAccumulators];
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm256_setzero_si256();
  for (uint64_t r = 0; r < rounds; ++r) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < kAccumulators; ++i) {
      __m256i pairs = _mm256_maddubs_epi16(a, b);
      KVASIR_PIN(pairs);  // each time anew
      sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, ones));
      KVASIR_PIN(sum[i]);
    }
    KVASIR_PIN(a);
  }
  int total = 0;
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) total ^= _mm256_cvtsi256_si32(sum[i]);
  return static_cast<float>(total);
}

uint64_t Read(const uint8_t* bytes, size_t n_bytes) {
  __m256i sum[8];
  KVASIR_UNROLL_ALL
  for (int i = 0; i < 8; ++i) sum[i] = _mm256_setzero_si256();
  for (size_t at = 0; at < n_bytes; at += 256) {
    KVASIR_UNROLL_ALL
    for (int i = 0; i < 8; ++i) {
      const auto* from = reinterpret_cast<const __m256i*>(bytes + at + 32 * i);
      sum[i] = _mm256_xor_si256(sum[i], _mm256_loadu_si256(from));
    }
  }
  for (int i = 1; i < 8; ++i) sum[0] = _mm256_xor_si256(sum[0], sum[i]);
  uint64_t words[4];
  memcpy(words, &sum[0], sizeof(words));
  return words[0] + words[1] + words[2] + words[3];
}

constexpr uint64_t kLaneOps = 2 * 8;

#else

constexpr int kAccumulators = 4;

float F32Loop(uint64_t rounds) {
  F32 sum[kAccumulators];
  F32 a = Set(0.999f);
  const F32 b = Set(1e-3f);
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) sum[i] = Set(1.0f);
  for (uint64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+m"(a));  // a new number, for all that the compiler knows
    for (int i = 0; i < kAccumulators; ++i) sum[i] = MulAdd(sum[i], a, b);
  }
  float total = 0;
  KVASIR_UNROLL_ALL
  for (int i = 0; i < kAccumulators; ++i) {
    for (size_t lane = 0; lane < kLanes; ++lane) total += sum[i].v[lane];
  }
  return total;
}

uint64_t Read(const uint8_t* bytes, size_t n_bytes) {
  uint64_t sum[8] = {};
  for (size_t at = 0; at < n_bytes; at += 64) {
    uint64_t words[8];
    memcpy(words, bytes + at, 64);
    for (int i = 0; i < 8; ++i) sum[i] ^= words[i];
  }
  uint64_t total = 0;
  for (const uint64_t s : sum) total += s;
  return total;
}

constexpr uint64_t kLaneOps = 2 * kLanes;

#endif

}  // namespace

void FillLimits(LimitKernels* table) {
  table->f32_fma = F32Loop;
  table->f32_ops = kLaneOps * kAccumulators;
#if defined(KVASIR_TARGET_AVX512)
  table->bf16_dot = BF16Loop;
  table->bf16_ops = 2 * table->f32_ops;
#endif
#if defined(KVASIR_X86)
  table->int8_dot = Int8Loop;
  table->int8_ops = 4 * table->f32_ops;
#endif
  table->read = Read;
}

}  // namespace kvasir::KVASIR_SIMD
