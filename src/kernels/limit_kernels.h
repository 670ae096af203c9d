// What the machine itself can do at most: loops that live in registers, and one that only reads.
//
// For `kvasir bench --limits`; nothing else calls them. A null entry: the target has no such
// instruction.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

// Runs `rounds` rounds; the result depends on all of them, so that none can be left out.
using RateLoop = float (*)(uint64_t rounds);

struct LimitKernels {
  RateLoop f32_fma = nullptr;   // multiply-adds of f32 (two roundings on the portable target)
  RateLoop bf16_dot = nullptr;  // products of bf16 pairs added to f32
  RateLoop int8_dot = nullptr;  // products of u8 and s8 added to 32-bit integers
  // Operations of one round, two a multiply-add.
  uint64_t f32_ops = 0, bf16_ops = 0, int8_ops = 0;
  // Reads whole cache lines; the result depends on every byte. n_bytes: a multiple of 512.
  uint64_t (*read)(const uint8_t* bytes, size_t n_bytes) = nullptr;
};

}  // namespace kvasir
