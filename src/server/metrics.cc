#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <sstream>
#include <utility>

#include "server/engine_loop.h"

namespace kvasir {

namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using Buckets = Histogram::BucketBoundaries;

// Boundaries are vLLM's, so that its dashboards fit.
const Buckets kFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                             1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const Buckets kPerToken = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                           0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
const Buckets kRequest = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                          30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
const Buckets kPassRows = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kPassSeconds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                              0.1,    0.25,  0.5,    1,     2.5,  5,     10};

// 1, 2, 5, 10, ... up to `max`.
Buckets TokenBuckets(uint32_t max) {
  Buckets buckets;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1, 2, 5}) {
      if (step * decade > max) return buckets;
      buckets.push_back(step * decade);
    }
  }
}

constexpr Code kRefusals[] = {Code::kInvalid,     Code::kBudget,      Code::kBusy,
                              Code::kUnavailable, Code::kUnsupported, Code::kNotFound,
                              Code::kCancelled,   Code::kIo};
constexpr std::string_view kOutcomes[] = {"ok", "refused", "cancelled", "failed"};
constexpr std::string_view kOtherRoute = "other";

std::string_view Outcome(int status) {
  if (status < 400) return "ok";
  if (status == 499) return "cancelled";
  return status < 500 ? "refused" : "failed";
}

// vLLM's words for why a generation ended.
constexpr std::string_view kFinished[] = {"stop", "length", "abort"};
std::string_view Finished(const Generation& generation) {
  if (generation.stop_reason == StopReason::kCancelled) return "abort";
  return generation.stop_reason == StopReason::kLength ? "length" : "stop";
}

}  // namespace

class Metrics::Impl {
 public:
  explicit Impl(const MetricsInfo& info)
      : vllm_({{"model_name", info.model_name}, {"engine", "0"}}),
        running(VllmGauge("num_requests_running", "Requests that have been admitted")),
        waiting(VllmGauge("num_requests_waiting", "Requests that wait to be admitted")),
        usage(VllmGauge("kv_cache_usage_perc",
                        "KV bytes of running sequences over the budget; kept prefixes are free")),
        old_usage(VllmGauge("gpu_cache_usage_perc", "kv_cache_usage_perc under its old name")),
        queries(VllmCounter("prefix_cache_queries_total", "Prompt tokens looked up")),
        hits(VllmCounter("prefix_cache_hits_total", "Prompt tokens found")),
        old_queries(VllmCounter("gpu_prefix_cache_queries_total",
                                "prefix_cache_queries_total under its old name")),
        old_hits(VllmCounter("gpu_prefix_cache_hits_total",
                             "prefix_cache_hits_total under its old name")),
        preemptions(
            VllmCounter("num_preemptions_total", "Times a sequence gave up its lanes to others")),
        prompt_tokens(VllmCounter("prompt_tokens_total", "Prompt tokens, cached ones included")),
        generation_tokens(VllmCounter("generation_tokens_total", "Tokens generated")),
        first_token(VllmHistogram("time_to_first_token_seconds",
                                  "From a request's arrival to its first token", kFirstToken)),
        between(VllmHistogram("inter_token_latency_seconds", "From one piece of text to the next",
                              kPerToken)),
        per_token(VllmHistogram("request_time_per_output_token_seconds",
                                "Mean time of a request's tokens after the first", kPerToken)),
        end_to_end(VllmHistogram("e2e_request_latency_seconds",
                                 "From a request's arrival to its end", kRequest)),
        queue(VllmHistogram("request_queue_time_seconds", "Time before admission", kRequest)),
        prefill(VllmHistogram("request_prefill_time_seconds", "From admission to the first token",
                              kRequest)),
        decode(VllmHistogram("request_decode_time_seconds", "From the first token to the last",
                             kRequest)),
        inference(
            VllmHistogram("request_inference_time_seconds", "From admission to the end", kRequest)),
        request_prompt(VllmHistogram("request_prompt_tokens", "Prompt tokens of a request",
                                     TokenBuckets(info.context))),
        request_generation(VllmHistogram("request_generation_tokens",
                                         "Tokens generated for a request",
                                         TokenBuckets(info.context))),
        pass_rows(VllmHistogram("iteration_tokens_total", "Rows of a pass", kPassRows)),
        budget(OwnGauge("kv_budget_bytes", "The hard budget of the KV cache")),
        entries(OwnGauge("kv_entries", "Entries alive in all lanes")),
        dropped(OwnCounter("kv_evicted_entries_total", "Entries dropped by the policy")),
        queried(OwnCounter("prefix_queried_tokens_total", "Prompt tokens looked up")),
        hit(OwnCounter("prefix_hit_tokens_total", "Prompt tokens found")),
        snapshots(OwnGauge("snapshots", "Kept prefixes")),
        snapshots_dropped(OwnCounter("snapshots_dropped_total", "Kept prefixes given up")),
        pass_seconds(Add<Histogram>("kvasir_step_seconds", "Time of a pass", {}, kPassSeconds)) {
    for (const std::string_view reason : kFinished) {
      finished_.emplace(reason,
                        &Add<Counter>("vllm:request_success_total", "Generations that ended",
                                      With("finished_reason", std::string(reason))));
    }
    for (const char* state : {"running", "snapshots", "reserved", "committed", "tables"}) {
      bytes_.emplace(state, &Add<Gauge>("kvasir_kv_bytes",
                                        "KV bytes: in lanes of running "
                                        "sequences, in kept prefixes, granted, backed by memory, "
                                        "and tables beside the budget",
                                        {{"state", state}}));
    }
    for (int i = 0; i < kPlaneUses; ++i) {
      uses_[i] = &Add<Gauge>("kvasir_kv_plane_bytes", "KV bytes by what planes hold",
                             {{"codec", std::string(Name(static_cast<PlaneUse>(i)))}});
    }
    for (const Code code : kRefusals) {
      refused_.emplace(code, &Add<Counter>("kvasir_rejected_total", "Requests refused",
                                           {{"reason", std::string(Name(code))}}));
    }
    std::vector<std::string> routes = info.routes;
    routes.emplace_back(kOtherRoute);
    for (const std::string& route : routes) {
      for (const std::string_view outcome : kOutcomes) {
        const Labels labels = {{"route", route}, {"outcome", std::string(outcome)}};
        answers_.emplace(std::pair(route, std::string(outcome)),
                         &Add<Counter>("kvasir_requests_total", "Answers by outcome", labels));
      }
    }
    Add<Gauge>("kvasir_build_info", "Always 1",
               {{"version", info.version}, {"simd", info.simd}, {"device", "cpu"}})
        .Set(1);
    Add<Gauge>("vllm:cache_config_info", "Always 1",
               {{"block_size", fmt::format("{}", info.block_tokens)},
                {"num_gpu_blocks", fmt::format("{}", info.blocks)},
                {"engine", "0"}})
        .Set(1);
  }

