// The random numbers of generated samples: the same on every machine, compiler and thread count.
//
// SplitMix64 is by Steele, Lea and Flood (2014), xoshiro256** by Blackman and Vigna; integers below
// a bound are drawn as Lemire does (arXiv 1805.10941), which favours no remainder. Nothing here
// uses floating point.
//
// Threads  A Generator belongs to one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir {

// SplitMix64's finaliser: a bijection of 64 bits.
uint64_t Mix64(uint64_t x);

class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t Next() { return Mix64(state_ += 0x9e3779b97f4a7c15u); }

 private:
  uint64_t state_;
};

class Generator {
 public:
  explicit Generator(uint64_t seed);  // the state is four numbers of SplitMix64(seed)

  uint64_t Next();
  uint64_t Below(uint64_t n);  // uniform in [0, n); n > 0
  uint64_t Between(uint64_t first, uint64_t last) { return first + Below(last - first + 1); }
  template <typename Range>
  auto& OneOf(const Range& range) {
    return range[Below(std::size(range))];
  }
  // Fisher-Yates from the end.
  template <typename T>
  void Shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[Below(i)]);
  }
  // `count` different numbers below `n`, in the order drawn; count <= n. Cost: that of `count`.
  std::vector<uint64_t> Distinct(uint64_t count, uint64_t n);
  // `count` different numbers below `n`, ascending.
  std::vector<uint64_t> Ascending(uint64_t count, uint64_t n);

  std::string Uuid();                         // version 4
  std::string Letters(size_t n, char first);  // n letters of 26 from 'a' or 'A' on

 private:
  std::array<uint64_t, 4> state_;
};

// What a sample's generator is seeded with: FNV-1a of "suite/task/version", then length, index and
// seed mixed in one after the other.
uint64_t SampleSeed(std::string_view suite, std::string_view task, uint32_t version,
                    uint64_t length, uint64_t index, uint64_t seed);

}  // namespace kvasir
