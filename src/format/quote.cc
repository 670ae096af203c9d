#include "format/quote.h"

#include <fmt/format.h>

#include <iterator>

namespace kvasir {

std::string Quoted(std::string_view text) {
  constexpr size_t kMaxBytes = 80;
  std::string quoted = "\"";
  for (const char c : text.substr(0, kMaxBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (byte < 0x20 || byte > 0x7e) {
      fmt::format_to(std::back_inserter(quoted), "\\x{:02x}", byte);
    } else {
      quoted += c;
    }
  }
  quoted += text.size() > kMaxBytes ? "\"..." : "\"";
  return quoted;
}

}  // namespace kvasir
