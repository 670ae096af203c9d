// A file that appears whole or not at all: written under a temporary name beside its own, brought
// to the disk, then renamed.
//
// Errors   kIo naming the path; nothing is left behind then.
// Threads  One.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvasir {

class WholeFile {
 public:
  explicit WholeFile(std::string path);
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;
  // Without a Commit() before, what was written is removed.
  ~WholeFile();

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  void Write(std::string_view bytes);
  // The file takes its name, in place of one that had it.
  void Commit();

 private:
  [[noreturn]] void Refuse(const char* step);

  std::string path_, temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace kvasir
