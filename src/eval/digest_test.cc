#include "eval/digest.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvasir {
namespace {

TEST(Digest, IsSha256OfAllPieces) {
  const std::vector<uint8_t> a = {'a'}, bc = {'b', 'c'};
  const std::vector<std::span<const uint8_t>> pieces = {a, bc};
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(Sha256(pieces), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Digest, OfTokensIsThatOfTheirBytes) {
  const std::vector<int32_t> tokens = {0x64636261};
  const std::vector<uint8_t> bytes = {'a', 'b', 'c', 'd'};
  const std::span<const uint8_t> piece(bytes);
  EXPECT_EQ(TokensDigest(tokens), Sha256({&piece, 1}));
}

}  // namespace
}  // namespace kvasir
