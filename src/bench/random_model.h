// Model files with random weights: a shape and a type, as GGUF that this program and others load.
//
// Weights  Rows are made of blocks drawn from a small pool, scaled to a standard deviation of
//          1 / sqrt(row length), so that activations stay in the range of a trained model; norms
//          are about 1. Speed depends on nothing else. A type whose blocks do not divide a row is
//          replaced as llama.cpp does (Q4_K by Q5_0, Q6_K by Q8_0).
// Tokens   A byte-level vocabulary of the real size: 256 bytes, pairs of small letters with their
//          merges, fillers, and two control tokens. Texts in it are many more tokens than in a
//          trained one; use ids.
// Cost     Writes the file piece by piece; memory for the pool alone.
// Errors   Those of GgufWriter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "tensor/dtype.h"

namespace kvasir::bench {

// From a name as GGUF tools write it, in any case: "Q4_0", "bf16". Errors: kUsage with the list.
DType ParseWeightType(std::string_view name);
// What rows of `cols` elements are stored as where `wanted` was asked for.
DType TypeForRows(DType wanted, uint64_t cols);
// Blocks of the type with random bits; values have about the standard deviation `deviation`.
std::vector<uint8_t> RandomBlocks(DType type, double deviation, size_t n_blocks, uint64_t seed);

void WriteRandomModel(const std::string& path, const Shape& shape, DType type, uint64_t seed);

}  // namespace kvasir::bench
