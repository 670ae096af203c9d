// e^x of rows in double, by plain loops that compilers vectorise: the operations of one lane are
// those of a scalar, so bits are equal on all targets.
#include <string.h>

#include "kernels/row_kernels.h"
#include "kernels/simd/target.h"

#if defined(__GNUC__) && !defined(__clang__)
// Else GCC computes both sides of a choice one lane at a time. No value depends on it.
#pragma GCC optimize("no-trapping-math")
#endif

namespace kvasir::KVASIR_SIMD {

void ExpBelow(const float* x, size_t n, float most, double* out) {
  constexpr double kRound = 0x1.8p52, kLog2E = 0x1.71547652b82fep0;
  constexpr double kLn2 = 0x1.62e42fefa0000p-1, kLn2Rest = 0x1.cf79abc9e3b3ap-40;
  constexpr double kLeast = -708;  // e^x is still a normal number
  for (size_t i = 0; i < n; ++i) {
    const double a = static_cast<double>(x[i]) - static_cast<double>(most);
    const double c = a < kLeast ? kLeast : a;
    // e^c = 2^k e^r with |r| <= ln(2) / 2; k stands in the low bits of `shifted`.
    const double shifted = c * kLog2E + kRound;
    const double k = shifted - kRound;
    const double r = (c - k * kLn2) - k * kLn2Rest, r2 = r * r, r4 = r2 * r2;
    // Taylor, to r^12 / 12!: the rest is below 2^-52.
    const double low = (1 + r) + r2 * (1. / 2 + r * (1. / 6));
    const double middle = (1. / 24 + r * (1. / 120)) + r2 * (1. / 720 + r * (1. / 5040));
    const double high = (1. / 40320 + r * (1. / 362880)) +
                        r2 * (1. / 3628800 + r * (1. / 39916800)) + r4 * (1. / 479001600);
    const double power = low + r4 * (middle + r4 * high);
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    out[i] = a < kLeast ? 0 : power * scale;
  }
}

}  // namespace kvasir::KVASIR_SIMD
