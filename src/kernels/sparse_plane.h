// Sparse planes as a whole (kernels/plane.h): whether bytes from outside are one, and moving rows.
// What attention and packing do with them is in the tables of kernels (plane_kernels.h).
//
// Cost     A check walks the bits of a plane one by one, tens of microseconds.
// Threads  Pure functions of their arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/plane_kernels.h"

namespace kvasir {

// What is wrong with the bytes of a sparse K plane (keys) or V plane, or null: every row has
// exactly form.keep bits, bits beyond `dim` are clear, scales are not negative and not infinite
// (NaN marks a row that int8 could not hold), integers lie within +-127. Kernels may read a plane
// that passed, and no other. CHECKs that `plane` has PlaneBytes.
const char* CheckPlane(PlaneForm form, size_t dim, bool keys, std::span<const uint8_t> plane);

// Whether the row in `slot` of a checked or packed plane keeps channel `c`.
bool KeepsChannel(PlaneForm form, size_t dim, bool keys, const uint8_t* plane, size_t slot,
                  size_t c);

// Makes a plane at `out` of at most 64 rows of planes of the same form, in slots 0, 1, ...: values
// move as they are. The slots behind become rows of zeros. `out` may be one of the planes read.
void TakeRows(const PlaneKernels& kernels, PlaneForm form, size_t dim, bool keys,
              std::span<const SparseRows> from, uint8_t* out);

}  // namespace kvasir
