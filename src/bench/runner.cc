#include "bench/runner.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace kvasir::bench {

namespace {

// Each request in flight has a socket; the usual soft limit is as high as kMaxPlaces itself.
void AllowFiles(size_t n) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= n) return;
  limit.rlim_cur = std::min<rlim_t>(n, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);  // where it fails, requests fail and are counted
}

void Converse(const Client& client, const Conversation& conversation, Clock::time_point start,
              Record* records) {
  Client::Dialogue dialogue(client);
  for (size_t t = 0; t < conversation.turns.size(); ++t) {
    const Turn& turn = conversation.turns[t];
    Record record;
    if (t > 0 && !records[t - 1].ok()) {
      record.failure = "earlier turn";
      record.message = "not asked: the turn before failed";
    } else {
      record = client.Stream(dialogue.Ask(turn), start);
      if (record.ok() && !record.has_usage) record.input_tokens = turn.input_tokens;
      dialogue.Answered(record.text);
    }
    records[t] = std::move(record);
  }
}

}  // namespace

LoadRun RunLoad(const Client& client, const std::vector<Conversation>& conversations,
                const std::vector<double>& arrivals, size_t places,
                const std::function<void(double)>& progress) {
  CHECK(arrivals.size() == conversations.size());
  const size_t n = conversations.size();
  std::vector<size_t> first(n, 0);  // record of each conversation's first turn
  size_t n_records = 0;
  for (size_t i = 0; i < n; ++i) {
    first[i] = n_records;
    n_records += conversations[i].turns.size();
  }
  LoadRun run;
  run.records.resize(n_records);
  const size_t n_threads = std::min({n, places == 0 ? kMaxPlaces : places, kMaxPlaces});
  AllowFiles(n_threads + 64);

  std::mutex mutex;
  std::condition_variable ended;
  size_t n_done = 0;
  std::atomic<size_t> next{0};
  const Clock::time_point start = Clock::now();
  const auto work = [&] {
    for (size_t i = next++; i < n; i = next++) {
      std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(
                                                std::chrono::duration<double>(arrivals[i])));
      Converse(client, conversations[i], start, &run.records[first[i]]);
      const std::lock_guard lock(mutex);
      ++n_done;
      ended.notify_one();
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 0; i < n_threads; ++i) threads.emplace_back(work);
  {
    std::unique_lock lock(mutex);
    while (n_done < n) {
      ended.wait(lock);
      if (progress) progress(static_cast<double>(n_done) / static_cast<double>(n));
    }
  }
  run.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (std::thread& thread : threads) thread.join();
  return run;
}

}  // namespace kvasir::bench
