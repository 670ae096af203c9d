// Unicode's normalization form C, which some vocabularies were trained on (tokenizer.json names
// it).
//
// Bytes that are no UTF-8 stay as they are and end what may be composed. Unicode 14 (utf8proc 2.8).
//
// Cost     Linear in the text but for runs of combining marks, which are sorted: n log n. Memory in
//          proportion to the longest stretch without a character below U+0300 or of CJK.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kvasir {

// None if the text is in that form already; then nothing was copied.
std::optional<std::string> ToNfc(std::string_view text);

}  // namespace kvasir
