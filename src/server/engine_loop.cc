#include "server/engine_loop.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "server/metrics.h"

namespace kvasir {

namespace {

constexpr std::chrono::milliseconds kPublishEvery{20};

double Seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

void EventQueue::Push(GenerationEvent event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  filled_.notify_one();
}

std::optional<GenerationEvent> EventQueue::Next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  if (!filled_.wait_for(lock, wait, [&] { return !events_.empty(); })) return std::nullopt;
  GenerationEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

EngineLoop::EngineLoop(Engine& engine, const EngineLoopOptions& options, Metrics* metrics)
    : engine_(engine), options_(options), metrics_(metrics) {
  Publish();
  thread_ = std::thread([this] { Run(); });
}

EngineLoop::~EngineLoop() { Stop(); }

std::vector<EngineLoop::Ticket> EngineLoop::Submit(std::vector<Request> requests,
                                                   std::shared_ptr<EventQueue> events,
                                                   bool stream) {
  std::vector<Ticket> tickets;
  {
    const std::lock_guard lock(mutex_);
    if (draining_) {
      Fail(Code::kUnavailable, "draining: the server is about to stop and takes no new requests");
    }
    const size_t waiting = n_waiting_ + inbox_.size();
    if (waiting >= options_.max_waiting) {
      Fail(Code::kBusy, "queue full: {} requests wait already; try again later", waiting);
    }
    const Clock::time_point now = Clock::now();
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].admit_by = now + options_.admit_within;
      const Ticket ticket = next_ticket_++;
      tickets.push_back(ticket);
      inbox_.push_back({std::move(requests[i]),
                        std::make_shared<Entry>(Entry{ticket, i, events, stream, now, {}})});
    }
    n_active_ += requests.size();
  }
  work_.notify_one();
  return tickets;
}

void EngineLoop::Cancel(std::span<const Ticket> tickets) {
  {
    const std::lock_guard lock(mutex_);
    cancels_.insert(cancels_.end(), tickets.begin(), tickets.end());
  }
  work_.notify_one();
}

void EngineLoop::DropPrefixes() {
  std::unique_lock lock(mutex_);
  const uint64_t mine = ++drops_asked_;
  work_.notify_one();
  dropped_.wait(lock, [&] { return drops_done_ >= mine || ended_; });
}

void EngineLoop::BeginDrain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

bool EngineLoop::draining() const {
  const std::lock_guard lock(mutex_);
  return draining_;
}

size_t EngineLoop::n_active() const {
  const std::lock_guard lock(mutex_);
  return n_active_;
}

void EngineLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = stopping_ = true;
  }
  work_.notify_one();
  if (thread_.joinable()) thread_.join();
}

EngineSnapshot EngineLoop::snapshot() const {
  const std::lock_guard lock(mutex_);
  EngineSnapshot copy = snapshot_;
  copy.stats.n_waiting = n_waiting_ + inbox_.size();
  return copy;
}

void EngineLoop::Run() {
  while (Receive()) {
    const uint64_t n_steps = engine_.stats().n_steps;
    const bool more = engine_.Step();
    const EngineStats stats = engine_.stats();
    const bool passed = stats.n_steps != n_steps;  // a step may also end or refuse somebody alone
    if (passed && metrics_) metrics_->StepDone(stats);
    Deliver();
    if (!passed || Clock::now() - published_ >= kPublishEvery) Publish();
    std::unique_lock lock(mutex_);
    n_waiting_ = engine_.n_waiting();
    if (more) continue;
    work_.wait(lock, [&] {
      return stopping_ || !inbox_.empty() || !cancels_.empty() || drops_asked_ > drops_done_;
    });
  }
  Publish();
  const std::lock_guard lock(mutex_);
  ended_ = true;
  dropped_.notify_all();
}

bool EngineLoop::Receive() {
  std::vector<Submission> inbox;
  std::vector<Ticket> cancels;
  uint64_t drops = 0;
  bool stop = false;
  {
    const std::lock_guard lock(mutex_);
    inbox.swap(inbox_);
    cancels.swap(cancels_);
    drops = drops_asked_;
    stop = stopping_;
    n_waiting_ += inbox.size();
  }
  for (Submission& submission : inbox) Start(std::move(submission));
  if (!inbox.empty()) {
    // The next pass admits as many as there are places for, if their bytes are there; nobody should
    // be refused for the time of a pass because of those.
    const size_t waiting = engine_.n_waiting();
    const size_t places = engine_.options().max_sequences - engine_.n_running();
    const std::lock_guard lock(mutex_);
    n_waiting_ = waiting - std::min(waiting, places);
  }
  if (stop) {
    for (const auto& [ticket, id] : ids_) cancels.push_back(ticket);
  }
  for (const Ticket ticket : cancels) {
    const auto found = ids_.find(ticket);
    if (found != ids_.end()) engine_.Cancel(found->second);
  }
  Deliver();
  if (drops > drops_done_) {  // written by this thread alone
    engine_.DropPrefixes();
    Publish();
    const std::lock_guard lock(mutex_);
    drops_done_ = drops;
    dropped_.notify_all();
  }
  return !stop;
}

void EngineLoop::Start(Submission submission) {
  const std::shared_ptr<Entry> entry = std::move(submission.entry);
  Request& request = submission.request;
  request.on_text = [this, entry](const Piece& piece) { OnPiece(*entry, piece); };
  request.on_done = [this, entry](Generation generation) { Finish(*entry, std::move(generation)); };
  try {
    ids_[entry->ticket] = engine_.Submit(std::move(request));
  } catch (const Error& error) {
    Generation refused;
    refused.error = error;
    Finish(*entry, std::move(refused));
  }
}

void EngineLoop::OnPiece(Entry& entry, const Piece& piece) {
  const Clock::time_point now = Clock::now();
  if (metrics_ && entry.last_piece != Clock::time_point{}) {
    metrics_->PieceAfter(Seconds(now - entry.last_piece));
  }
  entry.last_piece = now;
  if (!entry.stream) return;
  entry.events->Push({entry.choice,
                      std::string(piece.text),
                      {piece.logprobs.begin(), piece.logprobs.end()},
                      std::nullopt});
}

void EngineLoop::Finish(Entry& entry, Generation generation) {
  ids_.erase(entry.ticket);
  const bool cancelled = generation.stop_reason == StopReason::kCancelled && !generation.error;
  bool stopping = false;
  {
    const std::lock_guard lock(mutex_);
    stopping = stopping_;
  }
  if (cancelled && stopping) {
    generation.error =
        Error(Code::kUnavailable, "the server stopped before the answer was complete");
  }
  if (metrics_) metrics_->GenerationDone(generation, Seconds(Clock::now() - entry.submitted));
  finished_.emplace_back(entry.events,
                         GenerationEvent{entry.choice, {}, {}, std::move(generation)});
}

void EngineLoop::Deliver() {
  if (finished_.empty()) return;
  if (engine_.n_running() == 0 && engine_.n_waiting() == 0) Publish();
  {
    const std::lock_guard lock(mutex_);
    n_active_ -= finished_.size();
  }
  for (auto& [events, event] : finished_) events->Push(std::move(event));
  finished_.clear();
}

void EngineLoop::Publish() {
  EngineSnapshot snapshot{engine_.stats(), engine_.ledger(), engine_.sequences()};
  published_ = Clock::now();
  const std::lock_guard lock(mutex_);
  snapshot_ = std::move(snapshot);
}

}  // namespace kvasir
