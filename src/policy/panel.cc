#include "policy/panel.h"

#include <algorithm>

#include "base/error.h"

namespace kvasir {

namespace {
constinit const Traits kPanelTraits = {
    .name = "panel",
    .summary = "policies that watch a sequence which stays whole",
    .options = {},
    .sharing = Sharing::kPrivate,
    .needs = {.keys = true, .values = true, .queries = true},
};
}  // namespace

uint32_t PanelState::MaxRows(const Progress& before) const {
  uint32_t rows = UINT32_MAX;
  for (const auto& state : states_) rows = std::min(rows, state->MaxRows(before));
  return rows;
}

uint32_t PanelState::QueryRows(uint32_t rows) const {
  uint32_t wanted = 0;
  for (const auto& state : states_) wanted = std::max(wanted, state->QueryRows(rows));
  return wanted;
}

// Each gets the last rows that it asked for; how many does not change during a pass.
void PanelState::TakeQueries(const LayerQueries& queries) {
  const auto shown = static_cast<uint32_t>(queries.rows.count);
  for (const auto& state : states_) {
    const uint32_t wanted = std::min(state->QueryRows(shown), shown);
    if (wanted == 0) continue;
    LayerQueries last = queries;
    last.first_position += shown - wanted;
    last.rows = queries.rows.Slice(shown - wanted, wanted);
    state->TakeQueries(last);
  }
}

// Evidence that is settled pass by pass gets its pass; the end is asked for by hand.
void PanelState::Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) {
  if (after.position >= after.prompt_end) return;
  Plan none;
  for (const auto& state : states_) {
    state->Observe(after, view, workers, &none);
    CHECK_MSG(none.drops.empty(), "a policy acts before the prompt's end");
  }
}

std::unique_ptr<PolicyState> PanelState::Fork() const {
  std::vector<std::unique_ptr<PolicyState>> states;
  for (const auto& state : states_) states.push_back(state->Fork());
  return std::make_unique<PanelState>(std::move(states));
}

const Traits& Panel::traits() const { return kPanelTraits; }

std::string Panel::Spec() const {
  std::string spec = "panel";
  for (const auto& member : members_) spec.append(1, ' ').append(member->Spec());
  return spec;
}

uint64_t Panel::EvidenceBytes(const Growth& growth) const {
  uint64_t bytes = 0;
  for (const auto& member : members_) bytes += member->EvidenceBytes(growth);
  return bytes;
}

std::unique_ptr<PolicyState> Panel::Begin(const SequenceInfo& info) const {
  std::vector<std::unique_ptr<PolicyState>> states;
  for (const auto& member : members_) states.push_back(member->Begin(info));
  return std::make_unique<PanelState>(std::move(states));
}

}  // namespace kvasir
