#include "base/workers.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace kvasir {

namespace {
// Longer than the serial pieces between two fork-joins of one pass, short enough to be idle when
// idle.
constexpr std::chrono::microseconds kSpinTime{50};

// gate_: bits 0..11 workers inside, bit 12 closed, bits 13..31 epoch. The epoch may wrap: a worker
// that slept through all 2^19 of them misses one Run, which it need not join.
constexpr uint32_t kInside = (1u << 12) - 1;
constexpr uint32_t kClosed = 1u << 12;
constexpr uint32_t kEpoch = 1u << 13;
uint32_t EpochOf(uint32_t gate) { return gate / kEpoch; }

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until `done` or until the time is up; says whether it is done. By the clock and not by a
// count: one pause takes 10 cycles on some processors and 140 on others. Yielding in between costs
// little on a processor of one's own; on a shared one the thread waited for may be right behind us.
template <typename Done>
bool SpinUntil(Done&& done) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      Pause();
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < end);
  return false;
}
}  // namespace

Workers::Workers(size_t n_threads)
    : stretches_(std::make_unique<Stretch[]>(n_threads)), gate_(kClosed) {
  CHECK(n_threads <= kInside);
  try {
    for (size_t i = 1; i < n_threads; ++i) {
      threads_.emplace_back([this, i] { Loop(i); });
    }
  } catch (const std::system_error& error) {
    const size_t started = size();
    Stop();
    Fail(Code::kIo, "cannot start thread {} of {}: {}", started + 1, n_threads, error.what());
  }
}

Workers::~Workers() { Stop(); }

void Workers::Stop() {
  stop_.store(true);
  gate_.fetch_add(kEpoch);
  gate_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::Drain(size_t worker) noexcept {
  for (size_t task = next_.fetch_add(1); task < n_tasks_; task = next_.fetch_add(1)) {
    try {
      call_(context_, task, worker);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
}

void Workers::RunErased(size_t n_tasks, void* context, Call call) {
  CHECK_MSG(!running_.exchange(true), "one Run at a time");
  context_ = context;
  call_ = call;
  n_tasks_ = n_tasks;
  next_.store(0);
  if (threads_.empty() || n_tasks == 1) {
    Drain(0);
  } else {
    // The only writer while the gate is closed and empty: no worker can enter before this store.
    gate_.store((EpochOf(gate_.load()) + 1) * kEpoch);
    gate_.notify_all();
    Drain(0);
    CloseAndWait();
  }
  std::exception_ptr error = std::exchange(error_, nullptr);
  running_.store(false);
  if (error) std::rethrow_exception(std::move(error));
}

void Workers::CloseAndWait() {
  gate_.fetch_or(kClosed);
  const auto empty = [this] { return (gate_.load() & kInside) == 0; };
  if (SpinUntil(empty)) return;
  for (;;) {
    // Read before looking at the gate: who leaves after the look changes it, and the wait returns.
    const uint32_t emptied = emptied_.load();
    if (empty()) return;
    emptied_.wait(emptied);
  }
}

bool Workers::Enter(uint32_t* seen_epoch) {
  uint32_t gate = gate_.load();
  while (EpochOf(gate) != *seen_epoch && (gate & kClosed) == 0) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) {
      *seen_epoch = EpochOf(gate);
      return true;
    }
  }
  return false;
}

void Workers::Leave() {
  const uint32_t before = gate_.fetch_sub(1);
  if ((before & kClosed) != 0 && (before & kInside) == 1) {
    emptied_.fetch_add(1);
    emptied_.notify_one();
  }
}

void Workers::Loop(size_t worker) {
  uint32_t seen_epoch = 0;
  while (!stop_.load()) {
    bool inside = false;
    SpinUntil([&] { return stop_.load() || (inside = Enter(&seen_epoch)); });
    if (!inside) {
      // Sleep on the word that was looked at: an opening since then makes the wait return at once.
      const uint32_t gate = gate_.load();
      const bool open = EpochOf(gate) != seen_epoch && (gate & kClosed) == 0;
      if (!open && !stop_.load()) gate_.wait(gate);
      continue;
    }
    Drain(worker);
    Leave();
  }
}

size_t Workers::QuotaCores(std::string_view cpu_max) {
  uint64_t quota = 0, period = 0;
  const char* const end = cpu_max.data() + cpu_max.size();
  const auto first = std::from_chars(cpu_max.data(), end, quota);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ' ') return SIZE_MAX;
  const auto second = std::from_chars(first.ptr + 1, end, period);
  if (second.ec != std::errc() || period == 0) return SIZE_MAX;
  return std::max<uint64_t>(1, quota / period);
}

size_t Workers::AvailableCores() {
  size_t cores = std::max(1u, std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    cores = std::max<size_t>(1, static_cast<size_t>(CPU_COUNT(&mask)));
  }
  std::string line;
  if (std::ifstream file("/sys/fs/cgroup/cpu.max"); std::getline(file, line)) {
    cores = std::min(cores, QuotaCores(line));
  }
  return cores;
}

}  // namespace kvasir
