// The program behind main(): finds the verb, runs it, and turns errors into one line and an exit
// code.
#pragma once

#include <span>
#include <string_view>

namespace kvasir {

// `args` without the program's name. Exit codes: 0 done, 1 ended by an Error, 2 wrong usage, 3 an
// assertion of `eval` failed, 4 a strict one had a case that did nothing, 70 a bug.
int Main(std::span<const std::string_view> args);

}  // namespace kvasir
