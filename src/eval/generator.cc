#include "eval/generator.h"

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "base/error.h"

namespace kvasir {

namespace {

uint64_t Fnv1a64(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) {
    hash ^= static_cast<uint8_t>(c);
    hash *= 0x100000001b3u;
  }
  return hash;
}

}  // namespace

uint64_t Mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

Generator::Generator(uint64_t seed) {
  SplitMix64 numbers(seed);
  for (uint64_t& word : state_) word = numbers.Next();
}

uint64_t Generator::Next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

uint64_t Generator::Below(uint64_t n) {
  CHECK(n > 0);
  const uint64_t rejected = (0 - n) % n;  // 2^64 mod n
  for (;;) {
    const auto product = static_cast<unsigned __int128>(Next()) * n;
    if (static_cast<uint64_t>(product) >= rejected) return static_cast<uint64_t>(product >> 64);
  }
}

// Floyd's method: one draw per number, whatever n is.
std::vector<uint64_t> Generator::Distinct(uint64_t count, uint64_t n) {
  CHECK(count <= n);
  std::vector<uint64_t> drawn;
  drawn.reserve(count);
  std::unordered_set<uint64_t> taken;
  for (uint64_t j = n - count; j < n; ++j) {
    const uint64_t candidate = Below(j + 1);
    drawn.push_back(taken.insert(candidate).second ? candidate : j);
    taken.insert(drawn.back());
  }
  Shuffle(drawn);  // Floyd's sets are uniform, their order is not
  return drawn;
}

std::vector<uint64_t> Generator::Ascending(uint64_t count, uint64_t n) {
  std::vector<uint64_t> drawn = Distinct(count, n);
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

std::string Generator::Uuid() {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const std::array<uint64_t, 2> bits = {Next(), Next()};
  std::string uuid;
  for (size_t i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) uuid += '-';
    uint64_t digit = bits[i / 16] >> (60 - i % 16 * 4) & 15;
    if (i == 12) digit = 4;                // version
    if (i == 16) digit = (digit & 3) | 8;  // variant
    uuid += kDigits[digit];
  }
  return uuid;
}

std::string Generator::Letters(size_t n, char first) {
  std::string letters;
  for (size_t i = 0; i < n; ++i) letters += static_cast<char>(first + static_cast<char>(Below(26)));
  return letters;
}

uint64_t SampleSeed(std::string_view suite, std::string_view task, uint32_t version,
                    uint64_t length, uint64_t index, uint64_t seed) {
  uint64_t hash = Fnv1a64(fmt::format("{}/{}/{}", suite, task, version));
  for (const uint64_t x : {length, index, seed}) hash = Mix64(hash ^ x);
  return hash;
}

}  // namespace kvasir
