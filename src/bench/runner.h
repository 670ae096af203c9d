// The run: conversations start when their time has come and a place is free; their turns follow one
// another.
//
// Invariant  Every turn of every conversation has a record, in order. A turn that could not be
// asked
//            because the one before failed is a failure of the kind "earlier turn".
// Threads    One for each place, at most kMaxPlaces; they are gone when the function returns.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "bench/client.h"

namespace kvasir::bench {

inline constexpr size_t kMaxPlaces = 1024;

struct LoadRun {
  std::vector<Record> records;
  double seconds = 0;  // from the start to the last answer
};

// `arrivals`: seconds for each conversation, ascending. `places`: most conversations at once; 0: as
// many as arrive, up to kMaxPlaces. `progress` is told the share done, on this thread.
LoadRun RunLoad(const Client& client, const std::vector<Conversation>& conversations,
                const std::vector<double>& arrivals, size_t places,
                const std::function<void(double)>& progress);

}  // namespace kvasir::bench
