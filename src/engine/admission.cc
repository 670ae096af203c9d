// Who gets in, and who has to make room: limits, reservations, parking.
#include <algorithm>
#include <utility>

#include "engine/sequence.h"

namespace kvasir {

namespace {

// A fork of up to this many tokens, a question and its answer, is granted the pages that they fill
// and no room to pack: what it drops of its parent's pages frees nothing, and copies of them would
// cost more than they save.
constexpr uint64_t kShortFork = 128;

// What `want` asks for beyond `have`.
Demand Beyond(const Demand& want, const Demand& have) {
  Demand more;
  more.AddSide(want.side_bytes() - std::min(want.side_bytes(), have.side_bytes()));
  more.AddPositions(want.positions() - std::min(want.positions(), have.positions()));
  for (const auto& [bytes, n] : want.planes()) {
    const auto granted = have.planes().find(bytes);
    const auto added = more.planes().find(bytes);
    const uint64_t has = (granted == have.planes().end() ? 0 : granted->second) +
                         (added == more.planes().end() ? 0 : added->second);
    if (n > has) more.Add(bytes, n - has);
  }
  return more;
}

}  // namespace

const Policy* Engine::PolicyOf(const Sequence& s) const {
  const SequenceState* from = s.state ? s.state.get() : s.request.fork_of;
  // A state goes on under the policy it began with, or without one if that was let go.
  if (from && !s.request.policy) {
    if (!from->policy) return nullptr;
    if (from->policy_of_own) return from->policy_of_own.get();
  }
  return s.request.policy ? s.request.policy.get() : policy_.get();
}

Growth Engine::GrowthFor(const Sequence& s, uint64_t tokens) const {
  const Policy* const policy = PolicyOf(s);
  const SequenceState* const from = s.state ? s.state.get() : s.request.fork_of;
  const bool open = shape_.seals.at_prompt_end && !(from && from->lanes->sealing());
  const uint64_t prompt = open ? s.prompt_end : 0;
  if (policy == nullptr) return {.tokens = tokens, .prompt = prompt};
  uint64_t pinned = 0;
  for (const PositionSpan& span : s.request.pinned) pinned += span.second - span.first;
  Growth growth = policy->MaxGrowth(s.prompt_end, tokens, pinned);
  growth.prompt = prompt;
  // Behind a prompt that was dropped from, no more rows can lie between two commits than follow.
  const bool behind = s.state && s.state->lanes->dropped() > 0 && s.position() >= s.prompt_end;
  if (behind && s.prefix == 0 && !s.resumed) {
    growth.rows = std::min(growth.rows, std::max<uint64_t>(tokens - s.prompt_end, 1));
  }
  return growth;
}

Demand Engine::DemandFor(const Sequence& sequence, uint64_t tokens) const {
  const Growth growth = GrowthFor(sequence, tokens);
  Demand demand;
  if (sequence.prefix == 0 || sequence.resumed) {
    demand = MaxDemand(shape_, growth);
  } else {
    const uint64_t rows = tokens - sequence.prefix;
    const bool is_short = sequence.request.fork_of && rows <= kShortFork;
    demand = ForkDemand(shape_, sequence.prefix, rows,
                        is_short ? Growth{.tokens = tokens, .prompt = growth.prompt} : growth);
  }
  if (const Policy* const policy = PolicyOf(sequence)) {
    demand.AddSide(policy->EvidenceBytes(growth));
  }
  return demand;
}

// What a prompt that was dropped from needed and what comes after it does not is free for others.
void Engine::GiveBack(Sequence& s) {
  if (s.position() != s.prompt_end || s.prefix > 0 || s.resumed) return;
  s.state->granted = DemandFor(s, std::max(s.granted_end, s.end()));
  store_.Shrink(s.state->lanes, s.state->granted);
}

void Engine::RefuseBudget(const Sequence& sequence, const Demand& demand) const {
  Fail(Code::kBudget,
       "KV budget: a prompt of {} tokens{} needs {} bytes of KV memory, --kv-memory allows {}: "
       "give it more, "
       "or let a policy keep less (--kv-policy keydiff:budget=N, -ctk q8_0 -ctv q8_0)",
       sequence.prompt_end,
       sequence.request.max_tokens ? fmt::format(" and {} to generate", sequence.max_new) : "",
       store_.InWholeSlabs(demand), options_.kv_memory);
}

void Engine::SetLimits(Sequence& sequence) const {
  const uint32_t known = sequence.prompt_end + sequence.n_forced();
  const uint32_t room = context_ - known;
  const std::optional<uint32_t>& asked = sequence.request.max_tokens;
  if (asked) {
    sequence.max_new = std::min(*asked, room);
    if (sequence.max_new < *asked) sequence.limit = "context";
    const Demand demand = DemandFor(sequence, sequence.last_position());
    if (!store_.FitsEmpty(demand)) RefuseBudget(sequence, demand);
    return;
  }
  // Without a limit: as many as an empty budget would hold after the prompt, within the context and
  // a fixed bound, so that one open-ended request does not keep all others out.
  const auto fits = [&](uint64_t n) { return store_.FitsEmpty(DemandFor(sequence, known + n)); };
  if (!fits(0)) RefuseBudget(sequence, DemandFor(sequence, known));
  uint64_t low = 0, high = std::min(kFirstTokens, room);
  sequence.limit = room <= kFirstTokens ? "context" : "default length";
  if (fits(high)) {
    low = high;
  } else {
    sequence.limit = "KV budget";
    while (high - low > 1) {
      const uint64_t middle = (low + high) / 2;
      (fits(middle) ? low : high) = middle;
    }
  }
  sequence.max_new = static_cast<uint32_t>(low);
}

bool Engine::Resume(Sequence& s) {
  const Demand more = Beyond(DemandFor(s, s.last_position()), s.state->granted);
  if (more.empty()) return true;
  if (!WithRoom(more, nullptr, [&] { return store_.Extend(s.state->lanes, more); })) return false;
  s.state->granted.Add(more);
  return true;
}

bool Engine::Begin(Sequence& s, const Prefix& prefix) {
  const Request& r = s.request;
  s.prefix = prefix.length;
  s.granted_end = std::min(s.last_position(), std::max(s.prompt_end + kFirstTokens, s.end()));
  auto state = std::make_unique<SequenceState>();
  state->granted = DemandFor(s, s.granted_end);
  const Demand room =
      prefix.lanes ? store_.ForkRoom(**prefix.lanes, state->granted, prefix.cut) : state->granted;
  const bool there = WithRoom(room, prefix.snapshot, [&] {
    if (!prefix.lanes) {
      state->lanes = store_.Create(shape_, LaneRole::kMain, state->granted);
    } else if (prefix.cut) {
      state->lanes = store_.ForkAt(*prefix.lanes, prefix.length, state->granted);
    } else {
      state->lanes = store_.Fork(*prefix.lanes, state->granted);
    }
    return bool(state->lanes);
  });
  if (!there) return false;
  state->tokens.assign(s.known.begin(), s.known.begin() + prefix.length);
  if (prefix.policy) {
    state->policy = prefix.policy->Fork();
    if (r.fork_of) state->policy_of_own = r.fork_of->policy_of_own;
  } else if (const Policy* const policy = PolicyOf(s)) {
    state->policy = policy->Begin({.shape = shape_, .pinned = r.pinned, .one_turn = !r.keep_state});
    state->policy_of_own = r.policy;
  }
  s.state = std::move(state);
  if (prefix.snapshot) prefixes_->Touch(*prefix.snapshot);
  return true;
}

bool Engine::Admit(Sequence& s) {
  Request& r = s.request;
  if (s.resumed) {
    if (!Resume(s)) return false;
    s.granted_end = s.last_position();
  } else if (r.fork_of) {
    if (!Begin(s, {.lanes = &r.fork_of->lanes,
                   .length = static_cast<uint32_t>(r.fork_of->tokens.size()),
                   .policy = r.policy ? nullptr : r.fork_of->policy.get()})) {
      return false;
    }
  } else {
    // With what is there already if that fits, else from nothing.
    const Prefix prefix = FindPrefix(s);
    if (!(prefix.lanes && Begin(s, prefix)) && !Begin(s, {})) return false;
  }
  const Policy* const policy = PolicyOf(s);
  if (policy && policy->pins() && !r.pinned.empty()) {
    Plan plan;
    for (const PositionSpan& span : r.pinned) plan.protects.push_back({span.first, span.second});
    store_.Commit(s.state->lanes, plan);
  }
  s.prompt_logprobs.clear();
  if (s.sampler) return true;  // it was parked
  s.sampler = std::make_unique<Sampler>(r.sampling, s.known);
  if (tokenizer_) {
    const bool at_start = s.prompt_end == 1 && s.known[0] == tokenizer_->bos();
    s.decoder = std::make_unique<StreamDecoder>(*tokenizer_, at_start);
  }
  if (s.publishes) {
    s.cached = s.prefix;
    stats_.prefix_queried_tokens += s.prompt_end;
    stats_.prefix_hit_tokens += s.prefix;
  }
  stats_.prompt_tokens += s.prompt_end;
  s.admitted = std::chrono::steady_clock::now();
  return true;
}

std::unique_ptr<Engine::Sequence> Engine::TakeWaiting(size_t index) {
  std::unique_ptr<Sequence> sequence = std::move(waiting_[index]);
  waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(index));
  return sequence;
}

