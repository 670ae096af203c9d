#include "policy/grid_policy.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "policy/budget.h"

namespace kvasir {

namespace {

// A lane that may lose entries, and how many it may keep.
struct LaneShare {
  uint32_t layer = 0, head = 0;
  LaneView lane;  // taken on the engine thread: workers do not ask the store
  uint64_t keep = 0;
};

struct LaneScratch {
  ScorerScratch scorer;
  std::vector<uint32_t> positions, candidates;
  std::vector<uint8_t> is_protected;
  std::vector<float> scores;
};

class GridState final : public PolicyState {
 public:
  GridState(const GridPolicy& policy, const SequenceInfo& info)
      : policy_(policy),
        pinned_(policy.pins() ? MergeSpans(info.pinned) : std::vector<PositionSpan>()),
        schedule_(policy.params(), CountPositions(pinned_)),
        lanes_(info.shape.lanes()) {}

  uint32_t MaxRows(const Progress& before) const override {
    return schedule_.MaxRows(before, entries_, lanes_);
  }
  void Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) override;
  std::unique_ptr<PolicyState> Fork() const override { return std::make_unique<GridState>(*this); }
  uint64_t nonfinite_scores() const override { return nonfinite_scores_; }

 private:
  static uint64_t CountPositions(std::span<const PositionSpan> spans) {
    uint64_t n = 0;
    for (const PositionSpan& span : spans) n += span.second - span.first;
    return n;
  }
  std::vector<LaneShare> Shares(const KvView& view, uint64_t target) const;
  // Fills `drop` for one lane; returns the number of scores that were NaN.
  uint32_t SelectLane(const LaneShare& share, const KvView& view,
                      std::span<const PositionSpan> protected_spans, LaneScratch* scratch,
                      DropOp* drop) const;
  uint64_t Select(std::span<const LaneShare> shares, const Progress& after, const KvView& view,
                  Workers* workers, Plan* plan);

  const GridPolicy& policy_;
  const std::vector<PositionSpan> pinned_;
  const Schedule schedule_;
  const uint64_t lanes_;
  uint64_t entries_ = 0;  // of all lanes, after the last plan
  bool pins_announced_ = false;
  uint64_t nonfinite_scores_ = 0;
};

uint64_t CountEntries(const KvView& view) {
  const LaneShape& shape = view.shape();
  uint64_t entries = 0;
  for (uint32_t l = 0; l < shape.n_layers; ++l) {
    for (uint32_t h = 0; h < shape.n_kv_heads; ++h) {
      entries += view.lane(shape.first_layer + l, h).n_entries;
    }
  }
  return entries;
}

void GridState::Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) {
  if (!pins_announced_) {
    for (const PositionSpan& span : pinned_) plan->protects.push_back({span.first, span.second});
    pins_announced_ = true;
  }
  entries_ = CountEntries(view);
  const std::optional<uint64_t> target = schedule_.Target(after, entries_, lanes_);
  if (!target) return;
  entries_ -= Select(Shares(view, *target), after, view, workers, plan);
}

std::vector<LaneShare> GridState::Shares(const KvView& view, uint64_t target) const {
  const LaneShape& shape = view.shape();
  std::vector<LaneShare> shares;
  std::vector<uint64_t> capacities;
  for (uint32_t l = 0; l < shape.n_layers; ++l) {
    for (uint32_t h = 0; h < shape.n_kv_heads; ++h) {
      const LaneView lane = view.lane(shape.first_layer + l, h);
      if (l < policy_.params().skip) {  // whole, and counted
        target -= std::min<uint64_t>(target, lane.n_entries);
      } else {
        shares.push_back({shape.first_layer + l, h, lane, 0});
        capacities.push_back(lane.n_entries);
      }
    }
  }
  const std::vector<double> weights(shares.size(), 1.0);
  const std::vector<uint64_t> keep = Spread(weights, capacities, target);
  for (size_t i = 0; i < shares.size(); ++i) {
    // A list for all lanes has one length: the remainder, less than one entry per lane, is left
    // out.
    shares[i].keep = policy_.scorer().lockstep() ? target / shares.size() : keep[i];
  }
  return shares;
}

uint32_t GridState::SelectLane(const LaneShare& share, const KvView& view,
                               std::span<const PositionSpan> protected_spans, LaneScratch* scratch,
                               DropOp* drop) const {
  const LaneView& lane = share.lane;
  GatherPositions(lane, &scratch->positions);
  MarkCovered(scratch->positions, protected_spans, &scratch->is_protected);
  for (size_t i = 0; i < lane.n_entries; ++i) {
    if (view.IsProtected(scratch->positions[i])) scratch->is_protected[i] = 1;
  }
  scratch->scores.resize(lane.n_entries);
  policy_.scorer().Score({lane, scratch->positions, share.layer, share.head, &view.kernels()},
                         &scratch->scorer, scratch->scores);
  const uint32_t nonfinite = ReplaceNaN(scratch->scores);
  SelectDrops(scratch->scores, scratch->is_protected, share.keep, &scratch->candidates,
              &drop->indices);
  return nonfinite;
}

