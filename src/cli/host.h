// What the machine and the process have: memory, pages, terminals. Read from /proc and the
// container's limits.
#pragma once

#include <cstdint>
#include <string>

namespace kvasir {

uint64_t TotalMemory();      // bytes this process may use at most
uint64_t AvailableMemory();  // bytes that are free for it now
uint64_t ResidentBytes();
uint64_t PeakResidentBytes();
// The kernel's setting for transparent huge pages: "always", "madvise", "never", or "unknown".
std::string HugePages();

std::string ProcessorName();  // "unknown" where the system does not tell

bool IsTerminal(int fd);

}  // namespace kvasir
