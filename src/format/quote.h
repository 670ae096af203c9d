// Names out of files, fit for one line of an error message.
#pragma once

#include <string>
#include <string_view>

namespace kvasir {

// In quotation marks, cut after 80 bytes; what is no printable ASCII is escaped. (fmt's {:?} aborts
// on UTF-8 that ends inside a letter.)
std::string Quoted(std::string_view text);

}  // namespace kvasir
