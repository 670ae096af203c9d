#include "kernels/sparse_plane.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace kvasir {

namespace {

uint64_t WordAt(const uint8_t* at) {
  uint64_t word = 0;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

size_t BitsOfRow(const uint8_t* at, size_t dim) {
  size_t bits = 0;
  for (size_t i = 0; i < BitmapWords(dim); ++i) {
    bits += static_cast<size_t>(std::popcount(WordAt(at + 8 * i)));
  }
  return bits;
}

const char* CheckKeyBitmaps(PlaneForm form, size_t dim, const uint8_t* bitmaps) {
  std::array<uint16_t, kPageEntries> bits = {};
  for (size_t c = 0; c < kPageEntries * BitmapWords(dim); ++c) {
    uint64_t word = WordAt(bitmaps + 8 * c);
    if (c >= dim && word != 0) return "bits beyond the channels";
    for (; word != 0; word &= word - 1) ++bits[static_cast<size_t>(std::countr_zero(word))];
  }
  const bool all =
      std::all_of(bits.begin(), bits.end(), [&](uint16_t n) { return n == form.keep; });
  return all ? nullptr : "a row with another number of channels";
}

const char* CheckValueBitmaps(PlaneForm form, size_t dim, const uint8_t* bitmaps) {
  const size_t row = 8 * BitmapWords(dim);
  for (size_t e = 0; e < kPageEntries; ++e, bitmaps += row) {
    if (dim % 64 != 0 && WordAt(bitmaps + row - 8) >> dim % 64 != 0) {
      return "bits beyond the channels";
    }
    if (BitsOfRow(bitmaps, dim) != form.keep) return "a row with another number of channels";
  }
  return nullptr;
}

void TakeValueRows(PlaneForm form, size_t dim, std::span<const SparseRows> from, uint8_t* out) {
  const size_t row = form.keep * SparseValueBytes(form.codec), bitmap = BitmapWords(dim) * 8;
  const size_t scales = SparseScalesAt(form), bitmaps = SparseBitmapsAt(form);
  size_t to = 0;
  const auto copy = [&](const uint8_t* plane, size_t slot, size_t at, size_t bytes) {
    std::memcpy(out + at + to * bytes, plane + at + slot * bytes, bytes);
  };
  for (const SparseRows& rows : from) {
    for (uint64_t left = rows.slots; left != 0; left &= left - 1, ++to) {
      const auto slot = static_cast<size_t>(std::countr_zero(left));
      copy(rows.plane, slot, 0, row);
      if (scales != bitmaps) copy(rows.plane, slot, scales, 2);
      copy(rows.plane, slot, bitmaps, bitmap);
    }
  }
  for (; to < kPageEntries; ++to) {
    std::memset(out + to * row, 0, row);
    if (scales != bitmaps) std::memset(out + scales + 2 * to, 0, 2);
    uint8_t* bits = out + bitmaps + to * bitmap;
    std::memset(bits, 0, bitmap);
    for (size_t c = 0; c < form.keep; ++c) bits[c / 8] |= static_cast<uint8_t>(1u << c % 8);
  }
}

}  // namespace

const char* CheckPlane(PlaneForm form, size_t dim, bool keys, std::span<const uint8_t> plane) {
  CHECK(IsSparse(form.codec) && form.keep > 0 && form.keep <= dim && dim <= kMaxHeadDim);
  CHECK(plane.size() == PlaneBytes(form, dim));
  if (form.codec == Codec::kSparseI8) {
    const uint8_t* values = plane.data();
    if (std::find(values, values + SparseScalesAt(form), 0x80) != values + SparseScalesAt(form)) {
      return "an integer below -127";
    }
    for (size_t e = 0; e < kPageEntries; ++e) {
      uint16_t scale = 0;
      std::memcpy(&scale, values + SparseScalesAt(form) + 2 * e, sizeof(scale));
      if (scale >= 0x8000 || scale == 0x7c00) return "a scale that is negative or infinite";
    }
  }
  const uint8_t* bitmaps = plane.data() + SparseBitmapsAt(form);
  return keys ? CheckKeyBitmaps(form, dim, bitmaps) : CheckValueBitmaps(form, dim, bitmaps);
}

bool KeepsChannel(PlaneForm form, size_t dim, bool keys, const uint8_t* plane, size_t slot,
                  size_t c) {
  const size_t word = keys ? c : slot * BitmapWords(dim) + c / 64, bit = keys ? slot : c % 64;
  return (WordAt(plane + SparseBitmapsAt(form) + 8 * word) >> bit & 1) != 0;
}

void TakeRows(const PlaneKernels& kernels, PlaneForm form, size_t dim, bool keys,
              std::span<const SparseRows> from, uint8_t* out) {
  size_t n = 0;
  for (const SparseRows& rows : from) n += static_cast<size_t>(std::popcount(rows.slots));
  CHECK(IsSparse(form.codec) && n <= kPageEntries && from.size() <= kPageEntries);
  std::vector<uint8_t> plane(PlaneBytes(form, dim));
  if (keys) {
    kernels.take_k[form.index()](from.data(), from.size(), form.Shape(dim), plane.data());
  } else {
    TakeValueRows(form, dim, from, plane.data());
  }
  std::memcpy(out, plane.data(), plane.size());
}

}  // namespace kvasir
