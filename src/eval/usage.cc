#include "eval/usage.h"

namespace kvasir {

namespace {

double Ratio(uint64_t logical, uint64_t live) {
  return live > 0 ? static_cast<double>(logical) / static_cast<double>(live) : 1;
}

}  // namespace

UsageMeter::UsageMeter(Engine& engine) : engine_(engine) { engine.ResetPeaks(); }

void UsageMeter::AddPass(const LaneSet& lanes, uint32_t position, uint64_t entries,
                         const std::optional<PassReads>& reads) {
  reads_ = reads;
  const uint64_t n_lanes = lanes.shape().lanes();
  const uint64_t rows = lanes.next_position() - position;
  for (uint64_t row = 1; row <= rows; ++row) {
    logical_sum_ += n_lanes * (position + row);
    live_sum_ += row == rows ? lanes.n_entries() : entries + n_lanes * row;
  }
  tokens_ += rows;
  byte_tokens_ += static_cast<double>(engine_.ledger().bytes) * static_cast<double>(rows);
}

MemoryFigures UsageMeter::Figures(const LaneSet& lanes) const {
  const Ledger ledger = engine_.ledger();
  const LaneShape& shape = lanes.shape();
  MemoryFigures m;
  m.kv_peak_bytes = ledger.bytes_peak;
  m.kv_end_bytes = ledger.bytes;
  m.kv_mean_bytes = tokens_ > 0 ? byte_tokens_ / static_cast<double>(tokens_) : 0;
  m.live_entries = lanes.n_entries();
  m.logical_entries = shape.lanes() * lanes.next_position();
  // An entry that was packed has its position beside it.
  const uint64_t beside = lanes.dropped() > 0 ? sizeof(uint32_t) : 0;
  m.kv_live_bytes = lanes.live_bytes() + m.live_entries * beside;
  m.bytes_per_token =
      static_cast<double>(m.kv_end_bytes) / static_cast<double>(lanes.next_position());
  m.peak_entries = ledger.entries_peak_per_lane;
  m.ratio_end = Ratio(m.logical_entries, m.live_entries);
  m.ratio_mean = Ratio(logical_sum_, live_sum_);
  m.read_bytes_per_step = reads_ ? reads_->bytes : lanes.live_bytes();
  for (int use = 0; use < kPlaneUses; ++use) {
    if (ledger.bytes_by_use[use] == 0) continue;
    m.by_owner[std::string(Name(static_cast<PlaneUse>(use)))] = ledger.bytes_by_use[use];
  }
  if (ledger.bytes_side > 0) m.by_owner["policy"] = ledger.bytes_side;
  return m;
}

}  // namespace kvasir
