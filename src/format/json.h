// JSON from outside, strictly: what the library would let pass is refused here.
//
// Errors   kCorrupt: anything that is not one JSON value (with the byte where that shows), comments
//          among it, broken UTF-8, numbers beyond a double, a key that occurs twice in an object
//          (the library keeps the last one silently), nesting deeper than kMaxJsonDepth, more
//          values than allowed.
// Cost     Memory in proportion to the text, up to some tens of times its size; callers bound it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace kvasir {

inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonValues = 1'000'000;

// `where` opens error messages.
nlohmann::json ParseJson(std::string_view text, const std::string& where,
                         size_t max_values = kMaxJsonValues);

}  // namespace kvasir
