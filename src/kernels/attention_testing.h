// Lanes, queries and jobs for tests of attention.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kernels/ref/attention.h"
#include "kernels/testing.h"

namespace kvasir {

// Entries as a test states them; lanes of any layout are made from them.
struct Entries {
  size_t dim;
  std::vector<uint32_t> positions;  // ascending
  std::vector<float> k, v;          // [positions][dim]

  Entries(size_t dim, std::vector<uint32_t> at, uint32_t seed)
      : dim(dim),
        positions(std::move(at)),
        k(Random(positions.size() * dim, seed)),
        v(Random(positions.size() * dim, seed + 1)) {}
};

inline std::vector<uint32_t> Range(uint32_t begin, uint32_t end) {
  std::vector<uint32_t> positions(end - begin);
  for (uint32_t i = 0; i < positions.size(); ++i) positions[i] = begin + i;
  return positions;
}
inline std::vector<uint32_t> Sparse(size_t n, uint32_t begin, uint32_t mean_gap, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<uint32_t> positions(n);
  uint32_t at = begin;
  for (uint32_t& p : positions) p = at += 1 + rng() % (2 * mean_gap - 1);
  return positions;
}

enum class Layout {
  kAligned,  // pages at multiples of 64 positions, absent positions dead
  kPacked,   // full pages with positions
  kHoles,    // pages with positions, of any length, a third of the slots dead
  kSingles,  // one entry per page
};

// A lane in memory. Slots without a live entry hold NaN. In a sparse form all pages but the last
// are packed, which stays dense.
class Lane {
 public:
  Lane(const Kernels& kernels, const Entries& entries, Layout layout, PlaneForm k, PlaneForm v)
      : kernels_(kernels), entries_(entries), k_(k), v_(v) {
    std::mt19937 rng(17);
    const size_t n = entries.positions.size();
    for (size_t i = 0; i < n;) {
      AddPage(layout);
      Page& page = pages_.back();
      const uint32_t first = entries.positions[i];
      size_t length = 64;
      if (layout == Layout::kHoles) length = 1 + rng() % 64;
      if (layout == Layout::kSingles) length = 1;
      if (layout == Layout::kAligned) {
        page.view.base = first / 64 * 64;
        for (; i < n && entries.positions[i] / 64 == first / 64; ++i) {
          Put(i, entries.positions[i] % 64);
        }
        continue;
      }
      for (size_t slot = 0; slot < length && i < n; ++slot) {
        (*page.positions)[slot] = entries.positions[i];
        if (layout == Layout::kHoles && rng() % 3 == 0) {
          page.view.filled = static_cast<uint8_t>(slot + 1);
        } else {
          Put(i++, slot);
        }
      }
    }
    for (size_t i = 0; i + 1 < pages_.size(); ++i) Seal(&pages_[i]);
    for (Page& page : pages_) views_.push_back(page.view);
  }

  LaneView view() const {
    return {views_.data(), static_cast<uint32_t>(views_.size()),
            static_cast<uint32_t>(entries_.positions.size()), static_cast<uint32_t>(entries_.dim)};
  }
  std::vector<PageView>& pages() { return views_; }

 private:
  struct Page {
    PageView view;
    std::vector<uint8_t> k, v;
    std::unique_ptr<std::vector<uint32_t>> positions;
  };

  void AddPage(Layout layout) {
    Page page;
    page.view.k_form = Open(k_);
    page.view.v_form = Open(v_);
    page.k.assign(PlaneBytes(page.view.k_form, entries_.dim) + 64, 0xff);
    page.v.assign(PlaneBytes(page.view.v_form, entries_.dim) + 64, 0xff);
    page.view.k = page.k.data();
    page.view.v = page.v.data();
    if (layout != Layout::kAligned) {
      page.positions = std::make_unique<std::vector<uint32_t>>(64);
      page.view.positions = page.positions->data();
    }
    pages_.push_back(std::move(page));
  }

  void Put(size_t entry, size_t slot) {
    Page& page = pages_.back();
    const size_t dim = entries_.dim;
    const PlaneKernels& planes = kernels_.planes;
    planes.encode_k[page.view.k_form.index()](&entries_.k[entry * dim], dim, 1, dim, slot,
                                              page.k.data());
    planes.encode_v[page.view.v_form.index()](&entries_.v[entry * dim], dim, 1, dim, slot,
                                              page.v.data());
    page.view.live |= uint64_t{1} << slot;
    page.view.filled = static_cast<uint8_t>(slot + 1);
  }

