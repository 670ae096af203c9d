// SHA-256: names what was measured, so that two runs can be told to have measured the same.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kvasir {

// Of the pieces one after another, in hexadecimal.
std::string Sha256(std::span<const std::span<const uint8_t>> pieces);
std::string TextDigest(std::string_view text);
// Of token ids, as 32-bit numbers with the low byte first.
std::string TokensDigest(std::span<const int32_t> tokens);

}  // namespace kvasir
