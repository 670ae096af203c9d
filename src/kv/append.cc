// The append cursor: rows into aligned tail pages. Pages are taken first, for all heads of a layer,
// because taking a plane may move others; then rows are encoded in parallel.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "kv/store.h"

namespace kvasir {

namespace {

constexpr size_t kParallelFloats = size_t{1} << 15;  // fewer are encoded on the calling thread

constexpr uint32_t Slot(uint32_t position) { return position % kPageEntries; }

constexpr uint64_t SlotMask(uint32_t begin, uint32_t end) {
  const uint64_t below = end == kPageEntries ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below & (~uint64_t{0} << begin);
}

}  // namespace

const LaneShape& AppendCursor::shape() const { return set_->shape(); }

uint32_t AppendCursor::n_appended(uint32_t layer) const {
  CHECK(set_ != nullptr && set_->HasLayer(layer));
  return appended_[layer - set_->shape().first_layer];
}

uint32_t AppendCursor::BlockRows(uint32_t layer) const {
  const uint32_t done = n_appended(layer), left = n_rows_ - done;
  const LaneShape& shape = set_->shape();
  if (!set_->sealing() || !shape.Forms(layer).seals()) return left;
  if (shape.seals.by_row) return std::min(left, 1u);
  // Up to the token after which the next page is sealed.
  const uint32_t seen = first_position_ + done, recent = shape.seals.recent;
  const uint32_t end = shape.seals.End(seen) + kPageEntries + recent;
  return std::min(left, end - seen);
}

void AppendCursor::Append(uint32_t layer, Rows k, Rows v, Rows q) {
  const uint32_t done = n_appended(layer), n = BlockRows(layer);
  CHECK_MSG(n > 0, "layer {} was appended already", layer);
  CHECK_MSG(k.count == n && v.count == n, "{} and {} rows in a block of {}", k.count, v.count, n);
  if (done > 0) {
    store_->SealBehind(*set_, set_->LaneIndex(layer, 0), set_->shape().n_kv_heads,
                       first_position_ + done);
  }
  store_->AppendRows(*set_, layer, first_position_ + done, k, v);
  if (set_->shape().seals.by_query) {
    CHECK(q.count == n);
    Store::CountQueries(*set_, layer, first_position_ + done, q);
  }
  appended_[layer - set_->shape().first_layer] += n;
}

LaneView AppendCursor::View(uint32_t layer, uint32_t head) const {
  return store_->View(*set_, layer, head);
}

void AppendCursor::Finish() {
  CHECK(set_ != nullptr);
  for (const uint32_t done : appended_) CHECK(done == n_rows_);
  set_->next_position_ += n_rows_;
  store_->SealBehind(*set_, 0, set_->lanes_.size(), set_->next_position_);
  set_->appending_ = false;
  set_ = nullptr;
}

AppendCursor Store::Append(LaneSetHandle& handle, uint32_t n_rows) {
  LaneSet& set = Changeable(handle);
  CHECK(n_rows > 0 && n_rows <= UINT32_MAX - set.next_position_);
  pool_.Compact();  // sets may have been released since the last commit
  set.appending_ = true;
  AppendCursor cursor;
  cursor.store_ = this;
  cursor.set_ = &set;
  cursor.n_rows_ = n_rows;
  cursor.first_position_ = set.next_position_;
  cursor.appended_.assign(set.shape_.n_layers, 0);
  return cursor;
}

PlaneId Store::TakePlane(LaneSet& set, PlaneForm form) {
  return pool_.Take(set.reservation_, PlaneBytes(form, set.shape_.head_dim), UseOf(form.codec));
}

PageRef Store::TakePage(LaneSet& set, size_t lane, bool sealed) {
  const LayerForms forms = set.FormsOf(lane);
  PageRef page;
  page.sealed = sealed;
  page.k_form = sealed ? forms.k.sealed : forms.k.open;
  page.v_form = sealed ? forms.v.sealed : forms.v.open;
  page.k = TakePlane(set, page.k_form);
  page.v = TakePlane(set, page.v_form);
  return page;
}

// Others see the open page: rows go into a copy of our own [contract: store.fork].
void Store::CopyOpenPage(LaneSet& set, size_t lane, PageRef& page) {
  const PageRef copy = TakePage(set, lane, page.sealed);
  std::memcpy(pool_.Address(copy.k), pool_.Address(page.k), pool_.Bytes(page.k));
  std::memcpy(pool_.Address(copy.v), pool_.Address(page.v), pool_.Bytes(page.v));
  pool_.Drop(page.k, set.reservation_);
  pool_.Drop(page.v, set.reservation_);
  page.k = copy.k;
  page.v = copy.v;
}

// Pages and live bits for rows from position `first` on.
void Store::GrowTail(LaneSet& set, size_t lane_index, uint32_t first, uint32_t n_rows) {
  Lane& lane = set.lanes_[lane_index];
  const uint32_t end = first + n_rows;
  for (uint32_t position = first; position < end;) {
    const uint32_t base = position - Slot(position);
    if (lane.tail.empty() || lane.tail.back().base != base) {
      lane.tail.push_back(TakePage(set, lane_index, /*sealed=*/false));
      lane.tail.back().base = base;  // slots before the first row stay dead
    } else if (IsShared(lane.tail.back())) {
      CopyOpenPage(set, lane_index, lane.tail.back());
    }
    PageRef& page = lane.tail.back();
    const uint32_t slots_end = std::min(end - base, kPageEntries);
    page.filled = static_cast<uint8_t>(slots_end);
    page.live |= SlotMask(Slot(position), slots_end);
    set.Touch(lane_index, lane.body.size() + lane.tail.size() - 1);
    position = base + slots_end;
  }
  lane.n_entries += n_rows;
  entries_peak_per_lane_ = std::max(entries_peak_per_lane_, lane.n_entries);
}

// In the order of positions and heads, so that sums do not depend on the passes.
void Store::CountQueries(LaneSet& set, uint32_t layer, uint32_t first, Rows q) {
  const LaneShape& shape = set.shape_;
  const size_t dim = shape.head_dim, group = q.dim / (dim * shape.n_kv_heads);
  CHECK(group > 0 && q.dim == group * dim * shape.n_kv_heads);
  for (uint32_t head = 0; head < shape.n_kv_heads; ++head) {
    const size_t lane = set.LaneIndex(layer, head);
    const std::span<float> open = set.QuerySums(lane, false), complete = set.QuerySums(lane, true);
    for (uint32_t r = 0; r < q.count; ++r) {
      if ((first + r) % kQueryBlock == 0) {
        std::copy(open.begin(), open.end(), complete.begin());
        std::fill(open.begin(), open.end(), 0.0f);
      }
      const float* row = q.row(r) + head * group * dim;
      for (size_t g = 0; g < group; ++g, row += dim) {
        for (size_t c = 0; c < dim; ++c) open[c] += std::abs(row[c]);
      }
    }
  }
}

void Store::AppendRows(LaneSet& set, uint32_t layer, uint32_t first, Rows k, Rows v) {
  const LaneShape& shape = set.shape_;
  const auto n_rows = static_cast<uint32_t>(k.count);
  const size_t row_floats = size_t{shape.n_kv_heads} * shape.head_dim;
  CHECK(k.dim == row_floats && v.dim == row_floats);
  const size_t first_lane = set.LaneIndex(layer, 0);
  for (uint32_t h = 0; h < shape.n_kv_heads; ++h) GrowTail(set, first_lane + h, first, n_rows);

  const uint32_t end = first + n_rows;
  const size_t n_pages = (end - 1) / kPageEntries - first / kPageEntries + 1;
  const PlaneKernels& kernels = kernels_.planes;
  const auto encode = [&](size_t task, size_t /*worker*/) {
    const size_t head = task / n_pages, nth = task % n_pages;
    const std::vector<PageRef>& tail = set.lanes_[first_lane + head].tail;
    const PageRef& page = tail[tail.size() - n_pages + nth];
    const uint32_t begin = std::max(first, page.base);
    const uint32_t n = std::min(end, page.base + kPageEntries) - begin;
    const size_t row = begin - first, column = head * shape.head_dim;
    kernels.encode_k[page.k_form.index()](k.row(row) + column, k.stride, n, shape.head_dim,
                                          Slot(begin), pool_.Address(page.k));
    kernels.encode_v[page.v_form.index()](v.row(row) + column, v.stride, n, shape.head_dim,
                                          Slot(begin), pool_.Address(page.v));
  };
  const size_t n_tasks = n_pages * shape.n_kv_heads;
  if (workers_ != nullptr && 2 * n_rows * row_floats >= kParallelFloats) {
    workers_->Run(n_tasks, encode);
  } else {
    for (size_t task = 0; task < n_tasks; ++task) encode(task, 0);
  }
}

}  // namespace kvasir
