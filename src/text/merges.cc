#include "text/merges.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

#include "base/error.h"

namespace kvasir {

MergeTable::MergeTable(size_t n_merges)
    : slots_(std::bit_ceil(2 * n_merges + 2)), taken_(slots_.size()) {
  shift_ = 64 - std::countr_zero(slots_.size());
}

size_t MergeTable::SlotOf(TokenId left, TokenId right) const {
  // Fibonacci hashing: the product's high bits depend on all bits of both ids.
  const uint64_t pair = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15u >> shift_;
}

void MergeTable::Add(TokenId left, TokenId right, Merge merge) {
  size_t at = SlotOf(left, right);
  while (slots_[at].left != kNoToken) {
    if (slots_[at].left == left && slots_[at].right == right) return;
    at = (at + 1) & (slots_.size() - 1);
  }
  slots_[at] = {left, right, merge};
  taken_[at] = true;
  n_ranks_ = std::max(n_ranks_, merge.rank + 1);
}

MergeTable::Merge MergeTable::Find(TokenId left, TokenId right) const {
  size_t at = SlotOf(left, right);
  while (taken_[at]) {
    if (slots_[at].left == left && slots_[at].right == right) return slots_[at].merge;
    at = (at + 1) & (slots_.size() - 1);
  }
  return {};
}

const std::vector<TokenId>& SymbolMerger::Merge() {
  // Words are short: looking through all pairs for each merge beats a heap up to here.
  constexpr size_t kFew = 24;
  if (symbols_.size() > kFew) {
    MergeMany();
  } else if (symbols_.size() > 1) {
    MergeFew();
  }
  return symbols_;
}

void SymbolMerger::MergeFew() {
  pairs_.clear();
  for (size_t i = 0; i + 1 < symbols_.size(); ++i) {
    pairs_.push_back(merges_.Find(symbols_[i], symbols_[i + 1]));
  }
  while (!pairs_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs_.size(); ++i) {
      if (pairs_[i].rank < pairs_[best].rank) best = i;
    }
    if (!pairs_[best].exists()) return;
    symbols_[best] = pairs_[best].merged;
    symbols_.erase(symbols_.begin() + static_cast<ptrdiff_t>(best) + 1);
    pairs_.erase(pairs_.begin() + static_cast<ptrdiff_t>(best));
    if (best < pairs_.size()) pairs_[best] = merges_.Find(symbols_[best], symbols_[best + 1]);
    if (best > 0) pairs_[best - 1] = merges_.Find(symbols_[best - 1], symbols_[best]);
  }
}

void SymbolMerger::LookAt(uint32_t at) {
  const uint32_t next = nodes_[at].next;
  if (next == kEnd) return;
  const MergeTable::Merge merge = merges_.Find(nodes_[at].symbol, nodes_[next].symbol);
  if (!merge.exists()) return;
  if (merge.rank <= rank_) {
    early_.push_back({merge.rank, at});
    std::ranges::push_heap(early_, std::greater<>());
    return;
  }
  uint32_t& first = first_[merge.rank];
  if (first == kEnd) {
    ranks_.push_back(merge.rank);
    std::ranges::push_heap(ranks_, std::greater<>());
  }
  if (first == kEnd || waiting_[first].size == waiting_[first].places.size()) {
    waiting_.push_back({.next = first});
    first = static_cast<uint32_t>(waiting_.size() - 1);
  }
  waiting_[first].places[waiting_[first].size++] = at;
}

void SymbolMerger::Apply(const Candidate& candidate) {
  // A candidate is stale once one of its symbols was merged away or grew.
  Node& node = nodes_[candidate.at];
  if (node.symbol == kNoToken || node.next == kEnd) return;
  Node& next = nodes_[node.next];
  const MergeTable::Merge merge = merges_.Find(node.symbol, next.symbol);
  if (merge.rank != candidate.rank) return;
  node.symbol = merge.merged;
  node.next = next.next;
  next.symbol = kNoToken;
  if (node.next != kEnd) nodes_[node.next].previous = candidate.at;
  LookAt(candidate.at);
  if (node.previous != kEnd) LookAt(node.previous);
}

bool SymbolMerger::OpenNextRank() {
  if (ranks_.empty()) return false;
  std::ranges::pop_heap(ranks_, std::greater<>());
  rank_ = ranks_.back();
  ranks_.pop_back();
  sweep_.clear();
  swept_ = 0;
  for (uint32_t i = std::exchange(first_[static_cast<size_t>(rank_)], kEnd); i != kEnd;
       i = waiting_[i].next) {
    const Waiting& part = waiting_[i];
    for (uint32_t k = part.size; k > 0; --k) sweep_.push_back(part.places[k - 1]);
  }
  std::ranges::reverse(sweep_);
  if (!std::ranges::is_sorted(sweep_)) std::ranges::sort(sweep_);
  return true;
}

bool SymbolMerger::TakeNext(Candidate* candidate) {
  do {
    const bool sweeping = swept_ < sweep_.size();
    if (sweeping) *candidate = {static_cast<uint32_t>(rank_), sweep_[swept_]};
    if (!early_.empty() && (!sweeping || early_.front() < *candidate)) {
      *candidate = early_.front();
      std::ranges::pop_heap(early_, std::greater<>());
      early_.pop_back();
      return true;
    }
    if (sweeping) {
      ++swept_;
      // The places of a rank are far apart: what comes soon is fetched early.
      constexpr size_t kAhead = 8;
      if (swept_ + kAhead < sweep_.size()) __builtin_prefetch(&nodes_[sweep_[swept_ + kAhead]]);
      return true;
    }
  } while (OpenNextRank());
  return false;
}

void SymbolMerger::MergeMany() {
  constexpr size_t kLong = 1024;
  CHECK(symbols_.size() < kEnd / 3);  // a symbol is a candidate up to three times
  const auto n = static_cast<uint32_t>(symbols_.size());
  nodes_.resize(n);
  for (uint32_t at = 0; at < n; ++at) nodes_[at] = {symbols_[at], at - 1, at + 1};
  nodes_.front().previous = kEnd;
  nodes_.back().next = kEnd;
  if (n < kLong) {
    rank_ = merges_.n_ranks();
  } else {
    rank_ = -1;
    first_.resize(merges_.n_ranks(), kEnd);  // a merge leaves all lists empty
  }
  waiting_.clear();
  sweep_.clear();
  swept_ = 0;
  for (uint32_t at = 0; at + 1 < n; ++at) LookAt(at);
  for (Candidate candidate; TakeNext(&candidate);) Apply(candidate);
  symbols_.clear();
  for (uint32_t at = 0; at != kEnd; at = nodes_[at].next) symbols_.push_back(nodes_[at].symbol);
}

}  // namespace kvasir
