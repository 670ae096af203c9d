// Moving entries between pages: what packing is made of. Bits of an entry never change on the way.
//
// Cost     One read and one write of every live entry; runs of neighbouring slots move as blocks.
// Threads  Any; nobody may change the pool or these pages meanwhile.
#pragma once

#include <span>

#include "kernels/plane_kernels.h"
#include "kv/lane_set.h"
#include "kv/pool.h"

namespace kvasir {

// Moves the live entries of pages `from`, in order, to the front of pages `to`: 64 into each, what
// is left into the last, exactly as many pages as that takes. Sets filled, live, mark and base of
// `to` and writes its planes, positions included; all of them must exist already. A page may be in
// both lists, as number i of `from` and j of `to`, if the pages before it in `from` have at most
// 64 j live entries: then no entry is overwritten before it was read.
void MoveEntries(Pool& pool, const PlaneKernels& kernels, uint32_t head_dim,
                 std::span<const PageRef> from, std::span<PageRef> to);

}  // namespace kvasir