  void CountFinished(const Generation& generation) {
    finished_.find(Finished(generation))->second->Increment();
  }
  void CountAnswer(std::string_view route, int status) {
    auto found = answers_.find({std::string(route), std::string(Outcome(status))});
    if (found == answers_.end()) {
      found = answers_.find({std::string(kOtherRoute), std::string(Outcome(status))});
    }
    found->second->Increment();
  }
  void CountRefused(Code code) {
    const auto found = refused_.find(code);
    (found == refused_.end() ? refused_.at(Code::kInvalid) : found->second)->Increment();
  }

  std::string Text(const EngineSnapshot& snapshot) {
    const std::lock_guard lock(mutex_);  // counters below move from one scrape to the next
    Update(snapshot);
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, registry_.Collect());
    return out.str();
  }

 private:
  // The registry stands before everything that is made in it.
  prometheus::Registry registry_;
  const Labels vllm_;

  template <typename T, typename... More>
  T& Add(const std::string& name, const char* help, const Labels& labels, More&&... more) {
    if constexpr (std::is_same_v<T, Counter>) {
      return prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels);
    } else if constexpr (std::is_same_v<T, Gauge>) {
      return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels);
    } else {
      return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(
          labels, std::forward<More>(more)...);
    }
  }
  Labels With(const std::string& key, const std::string& value) const {
    Labels labels = vllm_;
    labels[key] = value;
    return labels;
  }
  Gauge& VllmGauge(const std::string& name, const char* help) {
    return Add<Gauge>("vllm:" + name, help, vllm_);
  }
  Counter& VllmCounter(const std::string& name, const char* help) {
    return Add<Counter>("vllm:" + name, help, vllm_);
  }
  Histogram& VllmHistogram(const std::string& name, const char* help, const Buckets& buckets) {
    return Add<Histogram>("vllm:" + name, help, vllm_, buckets);
  }
  Gauge& OwnGauge(const std::string& name, const char* help) {
    return Add<Gauge>("kvasir_" + name, help, {});
  }
  Counter& OwnCounter(const std::string& name, const char* help) {
    return Add<Counter>("kvasir_" + name, help, {});
  }

  static void MoveTo(Counter& counter, uint64_t value) {
    const double more = static_cast<double>(value) - counter.Value();
    if (more > 0) counter.Increment(more);
  }

  void Update(const EngineSnapshot& s) {
    const Ledger& ledger = s.ledger;
    const uint64_t in_lanes = ledger.bytes - std::min(ledger.bytes, s.stats.snapshot_bytes);
    const double share = ledger.budget_bytes == 0 ? 0
                                                  : static_cast<double>(in_lanes) /
                                                        static_cast<double>(ledger.budget_bytes);
    const auto set = [](Gauge& gauge, uint64_t value) { gauge.Set(static_cast<double>(value)); };
    set(running, s.stats.n_running);
    set(waiting, s.stats.n_waiting);
    usage.Set(share);
    old_usage.Set(share);
    MoveTo(queries, s.stats.prefix_queried_tokens);
    MoveTo(hits, s.stats.prefix_hit_tokens);
    MoveTo(old_queries, s.stats.prefix_queried_tokens);
    MoveTo(old_hits, s.stats.prefix_hit_tokens);
    MoveTo(queried, s.stats.prefix_queried_tokens);
    MoveTo(hit, s.stats.prefix_hit_tokens);
    MoveTo(preemptions, s.stats.n_parked);
    MoveTo(prompt_tokens, s.stats.prompt_tokens);
    MoveTo(generation_tokens, s.stats.generated_tokens);
    set(budget, ledger.budget_bytes);
    set(entries, ledger.entries);
    MoveTo(dropped, ledger.entries_dropped);
    set(snapshots, s.stats.n_snapshots);
    MoveTo(snapshots_dropped, s.stats.snapshots_dropped);
    set(*bytes_.at("running"), in_lanes);
    set(*bytes_.at("snapshots"), s.stats.snapshot_bytes);
    set(*bytes_.at("reserved"), ledger.bytes_reserved);
    set(*bytes_.at("committed"), ledger.bytes_committed);
    set(*bytes_.at("tables"), ledger.bytes_tables);
    for (int i = 0; i < kPlaneUses; ++i) set(*uses_[i], ledger.bytes_by_use[i]);
  }

  std::mutex mutex_;

 public:
  Gauge &running, &waiting, &usage, &old_usage;
  Counter &queries, &hits, &old_queries, &old_hits, &preemptions, &prompt_tokens,
      &generation_tokens;
  Histogram &first_token, &between, &per_token, &end_to_end, &queue, &prefill, &decode, &inference,
      &request_prompt, &request_generation, &pass_rows;
  Gauge &budget, &entries;
  Counter &dropped, &queried, &hit;
  Gauge& snapshots;
  Counter& snapshots_dropped;
  Histogram& pass_seconds;

 private:
  std::map<std::string, Counter*, std::less<>> finished_;
  std::map<std::string, Gauge*, std::less<>> bytes_;
  Gauge* uses_[kPlaneUses] = {};
  std::map<Code, Counter*> refused_;
  std::map<std::pair<std::string, std::string>, Counter*> answers_;
};

