// A model and a tokenizer for engine tests: tiny, instant, and honest about the cache. The logits
// after a row are a function of the entries that are alive in the lanes at or before it, so
// whatever the engine does wrong with lanes, positions, forks or neighbours changes the tokens.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace kvasir::testing {

inline constexpr uint32_t kVocabulary = 40;

class TinyModel : public Model {
 public:
  explicit TinyModel(uint32_t max_rows = 64, uint32_t context = 512) : max_rows_(max_rows) {
    config_.architecture = "tiny";
    config_.n_layers = 2;
    config_.n_heads = config_.n_kv_heads = 2;
    config_.hidden = 8;
    config_.head_dim = 4;
    config_.vocab_size = kVocabulary;
    config_.context_length = context;
  }
  const ModelConfig& config() const override { return config_; }
  uint32_t max_rows() const override { return max_rows_; }
  uint64_t weight_bytes() const override { return 0; }
  uint64_t scratch_bytes() const override { return 0; }

  std::span<const float> key_bias(uint32_t layer) const override { return {}; }
  void Forward(std::span<const Segment> segments, const LogitsSink& sink,
               const QuerySink& query_sink, const ViewSink& view_sink) override {
    uint32_t rows_in_pass = 0;
    for (size_t s = 0; s < segments.size(); ++s) {
      const Segment& segment = segments[s];
      AppendCursor& cursor = *segment.cursor;
      const auto n = static_cast<uint32_t>(segment.tokens.size());
      rows_in_pass += n;
      CHECK(n == cursor.n_rows());
      seen_.assign(n, {});
      for (uint32_t layer = 0; layer < config_.n_layers; ++layer) {
        std::vector<float> data(size_t{n} * 8);
        const Rows block{data.data(), n, 8, 8};
        for (uint32_t r = 0; r < n; ++r) {
          for (uint32_t c = 0; c < 8; ++c) {
            block.row(r)[c] =
                std::sin(static_cast<float>(segment.tokens[r] * 8 + c) + static_cast<float>(layer));
          }
        }
        // Keys serve as queries.
        const uint32_t shown = segment.query_rows;
        if (query_sink && shown > 0) query_sink(s, layer, block.Slice(n - shown, shown));
        while (const uint32_t rows = cursor.BlockRows(layer)) {
          const uint32_t first = cursor.n_appended(layer);
          const Rows part = block.Slice(first, rows);
          cursor.Append(layer, part, part, part);
          LaneView lanes[] = {cursor.View(layer, 0), cursor.View(layer, 1)};
          if (segment.chooses) view_sink(s, layer, block, lanes);
          for (uint32_t r = first; r < first + rows; ++r) {
            Look(lanes, layer, cursor.first_position() + r, &seen_[r]);
          }
        }
      }
      const uint32_t first_wanted = segment.logits == WantLogits::kAll    ? 0
                                    : segment.logits == WantLogits::kLast ? n - 1
                                                                          : n;
      for (uint32_t r = first_wanted; r < n; ++r) sink(s, r, Logits(seen_[r]));
      cursor.Finish();
    }
    CHECK(rows_in_pass <= max_rows_);
    widest_pass = std::max(widest_pass, rows_in_pass);
    rows += rows_in_pass;
  }

  uint32_t widest_pass = 0;
  uint64_t rows = 0;    // of all passes
  int32_t poison = -1;  // a token after which every logit is NaN

