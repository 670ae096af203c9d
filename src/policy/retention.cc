#include "policy/retention.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "policy/retention_state.h"

namespace kvasir {

RetentionState::RetentionState(const RetentionPolicy& policy, const SequenceInfo& info)
    : policy_(policy),
      pinned_(policy.pins() ? MergeSpans(info.pinned) : std::vector<PositionSpan>()),
      one_turn_(info.one_turn),
      held_{.entries = 0, .lanes = info.shape.lanes(), .pinned = 0},
      evidence_(policy.scorer().NewEvidence(info.shape)) {
  for (const PositionSpan& span : pinned_) held_.pinned += span.second - span.first;
}

RetentionState::RetentionState(const RetentionState& other)
    : policy_(other.policy_),
      pinned_(other.pinned_),
      one_turn_(other.one_turn_),
      held_(other.held_),
      evidence_(other.evidence_ ? other.evidence_->Fork() : nullptr),
      prompts_(other.prompts_),
      position_(other.position_),
      pins_announced_(other.pins_announced_),
      nonfinite_scores_(other.nonfinite_scores_) {}

uint32_t RetentionState::MaxRows(const Progress& before) const {
  const uint32_t rows = policy_.schedule().MaxRows(before, held_);
  return evidence_ ? std::min(rows, evidence_->MaxRows()) : rows;
}

uint32_t RetentionState::QueryRows(uint32_t rows) const {
  return evidence_ ? evidence_->QueryRows(rows) : 0;
}

void RetentionState::TakeQueries(const LayerQueries& queries) {
  if (evidence_) evidence_->Take(queries);
}

namespace {
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
}  // namespace

// Rows below the prompt's end are prompt, in every turn.
void RetentionState::FollowTurn(const Progress& after) {
  const uint32_t end = std::min(after.position, after.prompt_end);
  if (end > position_) {
    held_.prompt_tokens += end - position_;
    if (!prompts_.empty() && prompts_.back().second == position_) {
      prompts_.back().second = end;
    } else {
      prompts_.emplace_back(position_, end);
    }
  }
  position_ = after.position;
}

void RetentionState::Observe(const Progress& after, const KvView& view, Workers* workers,
                             Plan* plan) {
  if (!pins_announced_) {
    for (const PositionSpan& span : pinned_) plan->protects.push_back({span.first, span.second});
    pins_announced_ = true;
  }
  FollowTurn(after);
  held_.entries = CountEntries(view);
  const std::optional<uint64_t> target = policy_.schedule().Target(after, held_);
  if (evidence_) evidence_->Settle(view, target.has_value(), workers);
  if (target) PlanTo(*target, after, view, workers, plan);
  if (evidence_ && one_turn_ && !after.in_prompt()) evidence_->EndPrompts();
}

// What one worker needs for the lanes that it judges together.
struct RetentionState::Scratch {
  struct Lane {
    std::vector<uint32_t> positions;
    std::vector<uint8_t> is_protected;
    std::vector<float> scores;
  };
  ScorerScratch scorer;
  std::vector<Lane> lanes;
  std::vector<LaneScores> judged;
  std::vector<uint32_t> candidates;
};

// One selection of all lanes.
class RetentionState::Selection {
 public:
  Selection(RetentionState& state, const Progress& at, const KvView& view, uint64_t target);
  void Run(Workers* workers);
  // Hands the drops over; returns how many entries they are.
  uint64_t Take(Plan* plan);
  uint64_t nonfinite() const;

 private:
  Grain grain() const { return state_.policy_.scorer().grain(); }
  void Share(uint64_t target);
  void RunUnit(size_t unit, Scratch* scratch);
  void ScoreLane(size_t lane, Scratch* scratch, Scratch::Lane* into) const;
  ScoredLane Scored(size_t lane, const Scratch::Lane& from) const;
  void SelectLane(size_t lane, const Scratch::Lane& from, Scratch* scratch);

