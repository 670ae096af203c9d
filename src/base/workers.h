// A pool of worker threads for fork-join inside one operation.
//
// Run(n, f) calls f(task, worker) once for every task in [0, n), on the calling thread and the
// workers, and returns when all are done. Tasks are taken in ascending order by whoever is free;
// which thread runs a task must not change its result. `worker` in [0, size()) names a private
// scratch area.
//
// Cost     A few microseconds for a fork-join while work keeps coming. Workers spin for some tens
//          of microseconds after the last one, then sleep. Run never waits for a worker that has
//          not started yet: who wakes too late finds the gate closed and changes nothing.
// Threads  One Run at a time, and none from inside a task (CHECKed). A task may throw: the first
//          error is rethrown by Run after all tasks have run.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

namespace kvasir {

class Workers {
 public:
  // Counts the calling thread: n_threads - 1 are started. Errors: kIo when the system refuses.
  explicit Workers(size_t n_threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  size_t size() const { return threads_.size() + 1; }

  template <typename F>
  void Run(size_t n_tasks, F&& f) {
    if (n_tasks == 0) return;
    RunErased(n_tasks, const_cast<void*>(static_cast<const void*>(&f)),
              [](void* context, size_t task, size_t worker) {
                (*static_cast<std::remove_reference_t<F>*>(context))(task, worker);
              });
  }

  // The same for tasks that read memory one after another: every thread has a stretch of
  // consecutive tasks to itself and helps with the others' when it is through, so that memory is
  // read in as many streams as there are threads.
  template <typename F>
  void RunInStretches(size_t n_tasks, F&& f) {
    if (n_tasks == 0) return;
    const size_t n = size();
    for (size_t i = 0; i < n; ++i) {
      stretches_[i].next.store(n_tasks * i / n, std::memory_order_relaxed);
      stretches_[i].end = n_tasks * (i + 1) / n;
    }
    Run(n, [&](size_t own, size_t worker) {
      for (size_t i = 0; i < n; ++i) {
        Stretch& stretch = stretches_[(own + i) % n];
        for (size_t task = stretch.next.fetch_add(1, std::memory_order_relaxed); task < stretch.end;
             task = stretch.next.fetch_add(1, std::memory_order_relaxed)) {
          f(task, worker);
        }
      }
    });
  }

  // Processors this process may use: the smaller of its affinity mask and its container's CPU
  // quota.
  static size_t AvailableCores();
  // Whole processors of a cgroup's quota, at least 1; v2: "QUOTA PERIOD" in microseconds.
  // SIZE_MAX when it is "max PERIOD" or nothing of the kind.
  static size_t QuotaCores(std::string_view cpu_max);

 private:
  using Call = void (*)(void* context, size_t task, size_t worker);
  void RunErased(size_t n_tasks, void* context, Call call);
  void Loop(size_t worker);
  void Drain(size_t worker) noexcept;
  bool Enter(uint32_t* seen_epoch);
  void Leave();
  void CloseAndWait();
  void Stop();

  struct alignas(64) Stretch {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  std::vector<std::thread> threads_;
  std::unique_ptr<Stretch[]> stretches_;  // one per thread
  // Of the present Run: written while the gate is closed and empty, read by those who entered it.
  void* context_ = nullptr;
  Call call_ = nullptr;
  size_t n_tasks_ = 0;
  std::mutex error_mutex_;
  std::exception_ptr error_;  // guarded by error_mutex_ while a Run is on
  std::atomic<bool> running_{false};
  std::atomic<bool> stop_{false};
  // Epoch (high bits), whether workers may enter, and how many are inside: one word, so that
  // closing the gate and counting who is inside cannot disagree.
  alignas(64) std::atomic<uint32_t> gate_;
  alignas(64) std::atomic<size_t> next_{0};       // next task to take
  alignas(64) std::atomic<uint32_t> emptied_{0};  // raised by the last to leave a closed gate
};

}  // namespace kvasir
