#include "cli/host.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace kvasir {

namespace {

std::string ReadLine(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "MemAvailable:   123 kB" of a file in /proc, in bytes; 0 if absent.
uint64_t ProcBytes(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(key + ":", 0) != 0) continue;
    std::istringstream value(line.substr(key.size() + 1));
    uint64_t kib = 0;
    value >> kib;
    return kib * 1024;
  }
  return 0;
}

// A number in a file of the control group; `otherwise` for "max" or no such file.
uint64_t GroupBytes(const char* path, uint64_t otherwise) {
  std::istringstream text(ReadLine(path));
  uint64_t bytes = 0;
  return text >> bytes ? bytes : otherwise;
}

struct GroupMemory {
  uint64_t limit, used;
};
GroupMemory Group() {
  const uint64_t limit = GroupBytes("/sys/fs/cgroup/memory.max", UINT64_MAX);
  if (limit != UINT64_MAX) return {limit, GroupBytes("/sys/fs/cgroup/memory.current", 0)};
  return {GroupBytes("/sys/fs/cgroup/memory/memory.limit_in_bytes", UINT64_MAX),
          GroupBytes("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0)};
}

}  // namespace

uint64_t TotalMemory() { return std::min(ProcBytes("/proc/meminfo", "MemTotal"), Group().limit); }

uint64_t AvailableMemory() {
  const GroupMemory group = Group();
  const uint64_t left = group.limit > group.used ? group.limit - group.used : 0;
  return std::min(ProcBytes("/proc/meminfo", "MemAvailable"), left);
}

uint64_t ResidentBytes() { return ProcBytes("/proc/self/status", "VmRSS"); }
uint64_t PeakResidentBytes() { return ProcBytes("/proc/self/status", "VmHWM"); }

std::string HugePages() {
  const std::string line = ReadLine("/sys/kernel/mm/transparent_hugepage/enabled");
  const size_t open = line.find('['), close = line.find(']');
  if (open == std::string::npos || close == std::string::npos) return "unknown";
  return line.substr(open + 1, close - open - 1);
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

bool IsTerminal(int fd) { return isatty(fd) == 1; }

}  // namespace kvasir
