// A pool of worker threads for fork-join inside one operation.
//
// Run(n, f) calls f(task, worker) once for every task in [0, n), on the calling thread and the workers,
// and returns when all are done. Tasks are taken in ascending order by whoever is free; which thread
// runs a task must not change its result. `worker` in [0, size()) names a private scratch area.
//
// Cost     A few microseconds for a fork-join while work keeps coming; workers spin for some tens of
//          microseconds after the last task, then sleep.
// Threads  One Run at a time. A task may throw: the first error is rethrown by Run after all finished.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace kvasir {

class Workers {
 public:
  explicit Workers(size_t n_threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  size_t size() const { return threads_.size() + 1; }

  template <typename F>
  void Run(size_t n_tasks, F&& f) {
    if (n_tasks == 0) return;
    RunErased(
        n_tasks, const_cast<void*>(static_cast<const void*>(&f)),
        [](void* context, size_t task, size_t worker) {
          (*static_cast<std::remove_reference_t<F>*>(context))(task, worker);
        });
  }

  // Processors this process may use: the smaller of its affinity mask and its container's CPU quota.
  static size_t AvailableCores();

 private:
  using Call = void (*)(void* context, size_t task, size_t worker);
  void RunErased(size_t n_tasks, void* context, Call call);
  void Loop(size_t worker);
  void Drain(size_t worker);

  std::vector<std::thread> threads_;
  // Written by Run before `epoch_` is raised, read by workers after they saw it.
  void* context_ = nullptr;
  Call call_ = nullptr;
  size_t n_tasks_ = 0;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<size_t> next_{0};
  alignas(64) std::atomic<size_t> busy_{0};  // workers that have not yet finished this epoch
  std::atomic<bool> stop_{false};
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

}  // namespace kvasir
