// Quest (arXiv 2406.10774): everything stays, and a generated token reads only the parts of a lane
// whose keys could matter most to its query.
//
// Of every part of `part` consecutive entries there are the largest and the smallest key of each
// channel (key_bounds.h); they bound what any of its keys can give for a query. A row behind the
// prompt reads, in each lane, the max(3, budget / part) parts with the highest bound, the largest
// over the query heads of the KV head; ties go to the earlier part. Its own part is always among
// them, counted. The first `skip` layers, layers with a sliding window and prompts are read whole.
//
// Memory   Nothing is freed: bounds come on top, two elements per channel and part.
// Cost     Per row and lane one product with a column per part; a page that nothing is read of is
//          skipped. Of the others K is read whole (lanes of a vector are entries), V by entries.
// Sharing  Entries are those of a dense cache, so prefixes are shared as if there were no policy;
//          bounds are made from the lanes as they are.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "policy/policy.h"
#include "policy/quest/key_bounds.h"

namespace kvasir {

extern const Traits kQuestTraits;
std::unique_ptr<Policy> MakeQuest(const OptionValues& values, const PolicyContext& context);

struct QuestParams {
  uint32_t budget = 1024, part = 16, skip = 2;
  uint32_t most_parts() const { return std::max(3u, budget / part); }
};

class QuestPolicy final : public Policy {
 public:
  QuestPolicy(const LaneShape& shape, const QuestParams& params) : shape_(shape), params_(params) {}
  const Traits& traits() const override { return kQuestTraits; }
  std::string Spec() const override;
  Growth MaxGrowth(uint64_t prompt, uint64_t tokens, uint64_t protected_entries) const override {
    return {.tokens = tokens};
  }
  uint64_t EvidenceBytes(const Growth& growth) const override;
  std::unique_ptr<PolicyState> Begin(const SequenceInfo& info) const override;
  uint32_t block() const override { return 1; }
  bool pins() const override { return false; }

 private:
  const LaneShape shape_;  // without layers when the policy was made without a model
  const QuestParams params_;
};

class QuestState final : public PolicyState {
 public:
  QuestState(const LaneShape& shape, const QuestParams& params)
      : shape_(shape), params_(params), bounds_(shape, params.part, params.skip) {}

  uint32_t MaxRows(const Progress& before) const override;
  bool Selects(const Progress& before) const override { return !before.in_prompt(); }
  void Select(const LayerQueries& query, std::span<LaneView> lanes) override;
  void Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) override;
  std::unique_ptr<PolicyState> Fork() const override;
  uint32_t shareable_rows() const override { return first_hidden_; }
  std::optional<PassReads> reads() const override { return reads_; }

  // Of the last Select in which parts were left out: the bounds of the whole parts of a KV head.
  std::span<const float> bounds(uint32_t head) const {
    const std::span<const float> all = heads_.at(head).bounds;
    return all.first(all.empty() ? 0 : all.size() - 1);
  }

 private:
  // What one KV head of a layer needs; its pages are read until the next layer's.
  struct Head {
    KeyBounds::Scratch scratch;
    std::vector<float> bounds;
    std::vector<uint8_t> own;
    std::vector<uint32_t> candidates, hidden;
    std::vector<PageView> pages;
    // Of the pass: lanes judged, entries of them left out, bytes of them read.
    uint64_t n_lanes = 0, n_hidden = 0, bytes = 0;
  };
  LaneView Choose(const LayerQueries& query, uint32_t head, const LaneView& lane, Head* into) const;

  const LaneShape shape_;
  const QuestParams params_;
  KeyBounds bounds_;
  std::vector<Head> heads_;
  bool chose_ = false;
  uint32_t first_hidden_ = std::numeric_limits<uint32_t>::max();  // row that did not read all
  std::optional<PassReads> reads_;
};

}  // namespace kvasir