bool Engine::AdmitWaiting() {
  bool refused = false;
  const auto refuse = [&](size_t index, Error error) {
    std::unique_ptr<Sequence> sequence = TakeWaiting(index);
    sequence->error = std::move(error);
    Finish(std::move(sequence), StopReason::kLength, "refused");
    refused = true;
  };
  const auto now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < waiting_.size();) {
    const Sequence& s = *waiting_[i];
    if (s.n_parked == 0 && s.request.admit_by && now > *s.request.admit_by) {
      refuse(i, Error(Code::kUnavailable,
                      "the request waited too long for KV memory: try again later"));
    } else {
      ++i;
    }
  }
  for (size_t i = 0; i < waiting_.size() && running_.size() < options_.max_sequences;) {
    if (WaitsForPrefix(*waiting_[i])) {
      ++i;
      continue;
    }
    if (Admit(*waiting_[i])) {
      running_.push_back(TakeWaiting(i));
      continue;
    }
    if (!running_.empty()) break;  // bytes come back when a running sequence ends
    // Nothing runs and still it does not fit: states held outside fill the budget.
    const Sequence& s = *waiting_[i];
    refuse(i, Error(Code::kBudget,
                    fmt::format("KV budget: the request needs {} bytes beside the {} held by "
                                "others, --kv-memory allows {}",
                                DemandFor(s, s.last_position()).bytes(), store_.ledger().bytes,
                                options_.kv_memory)));
  }
  return refused;
}

