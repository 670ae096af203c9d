#include "base/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace kvasir {

WholeFile::WholeFile(std::string path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter = 0;  // two threads may write the same path
  temporary_ = fmt::format("{}.{}.{}.tmp", path_, getpid(), counter++);
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) Fail(Code::kIo, "{}: cannot be created: {}", path_, std::strerror(errno));
}

WholeFile::~WholeFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void WholeFile::Refuse(const char* step) {
  Fail(Code::kIo, "{}: {}: {}", path_, step, std::strerror(errno));
}

void WholeFile::Write(std::string_view bytes) {
  CHECK(fd_ >= 0);
  while (!bytes.empty()) {
    const ssize_t n = write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) Refuse("cannot be written");
    size_ += static_cast<uint64_t>(n);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

void WholeFile::Commit() {
  CHECK(fd_ >= 0);
  if (fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) Refuse("cannot be written");
  if (rename(temporary_.c_str(), path_.c_str()) != 0) Refuse("cannot be renamed into place");
  close(std::exchange(fd_, -1));
}

}  // namespace kvasir
