// The engine: many sequences at once under one KV byte budget.
//
// Submit puts a request into the queue; Step runs one pass: sequences that generate come first with
// one row each, then prompts in blocks with the rows that are left. Requests do not influence each
// other's tokens: not their number, not their order, not the size of a step, not what is cached.
//
// Admission  A request is admitted when the bytes for its prompt and up to kFirstTokens new tokens
//            are granted; a longer answer is granted more page by page. What does not fit waits, in
//            order; what can never fit is refused at once. When nothing is left for a page, the
//            youngest sequence is parked: it gives up its lanes, waits in front of the queue, and
//            reads its prompt and what it wrote so far again, with the same schedule.
// Prefixes   The lanes of a finished prompt and its answer stay as a snapshot (prefix_index.h) as
//            long as nobody needs the bytes, those of a running one can be shared too, and a
//            request whose beginning another one is just reading waits for it.
// Blocks     Prompts are cut at absolute multiples of the policy's block; the cuts never depend on
//            neighbours or on what was cached.
//
// Threads  One thread calls Submit, Step, Cancel and owns everything; workers run inside a pass.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/workers.h"
#include "engine/sampler.h"
#include "kv/store.h"
#include "model/model.h"
#include "policy/policy.h"
#include "text/tokenizer.h"

namespace kvasir {

// What policies may know of a model; biases only with its weights.
ModelFacts FactsOf(const ModelConfig& config, const Model* model = nullptr);

struct EngineOptions {
  uint64_t kv_memory = 0;           // bytes, the hard budget
  bool kv_memory_explicit = false;  // a policy's budget may follow from it
  std::string policy;  // spec, or empty: none, or what a window that all layers share implies
  Encoding encoding;
  uint32_t context = 0;         // longest sequence; 0: the model's
  uint32_t step_tokens = 2048;  // rows of all sequences in one pass
  uint32_t chunk = 512;         // prompt rows in one pass
  uint32_t max_sequences = 32;  // running at once
  // Finished and running prompts serve later ones that begin with the same tokens; a policy that
  // drops publishes its state every so many tokens. 0: nothing is kept.
  uint32_t prefix_interval = 0;
};

// State of a sequence outside a request: its lanes, policy state and tokens. Held by whoever wants
// to go on from there (a chat) or to fork it (many questions about one document).
struct SequenceState {
  LaneSetHandle lanes;
  Demand granted;                               // what the lanes may take
  std::unique_ptr<PolicyState> policy;          // none: dense from here on
  std::shared_ptr<const Policy> policy_of_own;  // of `policy`, when a request brought it
  std::vector<int32_t> tokens;                  // what the lanes have seen
};

// What one sequence held while it ran; see Request::track.
struct KvTrack {
  uint64_t peak_bytes = 0;    // planes and side bytes, before commits
  uint32_t peak_entries = 0;  // of a lane, before commits
  uint32_t passes = 0;
  double bytes = 0;                    // sum over passes of the bytes after the commit
  double live = 0;                     // likewise of the live entries of all lanes
  double logical = 0;                  // likewise of the entries nobody would have dropped
  double byte_seconds = 0;             // bytes times the time they were held
  std::optional<uint32_t> first_drop;  // tokens read when entries were first dropped or hidden
};

enum class StopReason : uint8_t { kLength, kStop, kEos, kCancelled };
std::string_view Name(StopReason reason);  // "length", "stop", "eos", "cancelled"

struct Timings {
  uint32_t prompt_n = 0, predicted_n = 0;  // prompt tokens read (without cached ones); generated
  double queue_ms = 0, prompt_ms = 0, predicted_ms = 0;
};

// Text as it becomes whole, with the log probabilities of the tokens since the last piece.
struct Piece {
  std::string_view text;
  std::span<const TokenLogprob> logprobs;  // when the request asked for them
};

struct Generation {
  std::string text;                    // whole characters, cut before a stop string
  std::vector<int32_t> tokens;         // ids generated; an end-of-sequence id is not among them
  std::vector<TokenLogprob> logprobs;  // one for each of tokens, when asked for
  std::vector<TokenLogprob> prompt_logprobs;  // of prompt tokens 1..., when asked for
  StopReason stop_reason = StopReason::kLength;
  std::string stop_detail;  // "max_tokens", "context", "kv budget", or the stop string
  Timings timings;
  uint64_t seed = 0;
  uint32_t prompt_tokens = 0;                 // whole prompt, forked part included
  uint32_t cached_tokens = 0;                 // of these, taken from an earlier prompt's lanes
  uint32_t n_parked = 0;                      // times it gave up its lanes and read again
  uint64_t entries = 0, entries_dropped = 0;  // at the end, all lanes
  uint64_t live_bytes = 0;                    // that these entries need
  std::unique_ptr<SequenceState> state;       // when the request asked to keep it
  uint64_t bytes_end = 0;                     // of its lanes, when the request asked to track them
  KvTrack track;
  std::optional<PassReads> reads;  // of the last pass, if the policy chose what it read
  std::optional<Error> error;      // the request failed alone
};

struct Request {
  std::vector<int32_t> tokens;         // prompt; after a fork, what follows the parent's tokens
  std::optional<uint32_t> max_tokens;  // none: to the end, within what is granted
  // Read behind the prompt as if they had been generated; max_tokens and what is handed out begin
  // behind them.
  std::vector<int32_t> forced;
  SamplingParams sampling;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_tokens;  // end like an end-of-sequence id
  bool ignore_eos = false;
  std::optional<uint32_t> logprobs;         // record those of generated tokens, with so many others
  std::optional<uint32_t> prompt_logprobs;  // likewise of the prompt, which is then read whole
  std::string salt;                         // only requests with the same salt share prefixes
  std::optional<std::chrono::steady_clock::time_point> admit_by;  // else it fails: kUnavailable
  bool track = false;                // measure what it holds in every pass
  bool keep_state = false;           // hand the state back in Generation::state
  std::vector<PositionSpan> pinned;  // positions a policy must not drop
  // Instead of the engine's; nothing is shared with requests under another policy.
  std::shared_ptr<const Policy> policy;
  SequenceState* fork_of =
      nullptr;  // begin with this state by reference; it is frozen and must outlive the request
  std::unique_ptr<SequenceState> resume;  // or go on from this one
  std::function<void(const Piece&)> on_text;
  std::function<void(uint32_t done, uint32_t total)> on_prompt;  // prompt progress, after each pass
  std::function<void(Generation)> on_done;                       // exactly once
};

using RequestId = uint64_t;

// Counters since the start, and what is there now. Cheap to take.
struct EngineStats {
  uint64_t n_running = 0, n_waiting = 0;
  uint64_t prompt_tokens = 0, generated_tokens = 0;  // of all requests; prompts whole
  uint64_t prefix_queried_tokens = 0, prefix_hit_tokens = 0;
  uint64_t n_snapshots = 0, snapshots_dropped = 0;
  uint64_t snapshot_bytes = 0;  // given back before anybody is refused
  uint64_t n_parked = 0;        // times a sequence was parked
  uint64_t n_steps = 0;
  uint32_t step_rows = 0;     // of the last pass
  double step_seconds = 0;    // likewise
  double policy_seconds = 0;  // of policies: what they recorded, scored and chose, commits included
};

// One line of the ledger for each sequence that runs.
struct SequenceLine {
  RequestId id = 0;
  uint32_t position = 0, prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  uint64_t entries = 0, entries_dropped = 0, bytes_reserved = 0;
};

class PrefixIndex;
struct PrefixQuery;
struct Snapshot;

class Engine {
 public:
  // New tokens that are granted room at admission.
  static constexpr uint32_t kFirstTokens = 1024;