  // The form rows are written in.
  static PlaneForm Open(PlaneForm form) {
    return IsSparse(form.codec) ? PlaneForm(SparseSource(form.codec)) : form;
  }
  void Seal(Page* page) const {
    const PlaneKernels& planes = kernels_.planes;
    const auto seal = [&](PlaneForm form, const auto& pack, std::vector<uint8_t>* plane) {
      if (!IsSparse(form.codec)) return;
      std::vector<uint8_t> packed(PlaneBytes(form, entries_.dim) + 64, 0xff);
      pack[form.index()](plane->data(), form.Shape(entries_.dim), nullptr, packed.data());
      *plane = std::move(packed);
    };
    seal(k_, planes.pack_k, &page->k);
    seal(v_, planes.pack_v, &page->v);
    page->view.k = page->k.data();
    page->view.v = page->v.data();
    page->view.k_form = k_;
    page->view.v_form = v_;
  }

  const Kernels& kernels_;
  const Entries& entries_;
  PlaneForm k_, v_;
  std::vector<Page> pages_;
  std::vector<PageView> views_;
};

// Query rows of one job and where their output goes.
struct Queries {
  size_t dim;
  uint32_t rows, group, first, window;
  std::vector<float> q;

  Queries(size_t dim, uint32_t rows, uint32_t group, uint32_t first, uint32_t window = 0)
      : dim(dim),
        rows(rows),
        group(group),
        first(first),
        window(window),
        q(Random(rows * stride(), 99)) {}
  size_t stride() const { return group * dim + 3; }

  AttentionJob Job(const LaneView& lane, uint32_t row, uint32_t n, std::vector<float>* out) const {
    out->assign(n * stride(), -77.0f);
    AttentionJob job;
    job.lane = lane;
    job.q = q.data() + row * stride();
    job.out = out->data();
    job.row_stride = stride();
    job.rows = n;
    job.group = group;
    job.first_position = first + row;
    job.window = window;
    job.scale = 1 / std::sqrt(static_cast<float>(dim));
    return job;
  }
};

// A target and what it may round.
struct Arithmetic {
  const Kernels* kernels;
  Compute compute;
};
inline std::vector<Arithmetic> Arithmetics() {
  std::vector<Arithmetic> all;
  for (const Kernels* kernels : AvailableKernels()) {
    all.push_back({kernels, Compute::kExact});
    all.push_back({kernels, Compute::kFast});
  }
  return all;
}

class AttentionTest : public testing::TestWithParam<Arithmetic> {
 protected:
  const Kernels& kernels() const { return *GetParam().kernels; }
  Compute compute() const { return GetParam().compute; }
  // Largest error against the oracle: four operands rounded by up to 2^-8 each, scores of any size;
  // without dot products of bf16, kFast rounds queries of integer keys to 16 bits.
  double Bound() const {
    if (compute() == Compute::kExact) return 1e-11;
    return kernels().planes.pairs ? 4e-5 : 3e-9;
  }

  std::vector<float> Attend(const LaneView& lane, const Queries& queries, uint32_t row, uint32_t n,
                            size_t threads = 1) const {
    Workers workers(threads);
    AttentionScratch scratch(threads, queries.group, static_cast<uint32_t>(queries.dim), compute());
    std::vector<float> out;
    const AttentionJob job = queries.Job(lane, row, n, &out);
    Attention(kernels(), workers, {&job, 1}, scratch);
    return out;
  }
  std::vector<float> Attend(const LaneView& lane, const Queries& queries) const {
    return Attend(lane, queries, 0, queries.rows);
  }

  // Normalized mean square error against the oracle.
  double Error(const LaneView& lane, const Queries& queries) const {
    std::vector<float> out;
    const AttentionJob job = queries.Job(lane, 0, queries.rows, &out);
    out = Attend(lane, queries);
    const ref::ExpandedLane planes(lane);
    double error = 0, power = 0;
    for (uint32_t r = 0; r < queries.rows; ++r) {
      for (uint32_t g = 0; g < queries.group; ++g) {
        const std::vector<double> expected = ref::Attention(job, planes, r, g);
        for (size_t c = 0; c < queries.dim; ++c) {
          const double got = double{out[r * queries.stride() + g * queries.dim + c]};
          if (std::isnan(got)) return got;
          error += (got - expected[c]) * (got - expected[c]);
          power += expected[c] * expected[c];
        }
      }
      // What lies between rows is not the job's.
      EXPECT_EQ(out[r * queries.stride() + queries.group * queries.dim], -77.0f);
    }
    return error / power;
  }
};

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace kvasir