Metrics::Metrics(const MetricsInfo& info) : impl_(std::make_unique<Impl>(info)) {}
Metrics::~Metrics() = default;

void Metrics::StepDone(const EngineStats& stats) {
  impl_->pass_seconds.Observe(stats.step_seconds);
  impl_->pass_rows.Observe(stats.step_rows);
}

void Metrics::PieceAfter(double seconds) { impl_->between.Observe(seconds); }

void Metrics::GenerationDone(const Generation& generation, double seconds) {
  if (generation.error) return;  // counted where the answer is refused
  const Timings& t = generation.timings;
  impl_->CountFinished(generation);
  impl_->end_to_end.Observe(seconds);
  impl_->first_token.Observe(std::max(0.0, seconds - t.predicted_ms / 1000));
  if (t.predicted_n > 1) impl_->per_token.Observe(t.predicted_ms / 1000 / (t.predicted_n - 1));
  impl_->queue.Observe(t.queue_ms / 1000);
  impl_->prefill.Observe(t.prompt_ms / 1000);
  impl_->decode.Observe(t.predicted_ms / 1000);
  impl_->inference.Observe((t.prompt_ms + t.predicted_ms) / 1000);
  impl_->request_prompt.Observe(generation.prompt_tokens);
  impl_->request_generation.Observe(static_cast<double>(generation.tokens.size()));
}

void Metrics::AnswerDone(std::string_view route, int status) { impl_->CountAnswer(route, status); }

void Metrics::Refused(Code code) { impl_->CountRefused(code); }

std::string Metrics::Text(const EngineSnapshot& snapshot) { return impl_->Text(snapshot); }

}  // namespace kvasir
