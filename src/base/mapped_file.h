// A read-only memory map of a whole file. Move-only; unmapped on destruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kvasir {

class MappedFile {
 public:
  MappedFile() = default;
  // Errors: kNotFound, kIo (a directory, no permission). An empty file maps to no bytes.
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Tells the system that the pages under `bytes` need not stay resident; they are read again from
  // the file when touched.
  void Release(std::span<const uint8_t> bytes) const;

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace kvasir