  // References must outlive the engine. Errors: kUsage for a policy that cannot work with these
  // options.
  Engine(Model& model, const Tokenizer* tokenizer, const Kernels& kernels, Workers& workers,
         const EngineOptions& options);
  ~Engine();

  // Errors: kInvalid (empty prompt, ids outside the vocabulary, longer than the context), kBudget
  // (can never fit; names the bytes needed and allowed). Nothing is queued then.
  RequestId Submit(Request request);
  void Cancel(RequestId id);
  // One pass. False when there is nothing to do.
  bool Step();
  void RunUntilIdle() {
    while (Step()) {
    }
  }

  const Policy* policy() const { return policy_.get(); }  // nullptr: dense
  Ledger ledger() const { return store_.ledger(); }
  void ResetPeaks() { store_.ResetPeaks(); }
  // What `policy` keeps of a state that dropped nothing, as a state of its own that shares nothing
  // with it: as if its tokens had been a prompt read under the policy, which acts at its end alone.
  // `observer` is a state of the policy that saw its queries. The result goes on without a policy.
  // Errors: kBudget when there is no room.
  std::unique_ptr<SequenceState> Compress(SequenceState& whole, const Policy& policy,
                                          PolicyState& observer);
  // Bytes of a kept state's lanes.
  uint64_t Bytes(const SequenceState& state) const { return store_.Bytes(*state.lanes); }
  // Of these, beside planes.
  uint64_t SideBytes(const SequenceState& state) const { return state.lanes->side_bytes(); }
  // A lane of a kept state, valid until the next pass.
  LaneView View(const SequenceState& state, uint32_t layer, uint32_t head) const {
    return store_.View(*state.lanes, layer, head);
  }
  // No more tokens for a kept state: what its reservation has left goes back. Forks stay possible.
  void Freeze(SequenceState& state);
  // Lets go of every kept prefix that nobody runs on.
  void DropPrefixes();
  EngineStats stats() const;
  std::vector<SequenceLine> sequences() const;
  size_t n_running() const { return running_.size(); }
  size_t n_waiting() const { return waiting_.size(); }
  uint32_t context() const { return context_; }
  const EngineOptions& options() const { return options_; }

