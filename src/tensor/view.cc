#include "tensor/view.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace kvasir {

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlack = 64;  // kernels may load one vector past the end
}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) : size_(bytes) {
  const bool huge = bytes >= kHugePage;
  map_bytes_ = huge ? RoundUp(bytes + kSlack, kHugePage) + kHugePage
                    : RoundUp<size_t>(bytes + kSlack, 4096);
  map_ = ::mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    Fail(Code::kIo, "cannot map {} bytes of memory: {}", map_bytes_, std::strerror(errno));
  }
  uintptr_t start = reinterpret_cast<uintptr_t>(map_);
  if (huge) {
    start = RoundUp<uintptr_t>(start, kHugePage);
    ::madvise(reinterpret_cast<void*>(start), RoundUp(bytes, kHugePage), MADV_HUGEPAGE);
  }
  data_ = reinterpret_cast<uint8_t*>(start);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(map_, other.map_);
  std::swap(map_bytes_, other.map_bytes_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (map_ != nullptr) ::munmap(map_, map_bytes_);
}

}  // namespace kvasir
