#include "base/workers.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace kvasir {

namespace {
constexpr int kSpins = 4000;  // about 40 us: longer than the serial pieces of one pass

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}
}  // namespace

Workers::Workers(size_t n_threads) {
  for (size_t i = 1; i < std::max<size_t>(n_threads, 1); ++i) {
    threads_.emplace_back([this, i] { Loop(i); });
  }
}

Workers::~Workers() {
  stop_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::Drain(size_t worker) {
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
  if (threads_.empty() || n_tasks == 1) {
    for (size_t task = 0; task < n_tasks; ++task) call(context, task, 0);
    return;
  }
  context_ = context;
  call_ = call;
  n_tasks_ = n_tasks;
  next_.store(0);
  busy_.store(threads_.size());
  epoch_.fetch_add(1);
  epoch_.notify_all();
  Drain(0);
  for (int spin = 0;; ++spin) {
    const size_t busy = busy_.load();
    if (busy == 0) break;
    if (spin < kSpins) {
      Pause();
    } else {
      busy_.wait(busy);
    }
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Workers::Loop(size_t worker) {
  uint32_t seen = 0;
  for (;;) {
    uint32_t epoch = epoch_.load();
    for (int spin = 0; epoch == seen; epoch = epoch_.load()) {
      if (++spin < kSpins) {
        Pause();
      } else {
        epoch_.wait(seen);
      }
    }
    seen = epoch;
    if (stop_.load()) return;
    Drain(worker);
    if (busy_.fetch_sub(1) == 1) busy_.notify_all();
  }
}

size_t Workers::AvailableCores() {
  size_t cores = std::max(1u, std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (::sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    cores = std::max<size_t>(1, static_cast<size_t>(CPU_COUNT(&mask)));
  }
  // cgroup v2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) {
    const double limit = std::stod(quota) / period;
    cores = std::min(cores, std::max<size_t>(1, static_cast<size_t>(limit)));
  }
  return cores;
}

}  // namespace kvasir
