#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "engine/scoring.h"
#include "engine/sequence.h"
#include "model/rope.h"

namespace kvasir {

namespace {

double Milliseconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

// Adds the time of its life to a counter of seconds.
class Timer {
 public:
  explicit Timer(double* seconds) : seconds_(seconds) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { *seconds_ += Milliseconds(std::chrono::steady_clock::now() - start_) / 1000; }

 private:
  double* const seconds_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

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

namespace {
// Where every layer slides alike, what lies behind the window is never read again: freed at no
// cost. Empty: some layer sees more, or all of the context is inside.
std::string PolicyOfWindow(const ModelConfig& config) {
  const uint32_t window = config.Window(0);
  if (window < 2 || window >= config.context_length) return "";
  for (uint32_t layer = 1; layer < config.n_layers; ++layer) {
    if (config.Window(layer) != window) return "";
  }
  return fmt::format("streaming:sink=0,recent={},pin=none", window);
}
}  // namespace

ModelFacts FactsOf(const ModelConfig& config, const Model* model) {
  ModelFacts facts = {
      .n_heads = config.n_heads,
      .inverse_frequencies = Rope(config.head_dim, config.rope).inverse_frequencies(),
      .interleaved = config.rope.interleaved,
      .rope_scale = static_cast<float>(config.rope.attention_factor),
      .key_norm = config.qk_norm};
  for (uint32_t layer = 0; model && layer < config.n_layers; ++layer) {
    const std::span<const float> bias = model->key_bias(layer);
    facts.key_bias.emplace_back(bias.begin(), bias.end());
  }
  return facts;
}

Engine::Engine(Model& model, const Tokenizer* tokenizer, const Kernels& kernels, Workers& workers,
               const EngineOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      kernels_(kernels),
      workers_(workers),
      options_(options),
      shape_(model.MainLanes(options.encoding)),
      store_(options.kv_memory, kernels, &workers) {
  context_ = options.context > 0 ? options.context : model.config().context_length;
  if (context_ > model.config().context_length) {
    Fail(Code::kUsage, "--ctx-size: {} tokens asked for, the model was made for {}", context_,
         model.config().context_length);
  }
  // Every running sequence takes part in every pass with at least one row.
  options_.max_sequences =
      std::max(1u, std::min({options.max_sequences, options.step_tokens, model.max_rows()}));
  policy_ = MakePolicy(options.policy.empty() ? PolicyOfWindow(model.config()) : options.policy,
                       {.memory_bytes = options.kv_memory_explicit ? options.kv_memory : 0,
                        .shape = shape_,
                        .facts = FactsOf(model.config(), &model)});
  if (options.prefix_interval > 0) {
    prefixes_ = std::make_unique<PrefixIndex>(block());
    prefix_interval_ =
        RoundUp(options.prefix_interval, seals() && block() == 1 ? kPageEntries : block());
  }
}

Engine::~Engine() = default;

RequestId Engine::Submit(Request request) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id_++;
  sequence->request = std::move(request);
  Request& r = sequence->request;
  CHECK(!(r.fork_of != nullptr && r.resume));
  sequence->resumed = r.resume != nullptr;
  if (r.resume) sequence->state = std::move(r.resume);
  const SequenceState* prefix = sequence->state ? sequence->state.get() : r.fork_of;
  // Lanes that change at a prompt's end serve nobody whose prompt ends elsewhere.
  const bool shared = prefixes_ && !shape_.seals.at_prompt_end;
  sequence->publishes = shared && !prefix && !r.keep_state && !r.policy;
  if (prefix) sequence->known = prefix->tokens;
  sequence->prefix = sequence->end();
  if (r.tokens.empty()) Fail(Code::kInvalid, "prompt: empty: give at least one token");
  for (const int32_t id : r.tokens) {
    if (id < 0 || static_cast<uint32_t>(id) >= model_.config().vocab_size) {
      Fail(Code::kInvalid, "prompt: token id {} is outside the vocabulary of {}", id,
           model_.config().vocab_size);
    }
  }
  const uint64_t end = sequence->prefix + r.tokens.size();
  if (end + r.forced.size() > context_) {
    Fail(
        Code::kInvalid,
        "prompt: {} tokens are more than the context of {}: shorten the prompt or raise --ctx-size",
        end, context_);
  }
  sequence->known.insert(sequence->known.end(), r.tokens.begin(), r.tokens.end());
  sequence->prompt_end = static_cast<uint32_t>(end);
  sequence->known.insert(sequence->known.end(), r.forced.begin(), r.forced.end());
  if (!r.sampling.seed) r.sampling.seed = RandomSeed();
  sequence->stops = StopMatcher(r.stop);
  sequence->submitted = std::chrono::steady_clock::now();
  SetLimits(*sequence);
  waiting_.push_back(std::move(sequence));
  return waiting_.back()->id;
}

uint32_t Engine::RowsFor(const Sequence& s, uint32_t rows_left) const {
  // No pass straddles the end of the prompt.
  const uint32_t end = s.in_prompt() ? s.prompt_end : s.end();
  uint32_t rows = std::min({rows_left, options_.chunk, end - s.position()});
  if (s.state->policy) {
    rows = std::min(rows, s.state->policy->MaxRows({s.position(), s.prompt_end}));
  }
  if (s.publishes && seals() && s.in_prompt()) {
    rows = std::min(rows, NextShared(s) - s.position());
  }
  return rows;
}

void Engine::Forward(std::span<Sequence* const> members, std::span<Segment> segments,
                     const LogitsSink& sink) {
  QuerySink query_sink;
  ViewSink view_sink;
  // The last rows of a segment.
  const auto last = [&](size_t i, uint32_t layer, Rows queries) {
    const AppendCursor& cursor = *segments[i].cursor;
    const auto n = static_cast<uint32_t>(queries.count);
    return LayerQueries{.layer = layer,
                        .first_position = cursor.first_position() + cursor.n_rows() - n,
                        .rows = queries,
                        .kernels = &kernels_,
                        .workers = &workers_};
  };
  for (size_t i = 0; i < members.size(); ++i) {
    const Sequence& s = *members[i];
    const PolicyState* const policy = s.state->policy.get();
    if (policy == nullptr) continue;
    segments[i].query_rows = policy->QueryRows(static_cast<uint32_t>(segments[i].tokens.size()));
    segments[i].chooses = policy->Selects({s.position(), s.prompt_end});
    if (segments[i].query_rows > 0) {
      query_sink = [&](size_t of, uint32_t layer, Rows queries) {
        const Timer timer(&stats_.policy_seconds);
        members[of]->state->policy->TakeQueries(last(of, layer, queries));
      };
    }
    if (segments[i].chooses) {
      view_sink = [&](size_t of, uint32_t layer, Rows queries, std::span<LaneView> lanes) {
        const Timer timer(&stats_.policy_seconds);
        members[of]->state->policy->Select(last(of, layer, queries), lanes);
      };
    }
  }
  model_.Forward(segments, sink, query_sink, view_sink);
}

void Engine::Advance(Sequence& s, uint32_t rows) {
  SequenceState& state = *s.state;
  const std::span<const int32_t> appended = s.Next(rows);
  state.tokens.insert(state.tokens.end(), appended.begin(), appended.end());
  if (s.request.track) Track(s, /*after_commit=*/false);
  plan_.Clear();
  if (state.policy) {
    const Timer timer(&stats_.policy_seconds);
    state.policy->Observe({s.position(), s.prompt_end}, KvView(store_, *state.lanes, kernels_),
                          &workers_, &plan_);
  }
  if (s.publishes && !plan_.drops.empty() && state.lanes->dropped() == 0) PublishUndropped(s);
  if (!plan_.empty()) {
    const Timer timer(&stats_.policy_seconds);
    store_.Commit(state.lanes, plan_);
  }
  // What a policy drops is not encoded first.
  const bool starts = seals() && !state.lanes->sealing() && !s.in_prompt();
  if (starts) store_.StartSealing(state.lanes);
  if (starts || !plan_.drops.empty()) GiveBack(s);
  if (s.request.track) Track(s, /*after_commit=*/true);
  if (s.publishes) PublishBlock(s);
}

void Engine::Track(Sequence& s, bool after_commit) {
  KvTrack& track = s.track;
  const LaneSet& lanes = *s.state->lanes;
  const uint64_t bytes = store_.Bytes(lanes);
  if (!after_commit) {
    track.peak_bytes = std::max(track.peak_bytes, bytes);
    track.peak_entries = std::max(track.peak_entries, lanes.max_entries_per_lane());
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (s.tracked != Sequence::Time{}) {
    track.byte_seconds += static_cast<double>(bytes) * Milliseconds(now - s.tracked) / 1000;
  }
  s.tracked = now;
  ++track.passes;
  track.bytes += static_cast<double>(bytes);
  track.live += static_cast<double>(lanes.n_entries());
  track.logical += static_cast<double>(shape_.lanes() * s.position());
  if (track.first_drop) return;
  if (lanes.dropped() > 0) track.first_drop = s.position();
  const auto reads = s.state->policy ? s.state->policy->reads() : std::nullopt;
  if (reads && reads->hidden > 0) track.first_drop = s.position() - 1;  // its one row
}

void Engine::Sample(Sequence& s, uint32_t position, std::span<const float> logits) {
  const Request& r = s.request;
  try {
    if (position + 1 < s.end()) {
      if (r.prompt_logprobs) {
        s.prompt_logprobs.push_back(LogprobOf(logits, s.known[position + 1], *r.prompt_logprobs));
      }
      return;
    }
    if (s.max_new == 0) return;
    s.sampled = s.sampler->Sample(logits);
    if (r.logprobs) s.logprobs.push_back(LogprobOf(logits, *s.sampled, *r.logprobs));
  } catch (const Error& error) {  // this request fails, its neighbours go on
    s.error = error;
  }
}

// Room for the tokens of this pass, oldest first. Says whether somebody had to end for want of it.
bool Engine::RoomForAll() {
  std::vector<Sequence*> oldest_first;
  for (const auto& sequence : running_) oldest_first.push_back(sequence.get());
  std::sort(oldest_first.begin(), oldest_first.end(),
            [](const Sequence* a, const Sequence* b) { return a->id < b->id; });
  std::vector<std::unique_ptr<Sequence>> without;
  for (Sequence* s : oldest_first) {
    if (!s->state || MakeRoom(*s)) continue;  // no state: it was parked meanwhile
    without.push_back(TakeRunning(*s));
  }
  for (auto& sequence : without) Finish(std::move(sequence), StopReason::kLength, "KV budget");
  return !without.empty();
}

bool Engine::Step() {
  const auto start = std::chrono::steady_clock::now();
  bool ended = AdmitWaiting();
  ended |= RoomForAll();
  if (running_.empty()) return ended;  // then nobody waits, or the next step lets them in

  // Rows of the pass: one for everybody who generates, then prompts, oldest first.
  const uint32_t most_rows = std::min(options_.step_tokens, model_.max_rows());
  uint32_t rows_left = most_rows;
  std::vector<Sequence*> members;
  std::vector<uint32_t> rows;
  for (const bool decodes : {true, false}) {
    for (const auto& sequence : running_) {
      if (sequence->decodes() != decodes || rows_left == 0) continue;
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
    WantLogits want = WantLogits::kNone;
    if (s.position() + rows[i] == s.end() && s.max_new > 0) want = WantLogits::kLast;
    if (s.in_prompt() && s.request.prompt_logprobs) want = WantLogits::kAll;
    segments.push_back({s.Next(rows[i]), &cursors.back(), want});
  }
  Forward(members, segments, [&](size_t i, uint32_t row, std::span<const float> logits) {
    Sample(*members[i], members[i]->position() + row, logits);
  });
  for (size_t i = 0; i < members.size(); ++i) {
    Sequence& s = *members[i];
    const bool prompt = s.in_prompt();
    Advance(s, rows[i]);
    if (prompt && s.request.on_prompt) {
      s.request.on_prompt(s.position() - s.prefix, s.prompt_end - s.prefix);
    }
  }
  ++stats_.n_steps;
  stats_.step_rows = most_rows - rows_left;
  stats_.step_seconds = Milliseconds(std::chrono::steady_clock::now() - start) / 1000;

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
  if (s.position() == s.prompt_end + s.n_forced() && s.max_new == 0) {
    *detail = s.limit;
    return true;
  }
  if (!s.sampled) return false;
  const int32_t id = *std::exchange(s.sampled, std::nullopt);
  if (s.n_generated() == 0) s.first_token = std::chrono::steady_clock::now();
  const bool is_end = !s.request.ignore_eos && tokenizer_ && tokenizer_->IsEnd(id);
  const std::vector<int32_t>& stops = s.request.stop_tokens;
  const bool is_stop = std::find(stops.begin(), stops.end(), id) != stops.end();
  if (is_end || is_stop) {
    if (s.request.logprobs) s.logprobs.pop_back();  // the token is no part of the answer
    *reason = is_end ? StopReason::kEos : StopReason::kStop;
    if (!is_end) *detail = fmt::format("token {}", id);
    return true;
  }
  s.known.push_back(id);
  ++stats_.generated_tokens;
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
    Show(s, s.stops.SafeLength(text), false);
  }
  if (s.n_generated() < s.max_new) return false;
  *detail = s.limit;
  return true;
}

void Engine::Show(Sequence& s, size_t end, bool last) {
  if (!s.request.on_text) return;
  const std::span<const TokenLogprob> logprobs = std::span(s.logprobs).subspan(s.shown_logprobs);
  if (end <= s.shown && !(last && !logprobs.empty())) return;
  const std::string_view text = s.decoder ? std::string_view(s.decoder->text()) : "";
  const size_t begin = std::exchange(s.shown, std::max(s.shown, end));
  s.shown_logprobs = s.logprobs.size();
  s.request.on_text({text.substr(begin, s.shown - begin), logprobs});
}

void Engine::Finish(std::unique_ptr<Sequence> sequence, StopReason reason, std::string detail) {
  Sequence& s = *sequence;
  Generation g;
  const auto now = std::chrono::steady_clock::now();
  if (s.decoder) {
    const size_t end = s.text_end.value_or(s.decoder->text().size());
    Show(s, end, true);
    g.text = s.decoder->text().substr(0, end);
  }
  g.tokens.assign(s.known.begin() + s.prompt_end + s.n_forced(), s.known.end());
  g.logprobs = std::move(s.logprobs);
  g.prompt_logprobs = std::move(s.prompt_logprobs);
  g.stop_reason = reason;
  g.stop_detail = std::move(detail);
  g.seed = *s.request.sampling.seed;
  g.prompt_tokens = s.prompt_end;
  g.cached_tokens = s.cached;
  g.n_parked = s.n_parked;
  g.error = std::move(s.error);
  const uint32_t given = static_cast<uint32_t>(s.request.tokens.size());
  g.timings.prompt_n = given - std::min(given, s.cached);
  g.timings.predicted_n = static_cast<uint32_t>(g.tokens.size());
  if (s.admitted != Sequence::Time{}) {
    const auto first = s.first_token == Sequence::Time{} ? now : s.first_token;
    g.timings.queue_ms = Milliseconds(s.admitted - s.submitted);
    g.timings.prompt_ms = Milliseconds(first - s.admitted);
    g.timings.predicted_ms = Milliseconds(now - first);
  }
  if (s.state) {
    g.entries = s.state->lanes->n_entries();
    g.live_bytes = s.state->lanes->live_bytes();
    g.entries_dropped = s.state->lanes->dropped();
    if (s.state->policy) g.reads = s.state->policy->reads();
    if (s.request.track) {
      g.bytes_end = store_.Bytes(*s.state->lanes);
      g.track = s.track;
    }
    if (s.request.keep_state && !g.error) {
      g.state = std::move(s.state);
    } else if (!g.error) {
      PublishEnd(s);
    }
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

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.n_running = running_.size();
  stats.n_waiting = waiting_.size();
  if (prefixes_) {
    stats.n_snapshots = prefixes_->size();
    stats.snapshots_dropped = prefixes_->n_dropped();
    stats.snapshot_bytes = store_.HeldByFrozen().bytes();
  }
  return stats;
}

std::vector<SequenceLine> Engine::sequences() const {
  std::vector<SequenceLine> lines;
  for (const auto& s : running_) {
    lines.push_back({.id = s->id,
                     .position = s->position(),
                     .prompt_tokens = s->prompt_end,
                     .cached_tokens = s->cached,
                     .generated_tokens = s->n_generated(),
                     .entries = s->state->lanes->n_entries(),
                     .entries_dropped = s->state->lanes->dropped(),
                     .bytes_reserved = s->state->granted.bytes()});
  }
  return lines;
}

std::unique_ptr<SequenceState> Engine::Compress(SequenceState& whole, const Policy& policy,
                                                PolicyState& observer) {
  CHECK(whole.lanes->dropped() == 0);
  const auto n = static_cast<uint32_t>(whole.tokens.size());
  Growth growth = policy.MaxGrowth(n, n, 0);
  growth.rows = 1;
  auto state = std::make_unique<SequenceState>();
  state->granted = MaxDemand(shape_, growth);
  WithRoom(store_.ForkRoom(*whole.lanes, state->granted, false), nullptr, [&] {
    state->lanes = store_.Fork(whole.lanes, state->granted);
    return bool(state->lanes);
  });
  if (!state->lanes) {
    Fail(Code::kBudget,
         "KV budget: a compressed copy of {} tokens needs {} bytes beside the {} held, "
         "--kv-memory allows {}",
         n, state->granted.bytes(), store_.ledger().bytes, options_.kv_memory);
  }
  plan_.Clear();
  observer.Observe({n, n}, KvView(store_, *state->lanes, kernels_), &workers_, &plan_);
  store_.Commit(state->lanes, plan_);
  if (!plan_.drops.empty()) store_.Detach(state->lanes);
  state->tokens = whole.tokens;
  return state;
}

void Engine::Freeze(SequenceState& state) { store_.Freeze(state.lanes); }

Engine::ScoreResult Engine::Score(
    std::span<const int32_t> tokens,
    const std::function<void(uint32_t row, std::span<const float>)>& sink,
    const std::function<void(uint32_t done)>& on_progress) {
  Scoring scoring(*this, tokens, static_cast<uint32_t>(tokens.size()));
  while (!scoring.done()) {
    scoring.Pass(model_.max_rows(), sink);
    if (on_progress) on_progress(scoring.position());
  }
  return {scoring.lanes().n_entries(), scoring.lanes().dropped()};
}

}  // namespace kvasir
