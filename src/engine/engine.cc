#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "engine/sequence.h"

namespace kvasir {

namespace {

// A request without a length limit is granted room for this many tokens at most.
constexpr uint64_t kOpenEndedTokens = 1024;
// A fork of up to this many tokens, a question and its answer, is granted the pages that they fill
// and no room to pack: what it drops of its parent's pages frees nothing, and copies of them would
// cost more than they save.
constexpr uint64_t kShortFork = 128;

double Milliseconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

// What `want` asks for beyond `have`.
Demand Beyond(const Demand& want, const Demand& have) {
  Demand more;
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

std::string_view Name(StopReason reason) {
  switch (reason) {
    case StopReason::kLength:
      return "length";
    case StopReason::kStop:
      return "stop";
    case StopReason::kEos:
      return "eos";
    case StopReason::kCancelled:
      break;
  }
  return "cancelled";
}

Engine::Engine(Model& model, const Tokenizer* tokenizer, const Kernels& kernels, Workers& workers,
               const EngineOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      kernels_(kernels),
      workers_(workers),
      options_(options),
      shape_(model.MainLanes(options.k_codec, options.v_codec)),
      store_(options.kv_memory, kernels, &workers) {
  context_ = options.context > 0 ? options.context : model.config().context_length;
  if (context_ > model.config().context_length) {
    Fail(Code::kUsage, "--ctx-size: {} tokens asked for, the model was made for {}", context_,
         model.config().context_length);
  }
  // Every running sequence takes part in every pass with at least one row.
  options_.max_sequences =
      std::max(1u, std::min({options.max_sequences, options.step_tokens, model.max_rows()}));
  policy_ =
      MakePolicy(options.policy, {options.kv_memory_explicit ? options.kv_memory : 0, shape_});
}

Engine::~Engine() = default;

Growth Engine::GrowthFor(uint64_t tokens, uint64_t pinned) const {
  return policy_ ? policy_->MaxGrowth(tokens, pinned) : Growth{.tokens = tokens};
}

Demand Engine::DemandFor(const Sequence& sequence, uint64_t tokens) const {
  uint64_t pinned = 0;
  for (const PositionSpan& span : sequence.request.pinned) pinned += span.second - span.first;
  const Growth growth = GrowthFor(tokens, pinned);
  const SequenceState* parent = sequence.request.fork_of;
  if (!parent) return MaxDemand(shape_, growth);
  const uint64_t rows = tokens - sequence.prefix;
  return ForkDemand(shape_, sequence.prefix, rows,
                    rows <= kShortFork ? Growth{.tokens = tokens} : growth);
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
  const uint32_t room = context_ - sequence.prompt_end;
  const std::optional<uint32_t>& asked = sequence.request.max_tokens;
  if (asked) {
    sequence.max_new = std::min(*asked, room);
    if (sequence.max_new < *asked) sequence.limit = "context";
    const Demand demand = DemandFor(sequence, sequence.prompt_end + sequence.max_new);
    if (!store_.FitsEmpty(demand)) RefuseBudget(sequence, demand);
    return;
  }
  // Without a limit: as many as an empty budget would hold after the prompt, within the context and
  // a fixed bound, so that one open-ended request does not keep all others out.
  const auto fits = [&](uint64_t n) {
    return store_.FitsEmpty(DemandFor(sequence, sequence.prompt_end + n));
  };
  if (!fits(0)) RefuseBudget(sequence, DemandFor(sequence, sequence.prompt_end));
  uint64_t low = 0, high = std::min<uint64_t>(kOpenEndedTokens, room);
  sequence.limit = room <= kOpenEndedTokens ? "context" : "default length";
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

RequestId Engine::Submit(Request request) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id_++;
  sequence->request = std::move(request);
  Request& r = sequence->request;
  CHECK(!(r.fork_of != nullptr && r.resume));
  if (r.resume) sequence->state = std::move(r.resume);
  const SequenceState* prefix = sequence->state ? sequence->state.get() : r.fork_of;
  sequence->prefix = prefix ? static_cast<uint32_t>(prefix->tokens.size()) : 0;
  if (r.tokens.empty()) Fail(Code::kInvalid, "prompt: empty: give at least one token");
  for (const int32_t id : r.tokens) {
    if (id < 0 || static_cast<uint32_t>(id) >= model_.config().vocab_size) {
      Fail(Code::kInvalid, "prompt: token id {} is outside the vocabulary of {}", id,
           model_.config().vocab_size);
    }
  }
  const uint64_t end = sequence->prefix + r.tokens.size();
  if (end > context_) {
    Fail(
        Code::kInvalid,
        "prompt: {} tokens are more than the context of {}: shorten the prompt or raise --ctx-size",
        end, context_);
  }
  sequence->prompt_end = static_cast<uint32_t>(end);
  if (!r.sampling.seed) r.sampling.seed = RandomSeed();
  sequence->stops = StopMatcher(r.stop);
  SetLimits(*sequence);
  waiting_.push_back(std::move(sequence));
  return waiting_.back()->id;
}

bool Engine::Admit(Sequence& sequence) {
  Request& r = sequence.request;
  const Demand demand = DemandFor(sequence, sequence.prompt_end + sequence.max_new);
  if (sequence.state) {  // resumed: its lanes exist, only more may be needed
    const Demand more = Beyond(demand, sequence.state->granted);
    if (!more.planes().empty() && !store_.Extend(sequence.state->lanes, more)) return false;
    sequence.state->granted.Add(more);
  } else {
    LaneSetHandle lanes = r.fork_of ? store_.Fork(r.fork_of->lanes, demand)
                                    : store_.Create(shape_, LaneRole::kMain, demand);
    if (!lanes) return false;
    sequence.state = std::make_unique<SequenceState>();
    sequence.state->lanes = std::move(lanes);
    sequence.state->granted = demand;
    if (r.fork_of) {
      sequence.state->tokens = r.fork_of->tokens;
      if (r.fork_of->policy) sequence.state->policy = r.fork_of->policy->Fork();
    } else if (policy_) {
      sequence.state->policy = policy_->Begin({shape_, r.pinned});
    }
  }
  if (policy_ && policy_->pins() && !r.pinned.empty()) {
    Plan plan;
    for (const PositionSpan& span : r.pinned) plan.protects.push_back({span.first, span.second});
    store_.Commit(sequence.state->lanes, plan);
  }
  std::vector<int32_t> prompt = sequence.state->tokens;
  prompt.insert(prompt.end(), r.tokens.begin(), r.tokens.end());
  sequence.sampler = std::make_unique<Sampler>(r.sampling, prompt);
  if (tokenizer_) {
    const bool at_start = prompt.size() == 1 && prompt[0] == tokenizer_->bos();
    sequence.decoder = std::make_unique<StreamDecoder>(*tokenizer_, at_start);
  }
  sequence.admitted = std::chrono::steady_clock::now();
  return true;
}

bool Engine::AdmitWaiting() {
  bool refused = false;
  while (!waiting_.empty() && running_.size() < options_.max_sequences) {
    if (Admit(*waiting_.front())) {
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
      continue;
    }
    if (!running_.empty()) break;  // bytes come back when a running sequence ends
    // Nothing runs and still it does not fit: states held outside fill the budget.
    std::unique_ptr<Sequence> sequence = std::move(waiting_.front());
    waiting_.pop_front();
    sequence->error =
        Error(Code::kBudget,
              fmt::format("KV budget: the request needs {} bytes beside the {} held by others, "
                          "--kv-memory allows {}",
                          DemandFor(*sequence, sequence->prompt_end + sequence->max_new).bytes(),
                          store_.ledger().bytes, options_.kv_memory));
    Finish(std::move(sequence), StopReason::kLength, "KV budget");
    refused = true;
  }
  return refused;
}

uint32_t Engine::RowsFor(const Sequence& sequence, uint32_t rows_left) const {
  const Progress progress{sequence.position(), sequence.prompt_end};
  uint32_t rows = 1;
  if (sequence.in_prompt()) {
    rows = std::min({rows_left, options_.chunk, sequence.prompt_end - sequence.position()});
  }
  if (sequence.state->policy) rows = std::min(rows, sequence.state->policy->MaxRows(progress));
  return rows;
}

void Engine::Advance(Sequence& sequence, uint32_t rows) {
  SequenceState& state = *sequence.state;
  const std::span<const int32_t> appended = sequence.Next(rows);
  state.tokens.insert(state.tokens.end(), appended.begin(), appended.end());
  if (!state.policy) return;
  plan_.Clear();
  state.policy->Observe({sequence.position(), sequence.prompt_end},
                        KvView(store_, *state.lanes, kernels_), &workers_, &plan_);
  if (!plan_.empty()) store_.Commit(state.lanes, plan_);
}

bool Engine::Step() {
  const bool refused = AdmitWaiting();
  if (running_.empty()) return refused;

  // Rows of the pass: one for everybody who generates, then prompts, oldest first.
  uint32_t rows_left = std::min(options_.step_tokens, model_.max_rows());
  std::vector<Sequence*> members;
  std::vector<uint32_t> rows;
  for (const bool prompts : {false, true}) {
    for (const auto& sequence : running_) {
      if (sequence->in_prompt() != prompts || rows_left == 0) continue;
      const uint32_t n = RowsFor(*sequence, rows_left);
      members.push_back(sequence.get());
      rows.push_back(n);
      rows_left -= n;
    }
  }
  std::vector<AppendCursor> cursors;
  std::vector<Segment> segments;
  cursors.reserve(members.size());
  for (size_t i = 0; i < members.size(); ++i) {
    Sequence& s = *members[i];
    cursors.push_back(store_.Append(s.state->lanes, rows[i]));
    const bool wants_token = s.position() + rows[i] >= s.prompt_end && s.max_new > 0;
    segments.push_back(
        {s.Next(rows[i]), &cursors.back(), wants_token ? WantLogits::kLast : WantLogits::kNone});
  }
  model_.Forward(segments, [&](size_t i, uint32_t, std::span<const float> logits) {
    try {
      members[i]->sampled = members[i]->sampler->Sample(logits);
    } catch (const Error& error) {  // this request fails, its neighbours go on
      members[i]->error = error;
    }
  });
  for (size_t i = 0; i < members.size(); ++i) {
    Sequence& s = *members[i];
    const bool prompt = s.in_prompt();
    Advance(s, rows[i]);
    if (prompt && s.request.on_prompt) {
      s.request.on_prompt(s.position() - s.prefix, s.prompt_end - s.prefix);
    }
  }

  // Take the tokens, and let go of whoever is done. Callbacks may submit or cancel, so nothing that
  // runs is touched after them.
  std::vector<std::unique_ptr<Sequence>> running;
  running.swap(running_);
  struct Done {
    std::unique_ptr<Sequence> sequence;
    StopReason reason;
    std::string detail;
  };
  std::vector<Done> done;
  for (std::unique_ptr<Sequence>& sequence : running) {
    StopReason reason = StopReason::kLength;
    std::string detail;
    if (TakeToken(*sequence, &reason, &detail)) {
      done.push_back({std::move(sequence), reason, std::move(detail)});
    } else {
      running_.push_back(std::move(sequence));
    }
  }
  for (Done& d : done) Finish(std::move(d.sequence), d.reason, std::move(d.detail));
  return true;
}

bool Engine::TakeToken(Sequence& s, StopReason* reason, std::string* detail) {
  if (s.error) return true;
  if (s.position() == s.prompt_end && s.max_new == 0) {
    *detail = s.limit;
    return true;
  }
  if (!s.sampled) return false;
  const int32_t id = *std::exchange(s.sampled, std::nullopt);
  if (s.generated.empty()) s.first_token = std::chrono::steady_clock::now();
  if (!s.request.ignore_eos && tokenizer_ && tokenizer_->IsEnd(id)) {
    *reason = StopReason::kEos;
    return true;
  }
  s.generated.push_back(id);
  s.pending = id;
  if (s.decoder) {
    const size_t before = s.decoder->text().size();
    s.decoder->Push(id);
    const std::string& text = s.decoder->text();
    if (const auto match = s.stops.Find(text, before)) {
      *reason = StopReason::kStop;
      *detail = *match->stop;
      s.text_end = match->offset;
      return true;
    }
    Show(s, s.stops.SafeLength(text));
  }
  if (s.generated.size() < s.max_new) return false;
  *detail = s.limit;
  return true;
}

void Engine::Show(Sequence& s, size_t end) {
  if (end <= s.shown) return;
  if (s.request.on_text) {
    s.request.on_text({std::string_view(s.decoder->text()).substr(s.shown, end - s.shown), {}});
  }
  s.shown = end;
}

void Engine::Finish(std::unique_ptr<Sequence> sequence, StopReason reason, std::string detail) {
  Sequence& s = *sequence;
  Generation g;
  const auto now = std::chrono::steady_clock::now();
  if (s.decoder) {
    const size_t end = s.text_end.value_or(s.decoder->text().size());
    Show(s, end);
    g.text = s.decoder->text().substr(0, end);
  }
  g.tokens = std::move(s.generated);
  g.stop_reason = reason;
  g.stop_detail = std::move(detail);
  g.seed = *s.request.sampling.seed;
  g.prompt_tokens = s.prompt_end;
  g.error = std::move(s.error);
  g.timings.prompt_n = s.prompt_end - s.prefix;
  g.timings.predicted_n = static_cast<uint32_t>(g.tokens.size());
  if (s.admitted != Sequence::Time{}) {
    const auto first = s.first_token == Sequence::Time{} ? now : s.first_token;
    g.timings.prompt_ms = Milliseconds(first - s.admitted);
    g.timings.predicted_ms = Milliseconds(now - first);
  }
  if (s.state) {
    g.entries = s.state->lanes->n_entries();
    g.entries_dropped = s.state->lanes->dropped();
    if (s.request.keep_state && !g.error) g.state = std::move(s.state);
  }
  s.state.reset();
  if (s.request.on_done) s.request.on_done(std::move(g));
}

void Engine::Cancel(RequestId id) {
  const auto is_it = [id](const std::unique_ptr<Sequence>& s) { return s->id == id; };
  std::unique_ptr<Sequence> found;
  if (auto it = std::find_if(waiting_.begin(), waiting_.end(), is_it); it != waiting_.end()) {
    found = std::move(*it);
    waiting_.erase(it);
  } else if (auto run = std::find_if(running_.begin(), running_.end(), is_it);
             run != running_.end()) {
    found = std::move(*run);
    running_.erase(run);
  }
  if (found) Finish(std::move(found), StopReason::kCancelled, "cancelled");
}

void Engine::DropPrefixes() {}

EngineStats Engine::stats() const {
  return {.n_running = running_.size(), .n_waiting = waiting_.size()};
}

std::vector<SequenceLine> Engine::sequences() const { return {}; }

void Engine::Freeze(SequenceState& state) { store_.Freeze(state.lanes); }

Engine::ScoreResult Engine::Score(
    std::span<const int32_t> tokens,
    const std::function<void(uint32_t row, std::span<const float>)>& sink,
    const std::function<void(uint32_t done)>& on_progress) {
  Sequence s;
  s.request.tokens.assign(tokens.begin(), tokens.end());
  s.prompt_end = static_cast<uint32_t>(tokens.size());
  if (tokens.empty()) Fail(Code::kInvalid, "text: empty: give at least one token");
  if (tokens.size() > context_) {
    Fail(Code::kInvalid,
         "text: {} tokens are more than the context of {}: shorten it or raise --ctx-size",
         tokens.size(), context_);
  }
  const Demand demand = DemandFor(s, s.prompt_end);
  s.request.max_tokens = 0;
  if (!store_.FitsEmpty(demand)) RefuseBudget(s, demand);
  s.request.sampling.seed = 0;
  CHECK_MSG(Admit(s), "Score needs the engine for itself");
  while (s.in_prompt()) {
    const uint32_t rows = RowsFor(s, model_.max_rows());
    const uint32_t first = s.position();
    AppendCursor cursor = store_.Append(s.state->lanes, rows);
    const Segment segment{s.Next(rows), &cursor, WantLogits::kAll};
    model_.Forward({&segment, 1}, [&](size_t, uint32_t row, std::span<const float> logits) {
      sink(first + row, logits);
    });
    Advance(s, rows);
    if (on_progress) on_progress(s.position());
  }
  return {s.state->lanes->n_entries(), s.state->lanes->dropped()};
}

}  // namespace kvasir
