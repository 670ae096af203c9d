// What sequences may begin with, and what they leave for others.
#include <algorithm>
#include <utility>

#include "engine/sequence.h"

namespace kvasir {

namespace {

// A request does not begin to wait for somebody who reads fewer tokens than this for it.
constexpr uint32_t kWorthWaiting = 16;

}  // namespace

PrefixQuery Engine::QueryOf(const Sequence& s) const {
  PrefixQuery query = {.tokens = s.known, .salt = s.request.salt, .pinned = s.request.pinned};
  if (policy_) {
    // One that was parked reads its answer again as an answer: for its policy that is no prompt.
    query.tokens = query.tokens.first(std::min<size_t>(s.known.size(), s.prompt_end + 1));
    const std::optional<uint32_t> rows = policy_->rows_to_see();
    query.most_cut = rows ? s.prompt_end - std::min(s.prompt_end, *rows) : 0;
  }
  return query;
}

std::span<const int32_t> Engine::Shareable(const Sequence& s) {
  const std::span<const int32_t> tokens = s.state->tokens;
  const PolicyState* const policy = s.state->policy.get();
  return policy ? tokens.first(std::min<size_t>(tokens.size(), policy->shareable_rows())) : tokens;
}

Engine::Prefix Engine::FindPrefix(const Sequence& s) {
  if (!s.publishes || s.request.prompt_logprobs) return {};
  const PrefixQuery query = QueryOf(s);
  Prefix best;
  const PrefixIndex::Hit hit = prefixes_->Find(query);
  if (hit.snapshot) {
    best = {.lanes = &hit.snapshot->state.lanes,
            .length = hit.length,
            .cut = hit.snapshot->state.policy == nullptr,
            .policy = hit.snapshot->state.policy.get(),
            .snapshot = hit.snapshot};
  }
  for (const auto& other : running_) {
    if (!other->publishes || other->request.salt != s.request.salt) continue;
    if (other->state->lanes->dropped() > 0) continue;
    const uint32_t length = UsableCut(Shareable(*other), query, block());
    if (length > best.length && other->state->lanes->CanCutAt(length)) {
      best = {.lanes = &other->state->lanes, .length = length, .cut = true};
    }
  }
  return best;
}

uint32_t Engine::ComingCut(const Sequence& other, const PrefixQuery& query) const {
  const std::span<const int32_t> prompt(other.known.data(), other.prompt_end);
  const uint32_t cut = UsableCut(prompt, query, block());
  const uint64_t cap = GrowthFor(other, other.prompt_end).cap;
  const bool grid = policy_ && policy_->traits().sharing == Sharing::kGrid;
  const bool whole = grid && !policy_->rows_to_see();  // shared with its policy's state alone
  const uint32_t last = other.prompt_end - other.prompt_end % block();
  if (!whole && !(grid && other.prompt_end > cap)) {
    const bool anywhere = shape_.seals.End(cut) == shape_.seals.End(last);
    return anywhere ? cut : cut - cut % prefix_interval_;
  }
  // It is shared where it publishes: at its last block, and at intervals.
  const uint32_t common = CommonTokens(prompt, query);
  const uint32_t point = common >= last ? last : common - common % prefix_interval_;
  return whole || point > cap ? point : std::min(point, cut);
}

bool Engine::WaitsForPrefix(Sequence& s) {
  if (!s.publishes || s.request.prompt_logprobs) return false;
  const PrefixQuery query = QueryOf(s);
  uint32_t coming = 0;
  for (const auto& other : running_) {
    if (!other->publishes || !other->in_prompt() || other->request.salt != s.request.salt) continue;
    const uint32_t point = ComingCut(*other, query);
    if (point > other->position()) coming = std::max(coming, point);
  }
  const uint32_t worth = s.waits ? 1 : kWorthWaiting;
  s.waits = coming > 0 && coming >= FindPrefix(s).length + worth;
  return s.waits;
}

// A snapshot of the first `position` positions of a sequence that goes on.
void Engine::PublishLanes(Sequence& s, uint32_t position, bool make_room) {
  SequenceState& state = *s.state;
  const bool whole = state.lanes->dropped() > 0 || (policy_ && !policy_->rows_to_see());
  // Its own are the copies of the page that a cut falls into and of those that will be sealed, or
  // what a policy has recorded.
  const uint32_t rest = position % kPageEntries;
  const bool copies = !whole && (rest > 0 || seals());
  if (!whole && !state.lanes->CanCutAt(position)) return;
  Demand own = ForkDemand(shape_, position, copies ? 1 : 0, {});
  if (whole) own.AddSide(policy_->EvidenceBytes(GrowthFor(s, position)));
  Snapshot snapshot;
  const auto fork = [&] {
    snapshot.state.lanes =
        whole ? store_.Fork(state.lanes, own) : store_.ForkAt(state.lanes, position, own);
    return bool(snapshot.state.lanes);
  };
  const Demand room = store_.ForkRoom(*state.lanes, own, !whole);
  if (!(make_room ? WithRoom(room, nullptr, fork) : fork())) return;
  store_.Freeze(snapshot.state.lanes);
  if (whole) snapshot.state.policy = state.policy->Fork();
  snapshot.state.tokens.assign(state.tokens.begin(), state.tokens.begin() + position);
  snapshot.salt = s.request.salt;
  snapshot.pinned = s.request.pinned;
  prefixes_->Add(std::move(snapshot));
}

uint32_t Engine::NextShared(const Sequence& s) const {
  const uint32_t at = s.position();
  uint32_t next = std::min(s.prompt_end, at - at % prefix_interval_ + prefix_interval_);
  for (const PositionSpan& span : s.request.pinned) {
    if (span.second > at) next = std::min(next, span.second);
  }
  return next;
}

// After a pass whose plan has been committed. A policy that drops leaves nothing of earlier states,
// nor does one that adds up what it saw, nor do pages that change their form. So the state is
// published while it stands at a block that others are likely to share: the last one of the prompt,
// those at the end of what the caller pinned, and some in between.
void Engine::PublishBlock(Sequence& s) {
  const uint32_t at = s.position();
  if (at > s.prompt_end || at % block() != 0) return;
  if (s.state->lanes->dropped() == 0 && (!policy_ || policy_->rows_to_see())) {
    if (!seals()) return;  // it can be cut here at any time
  } else if (policy_->traits().sharing != Sharing::kGrid) {
    return;
  }
  bool likely = at + block() > s.prompt_end;
  for (const PositionSpan& span : s.request.pinned) {
    likely |= span.second >= at && span.second < at + block();
  }
  if (likely || at % prefix_interval_ == 0) PublishLanes(s, at, likely);
}

// Before the first plan that drops anything: what came before its block can still be cut anywhere.
void Engine::PublishUndropped(Sequence& s) {
  if (!policy_->rows_to_see()) return;  // nobody could begin there
  const uint32_t end = (s.position() - 1) / block() * block();
  if (end > 0) PublishLanes(s, end, true);
}

// A sequence that ends, or is parked, leaves its lanes as they are.
void Engine::PublishEnd(Sequence& s) {
  if (!s.publishes || !s.state || s.state->tokens.empty() || s.state->lanes->dropped() > 0) return;
  if (policy_ && !policy_->rows_to_see()) return;
  s.state->tokens.resize(Shareable(s).size());  // the lanes may hold more; they are only cut
  store_.Freeze(s.state->lanes);
  store_.ReturnSide(s.state->lanes);  // its policy's state ends with it
  Snapshot snapshot;
  snapshot.state.lanes = std::move(s.state->lanes);
  snapshot.state.tokens = std::move(s.state->tokens);
  snapshot.salt = s.request.salt;
  snapshot.pinned = s.request.pinned;
  prefixes_->Add(std::move(snapshot));
}

void Engine::DropPrefixes() {
  if (prefixes_) prefixes_->Clear();
}

}  // namespace kvasir
