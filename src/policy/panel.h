// A panel: states of several policies watch one sequence that stays whole, so that what each of
// them would keep at its end can be asked without reading the prompt again (Engine::Compress).
//
// Policies must act at a prompt's end alone (blocks as long as the prompt): no plan is asked for
// before. Their evidence counts against the KV budget.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "policy/policy.h"

namespace kvasir {

class PanelState final : public PolicyState {
 public:
  explicit PanelState(std::vector<std::unique_ptr<PolicyState>> states)
      : states_(std::move(states)) {}
  uint32_t MaxRows(const Progress& before) const override;
  uint32_t QueryRows(uint32_t rows) const override;
  void TakeQueries(const LayerQueries& queries) override;
  void Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) override;
  std::unique_ptr<PolicyState> Fork() const override;

  PolicyState& member(size_t i) { return *states_.at(i); }

 private:
  std::vector<std::unique_ptr<PolicyState>> states_;
};

class Panel final : public Policy {
 public:
  explicit Panel(std::vector<std::shared_ptr<const Policy>> members)
      : members_(std::move(members)) {}
  const Traits& traits() const override;
  std::string Spec() const override;
  Growth MaxGrowth(uint64_t prompt, uint64_t tokens, uint64_t protected_entries) const override {
    return {.tokens = tokens};
  }
  uint64_t EvidenceBytes(const Growth& growth) const override;
  std::unique_ptr<PolicyState> Begin(const SequenceInfo& info) const override;
  uint32_t block() const override { return 1; }
  bool pins() const override { return false; }
  std::optional<uint32_t> rows_to_see() const override { return std::nullopt; }

 private:
  std::vector<std::shared_ptr<const Policy>> members_;
};

}  // namespace kvasir
