// A cursor over bytes from outside: little-endian, bounds checked, never allocating.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace kvasir {

class ByteReader {
 public:
  // `where` names the source in errors (a file name).
  ByteReader(std::span<const uint8_t> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }
  const std::string& where() const { return where_; }

  // The next `n` bytes. Errors: Code::kCorrupt naming `what`, the offset and both sizes.
  std::span<const uint8_t> Take(uint64_t n, std::string_view what) {
    if (n > remaining()) {
      Fail(Code::kCorrupt, "{}: {} at byte {} needs {} bytes, the file has {} left", where_, what,
           offset_, n, remaining());
    }
    const auto taken = bytes_.subspan(offset_, n);
    offset_ += n;
    return taken;
  }
  template <typename T>
  T Read(std::string_view what) {
    T value;
    std::memcpy(&value, Take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
  std::string where_;
  size_t offset_ = 0;
};

}  // namespace kvasir
