#include "policy/quest/quest.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "policy/selection.h"

namespace kvasir {

namespace {
constexpr Option kOptions[] = {
    Option{.name = "budget",
           .type = OptionType::kCount,
           .min = 1,
           .max = 1 << 24,
           .value = "1024",
           .help = "Entries of a lane that a generated token reads, in whole parts, at least 3; "
                   "nothing is freed."},
    Option{.name = "part",
           .type = OptionType::kChoice,
           .value = "16",
           .choices = "2|4|8|16|32|64",
           .help = "Entries that share bounds and are read together."},
    Option{.name = "skip",
           .type = OptionType::kCount,
           .max = 1024,
           .value = "2",
           .help = "First layers that are read whole."},
};
// Below this many columns of bounds in a layer a fork-join costs as much as it saves.
constexpr uint32_t kParallelColumns = 256;
}  // namespace

constinit const Traits kQuestTraits = {
    .name = "quest",
    .summary = "keeps everything; a generated token reads the parts whose keys may matter to it",
    .options = kOptions,
    .sharing = Sharing::kTransparent,
    .needs = {.keys = true, .queries = true},
    .hides = true,
};

std::unique_ptr<Policy> MakeQuest(const OptionValues& values, const PolicyContext& context) {
  const QuestParams params = {.budget = static_cast<uint32_t>(values.Count("budget")),
                              .part = static_cast<uint32_t>(std::stoul(values.Text("part"))),
                              .skip = static_cast<uint32_t>(values.Count("skip"))};
  if (context.shape.n_layers > 0 && params.skip >= context.shape.n_layers) {
    Fail(Code::kUsage, "{}: skip={} leaves no layer to choose in; the model has {} layers",
         values.where(), params.skip, context.shape.n_layers);
  }
  for (uint32_t l = 0; l < context.shape.n_layers; ++l) {
    if (!context.shape.Forms(context.shape.first_layer + l).k.seals()) continue;
    Fail(Code::kUsage,
         "{}: keys that are encoded anew later have no bounds that stay; leave the keys dense "
         "(for=v)",
         values.where());
  }
  return std::make_unique<QuestPolicy>(context.shape, params);
}

std::string QuestPolicy::Spec() const {
  return fmt::format("quest:budget={},part={},skip={}", params_.budget, params_.part, params_.skip);
}

uint64_t QuestPolicy::EvidenceBytes(const Growth& growth) const {
  return KeyBounds::Bytes(shape_, params_.part, params_.skip, growth.tokens);
}

std::unique_ptr<PolicyState> QuestPolicy::Begin(const SequenceInfo& info) const {
  return std::make_unique<QuestState>(info.shape, params_);
}

// Every generated row chooses for itself.
uint32_t QuestState::MaxRows(const Progress& before) const {
  return before.in_prompt() ? before.prompt_end - before.position : 1;
}

// The scratch is the pass's: a fork begins without.
std::unique_ptr<PolicyState> QuestState::Fork() const {
  auto fork = std::make_unique<QuestState>(shape_, params_);
  fork->bounds_ = bounds_;
  fork->first_hidden_ = first_hidden_;
  return fork;
}

void QuestState::Select(const LayerQueries& query, std::span<LaneView> lanes) {
  CHECK(query.rows.count == 1 && lanes.size() == shape_.n_kv_heads);
  if (!chose_) {
    heads_.resize(lanes.size());
    for (Head& head : heads_) head.n_lanes = head.n_hidden = head.bytes = 0;
    chose_ = true;
  }
  const uint32_t n_parts = query.first_position / params_.part + 1;
  if (query.layer < bounds_.first_layer() || n_parts <= params_.most_parts()) return;
  first_hidden_ = std::min(first_hidden_, query.first_position);
  const auto choose = [&](size_t head, size_t) {
    lanes[head] = Choose(query, static_cast<uint32_t>(head), lanes[head], &heads_[head]);
  };
  if (query.workers == nullptr || n_parts * lanes.size() < kParallelColumns) {
    for (size_t head = 0; head < lanes.size(); ++head) choose(head, 0);
  } else {
    query.workers->Run(lanes.size(), choose);
  }
}

LaneView QuestState::Choose(const LayerQueries& query, uint32_t head, const LaneView& lane,
                            Head* into) const {
  // The row's own part has no bounds before it is whole, and needs none.
  const uint32_t own = query.first_position / params_.part;
  const uint32_t dim = shape_.head_dim;
  const auto group = static_cast<uint32_t>(query.rows.dim) / dim / shape_.n_kv_heads;
  into->bounds.resize(own + 1);
  bounds_.Upper(query.layer, head,
                {query.rows.row(0) + size_t{head} * group * dim, group, dim, dim}, own,
                *query.kernels, &into->scratch, into->bounds.data());
  for (float& bound : into->bounds) {  // what cannot be judged is read
    if (std::isnan(bound)) bound = std::numeric_limits<float>::infinity();
  }
  into->own.assign(own + 1, 0);
  into->own[own] = 1;
  SelectDrops(into->bounds, into->own, params_.most_parts(), &into->candidates, &into->hidden);

  const uint32_t per_page = kPageEntries / params_.part;
  const uint64_t of_part = ~uint64_t{0} >> (kPageEntries - params_.part);
  into->pages.clear();
  LaneView read = {.n_entries = lane.n_entries, .head_dim = lane.head_dim};
  auto hidden = into->hidden.begin();
  for (uint32_t p = 0; p < lane.n_pages; ++p) {
    PageView page = lane.pages[p];
    for (; hidden != into->hidden.end() && *hidden / per_page == p; ++hidden) {
      page.live &= ~(of_part << (*hidden % per_page * params_.part));
      read.n_entries -= params_.part;
    }
    if (page.live == 0) continue;
    into->pages.push_back(page);
    const auto n_read = static_cast<uint64_t>(std::popcount(page.live));
    into->bytes +=
        (page.filled * PlaneBytes(page.k_form, dim) + n_read * PlaneBytes(page.v_form, dim)) /
        kPageEntries;
  }
  ++into->n_lanes;
  into->n_hidden += lane.n_entries - read.n_entries;
  into->bytes += own * bounds_.part_bytes(query.layer);
  read.pages = into->pages.data();
  read.n_pages = static_cast<uint32_t>(into->pages.size());
  return read;
}

void QuestState::Observe(const Progress& after, const KvView& view, Workers* workers, Plan* plan) {
  reads_.reset();
  if (chose_) {
    reads_.emplace();
    uint64_t whole = shape_.lanes();
    for (const Head& head : heads_) {
      reads_->hidden += head.n_hidden;
      reads_->bytes += head.bytes;
      whole -= head.n_lanes;
    }
    reads_->bytes += whole * after.position * shape_.EntryBytes();
    chose_ = false;
  }
  const uint32_t from = bounds_.n_parts();
  if (after.position / params_.part <= from) return;
  bounds_.Grow(after.position);
  const uint32_t heads = shape_.n_kv_heads, first = bounds_.first_layer();
  const auto extend = [&](size_t i, size_t) {
    const auto layer = first + static_cast<uint32_t>(i) / heads,
               head = static_cast<uint32_t>(i) % heads;
    const LaneView lane = view.lane(layer, head);
    CHECK_MSG(lane.n_entries == after.position, "a lane that lost entries");
    bounds_.Extend(layer, head, lane, from, view.kernels());
  };
  const size_t lanes = size_t{shape_.n_layers - params_.skip} * heads;
  if (workers == nullptr) {
    for (size_t i = 0; i < lanes; ++i) extend(i, 0);
  } else {
    workers->Run(lanes, extend);
  }
}

}  // namespace kvasir
