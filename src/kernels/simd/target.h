// Included first by every source in simd/: names the target this compilation is for.
//
// Such a source includes no standard header beyond <stdint.h>, <stddef.h>, <string.h> and
// <immintrin.h>: inline functions shared with other objects could be emitted here with instructions
// an older machine lacks, and the linker might keep that copy.
#pragma once

// KVASIR_X86: 256-bit vectors with FMA and F16C are there, on every target but the portable one.
#if defined(KVASIR_TARGET_AVX512)
#define KVASIR_SIMD simd_avx512
#define KVASIR_X86 1
#elif defined(KVASIR_TARGET_AVX2)
#define KVASIR_SIMD simd_avx2
#define KVASIR_X86 1
#elif defined(KVASIR_TARGET_PORTABLE)
#define KVASIR_SIMD simd_portable
#else
#error "compile simd/ sources through kvasir_simd() in src/kernels/CMakeLists.txt"
#endif
