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

// Values, scales and bitmaps of a plane that is being made; zeros at first.
struct Parts {
  PlaneForm form;
  size_t dim, width;
  std::vector<uint8_t> bytes;

  Parts(PlaneForm form, size_t dim)
      : form(form), dim(dim), width(SparseValueBytes(form.codec)), bytes(PlaneBytes(form, dim)) {}
  uint8_t* bitmaps() { return bytes.data() + SparseBitmapsAt(form); }
};

void TakeValueRows(std::span<const SparseRow> rows, Parts* to) {
  const size_t bytes = to->form.keep * to->width, words = BitmapWords(to->dim);
  const size_t bitmaps = SparseBitmapsAt(to->form);
  for (size_t e = 0; e < rows.size(); ++e) {
    std::memcpy(to->bytes.data() + e * bytes, rows[e].plane + rows[e].slot * bytes, bytes);
    std::memcpy(to->bitmaps() + e * words * 8, rows[e].plane + bitmaps + rows[e].slot * words * 8,
                words * 8);
  }
  for (size_t e = rows.size(); e < kPageEntries; ++e) {
    for (size_t c = 0; c < to->form.keep; ++c) {
      to->bitmaps()[e * words * 8 + c / 8] |= static_cast<uint8_t>(1u << c % 8);
    }
  }
}

// Channel after channel: where a plane's values of a channel begin depends on those before.
void TakeKeyRows(std::span<const SparseRow> rows, Parts* to) {
  struct Source {
    const uint8_t* plane;
    const uint8_t* values;
    uint64_t bitmap;
  };
  std::vector<Source> sources;  // runs of rows of one plane
  std::vector<size_t> source_of(rows.size());
  for (size_t e = 0; e < rows.size(); ++e) {
    const auto at = std::find_if(sources.begin(), sources.end(),
                                 [&](const Source& s) { return s.plane == rows[e].plane; });
    source_of[e] = static_cast<size_t>(at - sources.begin());
    if (at == sources.end()) sources.push_back({rows[e].plane, rows[e].plane, 0});
  }
  const size_t bitmaps = SparseBitmapsAt(to->form), width = to->width;
  uint8_t* out = to->bytes.data();
  for (size_t c = 0; c < to->dim; ++c) {
    for (Source& source : sources) source.bitmap = WordAt(source.plane + bitmaps + 8 * c);
    uint64_t kept = 0;
    for (size_t e = 0; e < rows.size(); ++e) {
      const Source& source = sources[source_of[e]];
      const uint64_t bit = uint64_t{1} << rows[e].slot;
      if ((source.bitmap & bit) == 0) continue;
      const auto before = static_cast<size_t>(std::popcount(source.bitmap & (bit - 1)));
      std::memcpy(out, source.values + before * width, width);
      out += width;
      kept |= uint64_t{1} << e;
    }
    if (c < to->form.keep && rows.size() < kPageEntries) {
      const uint64_t rest = ~uint64_t{0} << rows.size();
      out += static_cast<size_t>(std::popcount(rest)) * width;
      kept |= rest;
    }
    std::memcpy(to->bitmaps() + 8 * c, &kept, sizeof(kept));
    for (Source& source : sources) {
      source.values += static_cast<size_t>(std::popcount(source.bitmap)) * width;
    }
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

void TakeRows(PlaneForm form, size_t dim, bool keys, std::span<const SparseRow> rows,
              uint8_t* out) {
  CHECK(IsSparse(form.codec) && rows.size() <= kPageEntries);
  Parts to(form, dim);
  if (form.codec == Codec::kSparseI8) {
    const size_t scales = SparseScalesAt(form);
    for (size_t e = 0; e < rows.size(); ++e) {
      std::memcpy(to.bytes.data() + scales + 2 * e, rows[e].plane + scales + 2 * rows[e].slot, 2);
    }
  }
  if (keys) {
    TakeKeyRows(rows, &to);
  } else {
    TakeValueRows(rows, &to);
  }
  std::memcpy(out, to.bytes.data(), to.bytes.size());
}

}  // namespace kvasir