// Returns the number of entries dropped.
uint64_t GridState::Select(std::span<const LaneShare> shares, const Progress& after,
                           const KvView& view, Workers* workers, Plan* plan) {
  std::vector<PositionSpan> spans = pinned_;
  const GridParams& params = policy_.params();
  spans.emplace_back(0, params.sink);
  spans.emplace_back(after.position - std::min(after.position, params.recent), after.position);
  spans = MergeSpans(std::move(spans));

  const bool lockstep = policy_.scorer().lockstep();
  const size_t n_lists = lockstep ? 1 : shares.size();
  std::vector<DropOp> drops(n_lists);
  std::vector<uint32_t> nonfinite(n_lists, 0);
  std::vector<LaneScratch> scratch(workers == nullptr ? 1 : workers->size());
  const auto select = [&](size_t i, size_t worker) {
    drops[i].layer = shares[i].layer;
    drops[i].head = static_cast<int32_t>(shares[i].head);
    nonfinite[i] = SelectLane(shares[i], view, spans, &scratch[worker], &drops[i]);
  };
  if (workers == nullptr) {
    for (size_t i = 0; i < n_lists; ++i) select(i, 0);
  } else {
    workers->Run(n_lists, select);
  }
  for (const uint32_t n : nonfinite) nonfinite_scores_ += n;

  uint64_t dropped = 0;
  const auto add = [&](DropOp drop, uint64_t lanes) {
    if (drop.indices.empty()) return;
    dropped += drop.indices.size() * lanes;
    plan->drops.push_back(std::move(drop));
  };
  const LaneShape& shape = view.shape();
  if (lockstep) {
    for (uint32_t l = params.skip; l < shape.n_layers; ++l) {
      add({shape.first_layer + l, kAllHeads, drops[0].indices}, shape.n_kv_heads);
    }
  } else {
    for (DropOp& drop : drops) add(std::move(drop), 1);
  }
  return dropped;
}

}  // namespace

std::vector<float> Scores(const Scorer& scorer, const Kernels& kernels, const LaneView& lane,
                          uint32_t layer, uint32_t head) {
  std::vector<uint32_t> positions;
  GatherPositions(lane, &positions);
  ScorerScratch scratch;
  std::vector<float> scores(lane.n_entries);
  const float factor = scorer.Score({lane, positions, layer, head, &kernels}, &scratch, scores);
  for (float& score : scores) score *= factor;
  return scores;
}

GridPolicy::GridPolicy(const Traits& traits, const GridParams& params, uint32_t n_layers,
                       std::unique_ptr<Scorer> scorer, std::string suffix)
    : traits_(traits),
      params_(params),
      n_layers_(n_layers),
      scorer_(std::move(scorer)),
      suffix_(std::move(suffix)) {
  CHECK((params.budget > 0) != (params.keep > 0));
}

std::string GridPolicy::Spec() const {
  return fmt::format("{}:{}{}", traits_.name, FormatParams(params_), suffix_);
}

Growth GridPolicy::MaxGrowth(uint64_t tokens, uint64_t protected_entries) const {
  const uint64_t pinned = params_.pins ? protected_entries : 0;
  const uint64_t always = uint64_t{params_.sink} + params_.recent + pinned;
  const uint64_t budget = params_.Budget(tokens, pinned);
  // Whole layers hold every token; what they leave is shared by the others, each of which needs
  // room for its protected entries and one more.
  const uint64_t layers = std::max<uint32_t>(n_layers_, 1);
  const uint64_t least =
      DivideUp((layers - params_.skip) * (always + 1) + params_.skip * tokens, layers);
  if (tokens > budget && budget < least) {
    if (params_.skip == 0) {
      Fail(Code::kInvalid,
           "{}: {} protected entries leave nothing of budget={}; the least budget is {}",
           traits_.name, always, budget, least);
    }
    Fail(Code::kInvalid,
         "{}: skip={} keeps {} tokens whole, and {} protected entries leave nothing of {}={}; the "
         "least budget is {}",
         traits_.name, params_.skip, tokens, always,
         params_.budget > 0 ? "budget" : "keep's budget", budget, least);
  }
  // With whole layers the sum over lanes is bounded, not each lane: rounding every lane up to pages
  // of 64 then takes at most one page more per lane.
  const uint64_t uneven = params_.skip > 0 ? kPageEntries - 1 : 0;
  return {.tokens = tokens, .cap = budget + uneven, .rows = params_.RowsBetweenCommits(budget)};
}

std::unique_ptr<PolicyState> GridPolicy::Begin(const SequenceInfo& info) const {
  return std::make_unique<GridState>(*this, info);
}

}  // namespace kvasir
