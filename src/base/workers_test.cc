#include "base/workers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvasir {
namespace {

using Clock = std::chrono::steady_clock;

double ProcessCpuSeconds() {
  timespec now = {};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class WorkersTest : public testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Threads, WorkersTest, testing::Values(1, 2, 3, 8));

TEST_P(WorkersTest, RunsEveryTaskOnce) {
  Workers workers(GetParam());
  EXPECT_EQ(workers.size(), GetParam());
  for (const size_t n_tasks : {0, 1, 2, 7, 1000}) {
    std::vector<int> runs(n_tasks, 0);  // not atomic: a task belongs to one thread
    workers.Run(n_tasks, [&](size_t task, size_t worker) {
      EXPECT_LT(worker, GetParam());
      ++runs[task];
    });
    EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), static_cast<ptrdiff_t>(n_tasks));
  }
}

TEST_P(WorkersTest, WhatTasksWroteIsVisibleAfterRunAndToTheNextRun) {
  Workers workers(GetParam());
  std::vector<uint64_t> values(64, 1);
  for (int round = 0; round < 500; ++round) {
    workers.Run(values.size(), [&](size_t task, size_t) { values[task] += task + round; });
    const uint64_t sum = std::accumulate(values.begin(), values.end(), uint64_t{0});
    workers.Run(values.size(), [&](size_t task, size_t) { values[task] = sum + task; });
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], sum + i);
    std::fill(values.begin(), values.end(), 1);
  }
}

TEST_P(WorkersTest, TwoTasksNeverShareAWorkersScratch) {
  Workers workers(GetParam());
  std::vector<std::vector<size_t>> scratch(workers.size());
  for (int round = 0; round < 200; ++round) {
    workers.Run(100, [&](size_t task, size_t worker) {
      std::vector<size_t>& mine = scratch[worker];
      mine.assign(16, task);
      for (const size_t value : mine) ASSERT_EQ(value, task);
    });
  }
}

TEST_P(WorkersTest, RethrowsAnErrorAfterAllTasksHaveRun) {
  Workers workers(GetParam());
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> runs{0};
    try {
      workers.Run(20, [&](size_t task, size_t) {
        ++runs;
        if (task % 5 == 0) throw std::runtime_error("task " + std::to_string(task));
      });
      FAIL() << "no error";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()).substr(0, 5), "task ");
    }
    EXPECT_EQ(runs.load(), 20);
    // The error is gone with the Run that had it.
    workers.Run(20, [&](size_t, size_t) { ++runs; });
    EXPECT_EQ(runs.load(), 40);
  }
}

TEST_P(WorkersTest, WakesSleepingWorkers) {
  Workers workers(GetParam());
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than the spinning
    std::atomic<size_t> inside{0};
    const auto end = Clock::now() + std::chrono::seconds(20);
    // Every task waits for all the others: only possible when all threads take part.
    workers.Run(workers.size(), [&](size_t, size_t) {
      ++inside;
      while (inside.load() < workers.size() && Clock::now() < end) std::this_thread::yield();
    });
    EXPECT_EQ(inside.load(), workers.size());
  }
}

TEST_P(WorkersTest, CanBeMadeAndEndedWithoutWork) {
  for (int i = 0; i < 20; ++i) Workers workers(GetParam());
  for (int i = 0; i < 20; ++i) {
    Workers workers(GetParam());
    int runs = 0;
    workers.Run(1, [&](size_t, size_t) { ++runs; });
    EXPECT_EQ(runs, 1);
  }
}

TEST(Workers, TakesTasksInAscendingOrder) {
  Workers workers(1);
  std::vector<size_t> order;
  workers.Run(10, [&](size_t task, size_t) { order.push_back(task); });
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(Workers, OneThreadWhenNoneAreAskedFor) { EXPECT_EQ(Workers(0).size(), 1u); }

TEST(Workers, UsesNoProcessorWhileIdle) {
  Workers workers(4);
  workers.Run(100, [](size_t, size_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // spins are over
  const double before = ProcessCpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  // Spinning threads would have used up to 0.9 s here.
  EXPECT_LT(ProcessCpuSeconds() - before, 0.05);
}

// Microseconds of `runs` Runs at the given quantile: low ones, because other programs run here too.
template <typename F>
double RunMicros(Workers& workers, int runs, double quantile, F&& task) {
  std::vector<double> micros;
  for (int i = 0; i < runs; ++i) {
    const auto begin = Clock::now();
    workers.Run(2, task);
    micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  std::sort(micros.begin(), micros.end());
  return micros[static_cast<size_t>(quantile * runs)];
}

TEST(Workers, DoesNotWaitForWorkersThatAreNotNeeded) {
  // Many more threads than processors: a Run whose tasks the caller can do itself must not depend
  // on all of them being scheduled.
  Workers workers(64);
  EXPECT_LT(RunMicros(workers, 500, 0.5, [](size_t, size_t) {}), 1000);
}

TEST(Workers, ForkJoinOfTwoThreadsCostsMicroseconds) {
  if (Workers::AvailableCores() < 2) GTEST_SKIP() << "needs two processors";
  Workers workers(2);
  std::atomic<uint32_t> arrived{0};
  // Each task waits for the other one, so that both threads take part in every Run.
  const double micros = RunMicros(workers, 5000, 0.1, [&](size_t, size_t) {
    const uint32_t all = arrived.fetch_add(1) / 2 * 2 + 2;
    while (arrived.load() < all) std::this_thread::yield();
  });
  RecordProperty("fork_join_us", std::to_string(micros));
  // A sleep and a wake-up in each Run would cost more; sanitizers get the same bound.
  EXPECT_LT(micros, 30);
}

TEST(Workers, StretchesCoverEveryTaskOnceAndAreHelpedWith) {
  for (const size_t threads : {1, 2, 3}) {
    Workers workers(threads);
    for (const size_t n : {0, 1, 2, 5, 64, 1000}) {
      std::vector<std::atomic<int>> runs(n);
      workers.RunInStretches(n, [&](size_t task, size_t worker) {
        ASSERT_LT(worker, threads);
        runs[task].fetch_add(1);
      });
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(runs[i].load(), 1) << i << " of " << n;
    }
    // The first task waits until all others have run: whoever holds it, the rest of its stretch
    // falls to the others, or to itself before.
    if (threads == 1) continue;
    std::atomic<size_t> done{0};
    workers.RunInStretches(100, [&](size_t task, size_t) {
      while (task == 0 && done.load() < 99) std::this_thread::yield();
      done.fetch_add(1);
    });
    EXPECT_EQ(done.load(), 100u);
  }
}

TEST(WorkersDeathTest, RefusesARunInsideATask) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        Workers workers(2);
        workers.Run(2, [&](size_t, size_t) { workers.Run(1, [](size_t, size_t) {}); });
      },
      "one Run at a time");
}

TEST(Workers, ReadsCgroupQuotas) {
  EXPECT_EQ(Workers::QuotaCores("200000 100000"), 2u);
  EXPECT_EQ(Workers::QuotaCores("250000 100000\n"), 2u);
  EXPECT_EQ(Workers::QuotaCores("50000 100000"), 1u);
  EXPECT_EQ(Workers::QuotaCores("max 100000"), SIZE_MAX);
  for (const char* text : {"", "7", "7 ", "7 0", "x y", "-1 100000"}) {
    EXPECT_EQ(Workers::QuotaCores(text), SIZE_MAX) << text;
  }
  EXPECT_GE(Workers::AvailableCores(), 1u);
}

}  // namespace
}  // namespace kvasir