std::unique_ptr<Engine::Sequence> Engine::TakeRunning(const Sequence& s) {
  const auto it = std::find_if(running_.begin(), running_.end(),
                               [&s](const auto& other) { return other.get() == &s; });
  std::unique_ptr<Sequence> sequence = std::move(*it);
  running_.erase(it);
  return sequence;
}

bool Engine::MakeRoom(Sequence& s) {
  if (s.end() <= s.granted_end) return true;
  const uint32_t granted_end = std::min(s.last_position(), s.end() + kPageEntries - 1);
  const Demand more = Beyond(DemandFor(s, granted_end), s.state->granted);
  while (!more.empty() &&
         !WithRoom(more, nullptr, [&] { return store_.Extend(s.state->lanes, more); })) {
    // The youngest gives way, so that the oldest always comes to its end.
    Sequence* youngest = nullptr;
    for (const auto& other : running_) {
      if (!other->resumed && (!youngest || other->id > youngest->id)) youngest = other.get();
    }
    if (!youngest || (youngest == &s && running_.size() == 1)) return false;
    Park(*youngest);
    if (youngest == &s) return true;
  }
  s.state->granted.Add(more);
  s.granted_end = granted_end;
  return true;
}

void Engine::Park(Sequence& s) {
  std::unique_ptr<Sequence> sequence = TakeRunning(s);
  PublishEnd(s);  // until somebody needs the bytes
  s.state.reset();
  s.prefix = 0;
  ++s.n_parked;
  ++stats_.n_parked;
  waiting_.push_front(std::move(sequence));
}

}  // namespace kvasir