  // Every page and byte of the store; aborts on the first contradiction. For tests.
  void CheckIntegrity() const { store_.CheckIntegrity(); }

  // Teacher-forced pass over `tokens`: sink gets the logits after each token. One sequence, the
  // policy acts in its own blocks. Errors as Submit. Returns the ledger-relevant end state.
  struct ScoreResult {
    uint64_t entries = 0, entries_dropped = 0;
  };
  ScoreResult Score(std::span<const int32_t> tokens,
                    const std::function<void(uint32_t row, std::span<const float>)>& sink,
                    const std::function<void(uint32_t done)>& on_progress = {});

 private:
  friend class Scoring;
  struct Sequence;
  struct Prefix;  // lanes that a sequence can begin with
  const Policy* PolicyOf(const Sequence& sequence) const;
  Growth GrowthFor(const Sequence& sequence, uint64_t tokens) const;
  // What a sequence must be granted to come to `tokens` positions.
  Demand DemandFor(const Sequence& sequence, uint64_t tokens) const;
  // Decides how many tokens may be generated, and refuses what can never fit.
  void SetLimits(Sequence& sequence) const;
  void GiveBack(Sequence& sequence);
  void Track(Sequence& sequence, bool after_commit);
  [[noreturn]] void RefuseBudget(const Sequence& sequence, const Demand& demand) const;

  // admission.cc
  bool Admit(Sequence& sequence);
  bool Resume(Sequence& sequence);
  bool Begin(Sequence& sequence, const Prefix& prefix);
  // Says whether it had to refuse somebody.
  bool AdmitWaiting();
  std::unique_ptr<Sequence> TakeWaiting(size_t index);
  std::unique_ptr<Sequence> TakeRunning(const Sequence& sequence);
  // Makes sure that the tokens known have room; parks others, or the sequence itself, if need be.
  // False when there is none although nobody is left to be parked.
  bool MakeRoom(Sequence& sequence);
  void Park(Sequence& sequence);
  // Attempts something that `demand` must fit for, and drops snapshots until it succeeds.
  template <typename F>
  bool WithRoom(const Demand& demand, const Snapshot* keep, F&& attempt);

  // prefixes.cc
  uint32_t block() const { return policy_ ? policy_->block() : 1; }  // prefixes end at multiples
  // Whether pages change their form, so that lanes cannot be cut anywhere.
  bool seals() const { return shape_.seals.recent > 0; }
  // Where a prompt whose pages change their form is published next, whatever its policy does.
  uint32_t NextShared(const Sequence& sequence) const;
  PrefixQuery QueryOf(const Sequence& sequence) const;
  // Leading tokens of a running sequence that others may begin with, while nothing is dropped.
  static std::span<const int32_t> Shareable(const Sequence& sequence);
  // Where `other`, that reads its prompt, will leave what `query` can begin with.
  uint32_t ComingCut(const Sequence& other, const PrefixQuery& query) const;
  Prefix FindPrefix(const Sequence& sequence);
  // Whether somebody is reading what this one begins with.
  bool WaitsForPrefix(Sequence& sequence);
  void PublishBlock(Sequence& sequence);
  void PublishUndropped(Sequence& sequence);
  void PublishLanes(Sequence& sequence, uint32_t position, bool make_room);
  void PublishEnd(Sequence& sequence);

  bool RoomForAll();
  uint32_t RowsFor(const Sequence& sequence, uint32_t rows_left) const;
  // Takes the logits after position `position`.
  void Sample(Sequence& sequence, uint32_t position, std::span<const float> logits);
  // Runs a pass over segments of these sequences; their policies see the queries they asked for.
  void Forward(std::span<Sequence* const> members, std::span<Segment> segments,
               const LogitsSink& sink);
  // After a pass that put `rows` of its tokens into the lanes: counts them, and lets the policy
  // drop.
  void Advance(Sequence& sequence, uint32_t rows);
  // Takes the token a pass sampled; true when the sequence is done, with the reason.
  bool TakeToken(Sequence& sequence, StopReason* reason, std::string* detail);
  // Hands text up to byte `end`, and the log probabilities so far, to the request's callback.
  void Show(Sequence& sequence, size_t end, bool last);
  void Finish(std::unique_ptr<Sequence> sequence, StopReason reason, std::string detail);

  Model& model_;
  const Tokenizer* tokenizer_;
  const Kernels& kernels_;
  Workers& workers_;
  EngineOptions options_;
  uint32_t context_ = 0;
  LaneShape shape_;
  std::unique_ptr<Policy> policy_;
  Store store_;
  std::unique_ptr<PrefixIndex> prefixes_;  // null: nothing is kept
  uint32_t prefix_interval_ = 0;           // a multiple of the policy's block
  EngineStats stats_;
  Plan plan_;  // reused
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  RequestId next_id_ = 1;
};

}  // namespace kvasir
