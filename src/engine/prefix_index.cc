#include "engine/prefix_index.h"

#include <algorithm>
#include <utility>

namespace kvasir {

namespace {

// Whether it serves as it is, with a policy's state, or at any cut.
bool IsWhole(const Snapshot& snapshot) { return snapshot.state.policy != nullptr; }

// Whether everything that `b` can serve is served by `a` as well.
bool StandsFor(const Snapshot& a, const Snapshot& b) {
  if (a.salt != b.salt || IsWhole(a) != IsWhole(b)) return false;
  const std::vector<int32_t>&x = a.state.tokens, &y = b.state.tokens;
  if (IsWhole(a)) return x == y && a.pinned == b.pinned;
  const auto length = static_cast<uint32_t>(y.size());
  return CommonTokens(x, y) == length && a.state.lanes->CanCutAt(length);
}

}  // namespace

uint32_t CommonTokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<uint32_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first -
      a.begin());
}

uint32_t CommonTokens(std::span<const int32_t> tokens, const PrefixQuery& query) {
  if (query.tokens.empty()) return 0;
  return CommonTokens(tokens, query.tokens.first(query.tokens.size() - 1));
}

uint32_t UsableCut(std::span<const int32_t> tokens, const PrefixQuery& query, uint32_t grain) {
  const uint32_t cut = std::min(CommonTokens(tokens, query), query.most_cut);
  return cut - cut % grain;
}

PrefixIndex::Hit PrefixIndex::Find(const PrefixQuery& query) {
  Hit best;
  for (Snapshot& snapshot : snapshots_) {
    if (snapshot.salt != query.salt) continue;
    uint32_t length = 0;
    if (!IsWhole(snapshot)) {
      length = UsableCut(snapshot.state.tokens, query, grain_);
      if (!snapshot.state.lanes->CanCutAt(length)) length = 0;
    } else if (std::ranges::equal(snapshot.pinned, query.pinned) &&
               CommonTokens(snapshot.state.tokens, query) == snapshot.state.tokens.size()) {
      length = static_cast<uint32_t>(snapshot.state.tokens.size());
    }
    const bool better = length > best.length || (length > 0 && length == best.length &&
                                                 snapshot.uses > best.snapshot->uses);
    if (better) best = {&snapshot, length};
  }
  return best;
}

void PrefixIndex::Touch(Snapshot& snapshot) {
  ++snapshot.uses;
  snapshot.last_use = ++clock_;
}

void PrefixIndex::Add(Snapshot snapshot) {
  snapshot.last_use = ++clock_;
  for (auto it = snapshots_.begin(); it != snapshots_.end();) {
    if (StandsFor(*it, snapshot)) {
      it->last_use = clock_;
      return;
    }
    if (StandsFor(snapshot, *it)) {
      snapshot.uses = std::max(snapshot.uses, it->uses);
      it = snapshots_.erase(it);
    } else {
      ++it;
    }
  }
  snapshots_.push_back(std::move(snapshot));
  if (snapshots_.size() > kMostSnapshots) DropLeastUseful(&snapshots_.back());
}

bool PrefixIndex::DropLeastUseful(const Snapshot* keep) {
  auto least = snapshots_.end();
  double least_use = 0;
  for (auto it = snapshots_.begin(); it != snapshots_.end(); ++it) {
    if (&*it == keep) continue;
    // Tokens saved per entry held, for as often as it was used and as long as it has been idle.
    const double tokens = static_cast<double>(it->state.tokens.size());
    const double entries = static_cast<double>(std::max<uint64_t>(it->state.lanes->n_entries(), 1));
    const double age = static_cast<double>(clock_ - it->last_use + 1);
    const double use = static_cast<double>(it->uses + 1) * tokens / (entries * age);
    if (least == snapshots_.end() || use < least_use) {
      least = it;
      least_use = use;
    }
  }
  if (least == snapshots_.end()) return false;
  snapshots_.erase(least);
  ++n_dropped_;
  return true;
}

void PrefixIndex::Clear() { snapshots_.clear(); }

}  // namespace kvasir
