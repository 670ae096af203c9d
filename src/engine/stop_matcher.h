// Stop strings over a growing text: finds the first, across token borders, and says how much of the
// text is safe to show, because no stop string can still begin inside it.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

class StopMatcher {
 public:
  struct Match {
    size_t offset;  // where the stop string begins
    const std::string* stop;
  };

  StopMatcher() = default;
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
    std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
    for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
  }

  // The earliest stop string in `text`, of which the bytes before `searched` were searched before;
  // of several at one place the first in the list.
  std::optional<Match> Find(std::string_view text, size_t searched) const {
    if (stops_.empty()) return std::nullopt;
    const size_t from = searched >= longest_ ? searched - longest_ + 1 : 0;
    std::optional<Match> best;
    for (const std::string& stop : stops_) {
      const size_t at = text.find(stop, from);
      if (at != std::string_view::npos && (!best || at < best->offset)) best = Match{at, &stop};
    }
    return best;
  }

  // Bytes of `text` that no stop string can reach back into.
  size_t SafeLength(std::string_view text) const {
    for (size_t held = std::min(text.size(), longest_ > 0 ? longest_ - 1 : 0); held > 0; --held) {
      const std::string_view tail = text.substr(text.size() - held);
      for (const std::string& stop : stops_) {
        if (stop.size() > held && stop.starts_with(tail)) return text.size() - held;
      }
    }
    return text.size();
  }

 private:
  std::vector<std::string> stops_;
  size_t longest_ = 0;
};

}  // namespace kvasir
