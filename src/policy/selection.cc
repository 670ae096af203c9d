#include "policy/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace kvasir {

uint32_t ReplaceNaN(std::span<float> scores) {
  uint32_t n = 0;
  for (float& score : scores) {
    if (!std::isnan(score)) continue;
    score = -std::numeric_limits<float>::infinity();
    ++n;
  }
  return n;
}

void SelectDrops(std::span<const float> scores, std::span<const uint8_t> is_protected, size_t keep,
                 std::vector<uint32_t>* candidates, std::vector<uint32_t>* drops) {
  CHECK(scores.size() == is_protected.size());
  drops->clear();
  candidates->clear();
  for (uint32_t i = 0; i < scores.size(); ++i) {
    if (!is_protected[i]) candidates->push_back(i);
  }
  const size_t n_protected = scores.size() - candidates->size();
  const size_t n_keep = keep > n_protected ? keep - n_protected : 0;
  if (n_keep >= candidates->size()) return;
  const auto before = [&](uint32_t a, uint32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  };
  std::nth_element(candidates->begin(), candidates->begin() + static_cast<ptrdiff_t>(n_keep),
                   candidates->end(), before);
  drops->assign(candidates->begin() + static_cast<ptrdiff_t>(n_keep), candidates->end());
  std::sort(drops->begin(), drops->end());
}

void GatherPositions(const LaneView& lane, std::vector<uint32_t>* positions) {
  positions->clear();
  positions->reserve(lane.n_entries);
  for (uint32_t i = 0; i < lane.n_pages; ++i) {
    const PageView& page = lane.pages[i];
    for (uint64_t live = page.live; live != 0; live &= live - 1) {
      positions->push_back(page.position(static_cast<uint32_t>(std::countr_zero(live))));
    }
  }
  CHECK(positions->size() == lane.n_entries);
}

std::vector<PositionSpan> MergeSpans(std::vector<PositionSpan> spans) {
  std::erase_if(spans, [](const PositionSpan& span) { return span.first >= span.second; });
  std::sort(spans.begin(), spans.end());
  std::vector<PositionSpan> merged;
  for (const PositionSpan& span : spans) {
    if (!merged.empty() && span.first <= merged.back().second) {
      merged.back().second = std::max(merged.back().second, span.second);
    } else {
      merged.push_back(span);
    }
  }
  return merged;
}

void MarkCovered(std::span<const uint32_t> positions, std::span<const PositionSpan> spans,
                 std::vector<uint8_t>* covered) {
  covered->assign(positions.size(), 0);
  size_t s = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    while (s < spans.size() && spans[s].second <= positions[i]) ++s;
    (*covered)[i] = s < spans.size() && spans[s].first <= positions[i];
  }
}

}  // namespace kvasir