  const RetentionState& state_;
  const Progress at_;
  const KvView& view_;
  const uint32_t heads_;
  std::vector<PositionSpan> spans_;  // protected
  std::vector<LaneView> views_;      // taken on the engine thread: workers do not ask the store
  std::vector<LaneShare> shares_;    // of the lanes that may lose entries
  uint32_t first_layer_;
  size_t lanes_per_unit_ = 1;
  std::vector<DropOp> drops_;
  std::vector<uint32_t> nonfinite_;  // by lane
};

RetentionState::Selection::Selection(RetentionState& state, const Progress& at, const KvView& view,
                                     uint64_t target)
    : state_(state), at_(at), view_(view), heads_(view.shape().n_kv_heads), spans_(state.pinned_) {
  state_.policy_.schedule().Protect(at, state.prompts_, &spans_);
  spans_ = MergeSpans(std::move(spans_));
  const LaneShape& shape = view.shape();
  const uint32_t skip = state_.policy_.schedule().skip();
  first_layer_ = shape.first_layer + skip;
  for (uint32_t l = 0; l < shape.n_layers; ++l) {
    for (uint32_t h = 0; h < heads_; ++h) {
      const LaneView lane = view.lane(shape.first_layer + l, h);
      if (l < skip) {  // whole, and counted
        target -= std::min<uint64_t>(target, lane.n_entries);
      } else {
        views_.push_back(lane);
        shares_.push_back({.entries = lane.n_entries});
      }
    }
  }
  Share(target);
  const bool together = grain() == Grain::kLayer || state_.policy_.allocation().by_score();
  lanes_per_unit_ = grain() == Grain::kModel ? views_.size() : together ? heads_ : 1;
  drops_.resize(views_.size());
  nonfinite_.resize(views_.size());
}

void RetentionState::Selection::Share(uint64_t target) {
  if (state_.policy_.allocation().uneven()) {
    // What is protected was never dropped: every lane holds it.
    uint64_t always = 0;
    for (const PositionSpan& span : spans_) {
      always += std::min(span.second, at_.position) - std::min(span.first, at_.position);
    }
    for (LaneShare& share : shares_) share.always = std::min(always, share.entries);
  }
  state_.policy_.allocation().OverLayers(shares_, heads_, target);
  if (grain() == Grain::kModel) {
    // A list for all lanes has one length: the remainder, less than one entry per lane, is left
    // out.
    for (LaneShare& share : shares_) share.keep = target / shares_.size();
  } else if (grain() == Grain::kLayer) {
    for (size_t i = 0; i < shares_.size(); i += heads_) {
      uint64_t layer = 0;
      for (size_t h = 0; h < heads_; ++h) layer += shares_[i + h].keep;
      for (size_t h = 0; h < heads_; ++h) shares_[i + h].keep = layer / heads_;
    }
  }
}

ScoredLane RetentionState::Selection::Scored(size_t lane, const Scratch::Lane& from) const {
  return {.view = views_[lane],
          .positions = from.positions,
          .is_protected = from.is_protected,
          .layer = first_layer_ + static_cast<uint32_t>(lane / heads_),
          .head = static_cast<uint32_t>(lane % heads_),
          .at = at_,
          .kernels = &view_.kernels(),
          .evidence = state_.evidence_.get()};
}

void RetentionState::Selection::ScoreLane(size_t lane, Scratch* scratch,
                                          Scratch::Lane* into) const {
  GatherPositions(views_[lane], &into->positions);
  MarkCovered(into->positions, spans_, &into->is_protected);
  for (size_t i = 0; i < into->positions.size(); ++i) {
    if (view_.IsProtected(into->positions[i])) into->is_protected[i] = 1;
  }
  into->scores.resize(into->positions.size());
  const float factor =
      state_.policy_.scorer().Score(Scored(lane, *into), &scratch->scorer, into->scores);
  if (state_.on_scores_) {
    for (float& score : into->scores) score *= factor;
  }
}

void RetentionState::Selection::SelectLane(size_t lane, const Scratch::Lane& from,
                                           Scratch* scratch) {
  DropOp& drop = drops_[lane];
  drop.layer = first_layer_ + static_cast<uint32_t>(lane / heads_);
  drop.head = static_cast<int32_t>(lane % heads_);
  SelectDrops(from.scores, from.is_protected, shares_[lane].keep, &scratch->candidates,
              &drop.indices);
}

// Lanes that are judged together: one, those of a layer, or all (by the first).
void RetentionState::Selection::RunUnit(size_t unit, Scratch* scratch) {
  const size_t first = unit * lanes_per_unit_;
  const size_t n = grain() == Grain::kModel ? 1 : lanes_per_unit_;
  const bool one_list = grain() != Grain::kLane;
  scratch->lanes.resize(std::max(scratch->lanes.size(), n));
  for (size_t i = 0; i < n; ++i) ScoreLane(first + i, scratch, &scratch->lanes[i]);
  if (one_list && n > 1) {
    std::vector<float>& mean = scratch->lanes[0].scores;
    for (size_t i = 1; i < n; ++i) {
      CHECK(scratch->lanes[i].scores.size() == mean.size());
      for (size_t e = 0; e < mean.size(); ++e) mean[e] += scratch->lanes[i].scores[e];
    }
    for (float& score : mean) score /= static_cast<float>(n);
  }
  const size_t lists = one_list ? 1 : n;
  scratch->judged.clear();
  for (size_t i = 0; i < lists; ++i) {
    Scratch::Lane& lane = scratch->lanes[i];
    state_.policy_.scorer().Shape(Scored(first + i, lane), &scratch->scorer, lane.scores);
    if (state_.on_scores_) {
      state_.on_scores_(first_layer_ + static_cast<uint32_t>((first + i) / heads_),
                        one_list ? -1 : static_cast<int32_t>((first + i) % heads_), lane.scores);
    }
    nonfinite_[first + i] = ReplaceNaN(lane.scores);
    scratch->judged.push_back({lane.scores, lane.is_protected});
  }
  const Allocation& allocation = state_.policy_.allocation();
  if (allocation.by_score()) {
    const std::span<LaneShare> shares = std::span(shares_).subspan(first, n);
    for (size_t i = 0; i < n; ++i) {
      const std::vector<uint8_t>& marks = scratch->lanes[i].is_protected;
      shares[i].always = static_cast<uint64_t>(std::count(marks.begin(), marks.end(), 1));
    }
    allocation.OverHeads(scratch->judged, shares);
  }
  for (size_t i = 0; i < lists; ++i) SelectLane(first + i, scratch->lanes[i], scratch);
}

void RetentionState::Selection::Run(Workers* workers) {
  const size_t units = views_.size() / lanes_per_unit_;
  std::vector<Scratch> scratch(workers == nullptr ? 1 : workers->size());
  if (workers == nullptr || state_.on_scores_) {
    for (size_t i = 0; i < units; ++i) RunUnit(i, scratch.data());
  } else {
    workers->Run(units, [&](size_t i, size_t worker) { RunUnit(i, &scratch[worker]); });
  }
}

uint64_t RetentionState::Selection::nonfinite() const {
  uint64_t n = 0;
  for (const uint32_t of_lane : nonfinite_) n += of_lane;
  return n;
}

uint64_t RetentionState::Selection::Take(Plan* plan) {
  uint64_t dropped = 0;
  const auto add = [&](DropOp drop, uint64_t lanes) {
    if (drop.indices.empty()) return;
    dropped += drop.indices.size() * lanes;
    if (state_.evidence_) {
      for (uint32_t h = 0; h < heads_; ++h) {
        if (drop.head != kAllHeads && drop.head != static_cast<int32_t>(h)) continue;
        state_.evidence_->Drop(drop.layer, h, drop.indices);
      }
    }
    plan->drops.push_back(std::move(drop));
  };
  switch (grain()) {
    case Grain::kLane:
      for (DropOp& drop : drops_) add(std::move(drop), 1);
      break;
    case Grain::kLayer:
    case Grain::kModel:
      for (size_t i = 0; i < drops_.size(); i += heads_) {
        const DropOp& list = drops_[grain() == Grain::kModel ? 0 : i];
        add({first_layer_ + static_cast<uint32_t>(i / heads_), kAllHeads, list.indices}, heads_);
      }
      break;
  }
  return dropped;
}

void RetentionState::PlanTo(uint64_t target, const Progress& after, const KvView& view,
                            Workers* workers, Plan* plan) {
  Selection selection(*this, after, view, target);
  selection.Run(workers);
  nonfinite_scores_ += selection.nonfinite();
  held_.entries -= selection.Take(plan);
}

std::vector<float> Scores(const Scorer& scorer, const Kernels& kernels, const LaneView& lane,
                          uint32_t layer, uint32_t head) {
  std::vector<uint32_t> positions;
  GatherPositions(lane, &positions);
  const std::vector<uint8_t> is_protected(lane.n_entries);
  ScorerScratch scratch;
  std::vector<float> scores(lane.n_entries);
  const ScoredLane scored = {.view = lane,
                             .positions = positions,
                             .is_protected = is_protected,
                             .layer = layer,
                             .head = head,
                             .at = {},
                             .kernels = &kernels};
  const float factor = scorer.Score(scored, &scratch, scores);
  for (float& score : scores) score *= factor;
  scorer.Shape(scored, &scratch, scores);
  return scores;
}

RetentionPolicy::RetentionPolicy(const Traits& traits, const PolicyContext& context,
                                 RetentionParts parts)
    : traits_(traits), shape_(context.shape), parts_(std::move(parts)) {
  CHECK(parts_.schedule && parts_.scorer);
  if (!parts_.allocation) parts_.allocation = std::make_unique<Allocation>();
}

std::string RetentionPolicy::Spec() const {
  return fmt::format("{}:{}{}", traits_.name, parts_.schedule->Format(), parts_.suffix);
}

Growth RetentionPolicy::MaxGrowth(uint64_t prompt, uint64_t tokens,
                                  uint64_t protected_entries) const {
  Growth growth =
      parts_.schedule->MaxGrowth(traits_.name, shape_.n_layers, prompt, tokens, protected_entries);
  // With uneven lanes the sum is bounded, not each lane: rounding every lane up to pages of 64 then
  // takes at most one page more per lane.
  if (parts_.allocation->uneven() && parts_.schedule->skip() == 0) growth.cap += kPageEntries - 1;
  return growth;
}

uint64_t RetentionPolicy::EvidenceBytes(const Growth& growth) const {
  return parts_.scorer->EvidenceBytes(shape_, growth);
}

// A selection one block behind a cut may want rows from before it.
std::optional<uint32_t> RetentionPolicy::rows_to_see() const {
  const std::optional<uint32_t> rows = parts_.scorer->rows_to_see();
  if (rows && parts_.schedule->in_prompt() && *rows > block()) return std::nullopt;
  return rows;
}

std::unique_ptr<PolicyState> RetentionPolicy::Begin(const SequenceInfo& info) const {
  return std::make_unique<RetentionState>(*this, info);
}

EvidenceBytesOf EvidenceOf(const Scorer& scorer, const PolicyContext& context) {
  return [&scorer, shape = context.shape](const Growth& growth) {
    return scorer.EvidenceBytes(shape, growth);
  };
}

std::unique_ptr<Policy> MakeGridPolicy(const Traits& traits, const OptionValues& values,
                                       const PolicyContext& context, std::unique_ptr<Scorer> scorer,
                                       std::string suffix) {
  GridParams params = ReadCommonKeys(values, context);
  ReadBudget(values, context, &params, EvidenceOf(*scorer, context));
  CheckBudget(values, params);
  return std::make_unique<RetentionPolicy>(
      traits, context,
      RetentionParts{.schedule = std::make_unique<GridSchedule>(params),
                     .scorer = std::move(scorer),
                     .suffix = std::move(suffix)});
}

}  // namespace kvasir
