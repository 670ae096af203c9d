// The engine's thread, and the one way to it from connection threads.
//
// Submit puts requests into a bounded inbox; the thread hands them to the engine between two
// passes and runs passes while there is work. What a request produces goes into the event queue
// that was given with it, so no callback of the engine ever waits for a client.
//
// Invariants  Every submitted request ends with exactly one event that has `done` set.
//             Nobody waits for a pass to read the snapshot: it is a copy, at most about 20 ms and
//             one pass old, and exact whenever the engine is idle.
// Cost        A lock and a wake-up for each piece of text of a stream.
// Threads     All functions from any thread; the engine belongs to the loop while it lives.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"

namespace kvasir {

class Metrics;

// Something that became of one of the requests that were submitted together.
struct GenerationEvent {
  size_t choice = 0;  // its place among them
  std::string text;   // streams only
  std::vector<TokenLogprob> logprobs;
  std::optional<Generation> done;  // the last event of this choice
};

// Filled by the engine's thread, emptied by one connection thread.
class EventQueue {
 public:
  void Push(GenerationEvent event);
  // The next event, or nothing if none comes within `wait`.
  std::optional<GenerationEvent> Next(std::chrono::milliseconds wait);

 private:
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<GenerationEvent> events_;
};

struct EngineSnapshot {
  EngineStats stats;  // n_waiting counts the inbox too
  Ledger ledger;
  std::vector<SequenceLine> sequences;
};

struct EngineLoopOptions {
  size_t max_waiting = 256;                        // requests not yet admitted
  std::chrono::milliseconds admit_within{60'000};  // a request that waits longer fails
};

class EngineLoop {
 public:
  using Ticket = uint64_t;

  // `metrics` may be null. Both must outlive the loop.
  EngineLoop(Engine& engine, const EngineLoopOptions& options, Metrics* metrics);
  ~EngineLoop();  // Stop
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  // All of them or none. `stream`: events carry text as it comes. The callbacks of the requests
  // are the loop's own. Errors: kBusy when max_waiting wait already, kUnavailable while draining;
  // what the engine refuses comes as the request's event.
  std::vector<Ticket> Submit(std::vector<Request> requests, std::shared_ptr<EventQueue> events,
                             bool stream);
  // Those that are done already are passed over.
  void Cancel(std::span<const Ticket> tickets);
  // Lets go of every kept prefix; returns when that has happened.
  void DropPrefixes();

  // Nothing new from here on; what was submitted goes on.
  void BeginDrain();
  bool draining() const;
  size_t n_active() const;  // submitted and not done
  // Ends whoever is left with kUnavailable, and the thread. Safe to call again.
  void Stop();

  EngineSnapshot snapshot() const;

 private:
  using Clock = std::chrono::steady_clock;
  // What the loop knows about one request.
  struct Entry {
    Ticket ticket = 0;
    size_t choice = 0;
    std::shared_ptr<EventQueue> events;
    bool stream = false;
    Clock::time_point submitted, last_piece;
  };
  struct Submission {
    Request request;
    std::shared_ptr<Entry> entry;
  };

  void Run();
  // Takes the inbox and acts on it; false when the loop is to end.
  bool Receive();
  void Start(Submission submission);
  void OnPiece(Entry& entry, const Piece& piece);
  void Finish(Entry& entry, Generation generation);
  // Hands over the ends that the last step or inbox brought. When nothing is left to do, the
  // snapshot is taken first: whoever has his answer sees its bytes given back.
  void Deliver();
  void Publish();

  Engine& engine_;
  const EngineLoopOptions options_;
  Metrics* const metrics_;

  mutable std::mutex mutex_;
  std::condition_variable work_, dropped_;
  std::vector<Submission> inbox_;
  std::vector<Ticket> cancels_;
  uint64_t drops_asked_ = 0, drops_done_ = 0;
  bool draining_ = false, stopping_ = false, ended_ = false;
  size_t n_waiting_ = 0;  // inside the engine
  size_t n_active_ = 0;
  Ticket next_ticket_ = 1;
  EngineSnapshot snapshot_;

  // The loop's thread alone.
  std::unordered_map<Ticket, RequestId> ids_;
  Clock::time_point published_;
  std::vector<std::pair<std::shared_ptr<EventQueue>, GenerationEvent>> finished_;
  std::thread thread_;
};

}  // namespace kvasir