 private:
  struct Seen {
    double sum = 0;
    bool poisoned = false;
  };
  // Sums key channels x position over what row `position` sees of a layer's lanes.
  void Look(std::span<const LaneView> lanes, uint32_t layer, uint32_t position, Seen* seen) const {
    std::vector<float> keys(size_t{kPageEntries} * config_.head_dim);
    for (uint32_t head = 0; head < lanes.size(); ++head) {
      const LaneView& lane = lanes[head];
      for (uint32_t p = 0; p < lane.n_pages; ++p) {
        const PageView& page = lane.pages[p];
        BestKernels().planes.expand_k[page.k_form.index()](
            page.k, page.k_form.Shape(config_.head_dim), keys.data());
        for (uint32_t slot = 0; slot < page.filled; ++slot) {
          if (!(page.live >> slot & 1) || page.position(slot) > position) continue;
          const float key = keys[slot];
          // Channels that a sparse page has let go are zeros.
          const double others = keys[kPageEntries + slot] + 2.0 * keys[2 * kPageEntries + slot];
          seen->sum += (head + 1) * (page.position(slot) + 1.0) * (key + 0.25 * others);
          seen->poisoned |= poison >= 0 && layer == 0 && head == 0 &&
                            key == std::sin(static_cast<float>(poison * 8));
        }
      }
    }
  }
  // Hashes what a row has seen.
  std::vector<float> Logits(const Seen& seen) const {
    std::vector<float> logits(kVocabulary);
    for (uint32_t v = 0; v < kVocabulary; ++v) {
      logits[v] = seen.poisoned ? NAN : static_cast<float>(3 * std::sin(seen.sum * (v + 1)));
    }
    return logits;
  }

  ModelConfig config_;
  uint32_t max_rows_;
  std::vector<Seen> seen_;  // by row of a segment
};

// Token i is the letter 'a' + i % 26; token 0 ends a text.
class LetterTokenizer : public Tokenizer {
 public:
  LetterTokenizer() {
    eos_ = 0;
    ends_ = {0};
  }
  std::vector<TokenId> Encode(std::string_view text, bool, bool) const override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(c - 'a');
    return ids;
  }
  std::string Piece(TokenId id, bool) const override {
    return std::string(1, static_cast<char>('a' + id % 26));
  }
  std::string Decode(std::span<const TokenId> ids, bool special, bool) const override {
    std::string text;
    for (const TokenId id : ids) text += Piece(id, special);
    return text;
  }
  size_t vocab_size() const override { return kVocabulary; }
  bool IsControl(TokenId id) const override { return id == 0; }
};

inline Request Greedy(std::vector<int32_t> tokens, uint32_t max_tokens) {
  Request request;
  request.tokens = std::move(tokens);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  request.ignore_eos = true;
  return request;
}

// Sends requests to an engine.
class Client {
 public:
  explicit Client(Engine& engine) : to_(engine) {}
  // Its result is at the returned place once it is done.
  std::shared_ptr<std::optional<Generation>> Start(Request request) {
    auto result = std::make_shared<std::optional<Generation>>();
    request.on_done = [result](Generation g) { *result = std::move(g); };
    last_id = to_.Submit(std::move(request));
    return result;
  }
  Generation Ask(Request request) {
    const auto result = Start(std::move(request));
    to_.RunUntilIdle();
    to_.CheckIntegrity();
    return std::move(**result);
  }

  RequestId last_id = 0;

 private:
  Engine& to_;
};

// The tiny model's engine with all that it stands on.
class Bench : public Client {
 public:
  explicit Bench(const EngineOptions& options, uint32_t context = 512)
      : Client(engine_),
        model_(64, context),
        engine_(model_, &tokenizer_, BestKernels(), workers_, options) {}
  Engine& engine() { return engine_; }
  TinyModel& model() { return model_; }

  using Client::Ask;
  Generation Ask(std::vector<int32_t> tokens, uint32_t max_tokens = 10) {
    return Ask(Greedy(std::move(tokens), max_tokens));
  }
  void ExpectEmptyWithoutPrefixes() {
    engine_.DropPrefixes();
    engine_.CheckIntegrity();
    EXPECT_EQ(engine_.ledger().bytes, 0u);
    EXPECT_EQ(engine_.ledger().bytes_reserved, 0u);
    EXPECT_EQ(engine_.ledger().bytes_committed, 0u);
  }

 private:
  TinyModel model_;
  LetterTokenizer tokenizer_;
  Workers workers_{2};
  Engine engine_;
};

}  // namespace kvasir::testing
