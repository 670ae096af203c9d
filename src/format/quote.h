// Names out of files, fit for one line of an error message.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace kvasir {

// In quotation marks, control characters and broken UTF-8 escaped, cut after 80 bytes.
inline std::string Quoted(std::string_view text) {
  return fmt::format("{:?}{}", text.substr(0, 80), text.size() > 80 ? "..." : "");
}

}  // namespace kvasir
