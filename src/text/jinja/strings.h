// Python's string operations on UTF-8: what counts as a character is a unit of utf8.h.
//
// Bound  upper, lower and capitalize map one character to one; the few characters that Python
//        turns into several (the German sharp s among them) stay as they are.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace kvasir::jinja {

size_t CountUnits(std::string_view text);
// std::string_view::find, charged for what the search may cost.
size_t Find(std::string_view text, std::string_view part, size_t from, Meter& meter);

// std::string_view::rfind, likewise.
size_t FindLast(std::string_view text, std::string_view part, Meter& meter);

enum class Side { kLeft, kRight, kBoth };
// Removes the characters of `characters`, or white space if it is null.
std::string_view Strip(std::string_view text, Side side, const std::string* characters,
                       Meter& meter);

std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string Capitalize(std::string_view text);
std::string Title(std::string_view text);
std::string SwapCase(std::string_view text);
// With `fill`, one character, on both sides up to `width` characters.
std::string Center(std::string_view text, int64_t width, std::string_view fill, Meter& meter);
// Whether a cased character is there and all of them are of that case.
bool IsUpper(std::string_view text);
bool IsLower(std::string_view text);

// `limit` < 0: all. Errors: kInvalid for an empty separator.
std::vector<std::string_view> Split(std::string_view text, const std::string* separator,
                                    int64_t limit, Meter& meter);
std::vector<std::string_view> SplitFromRight(std::string_view text, const std::string* separator,
                                             int64_t limit, Meter& meter);
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends, Meter& meter);
// With &, <, >, ' and " as HTML writes them.
std::string Escape(std::string_view text, Meter& meter);
std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit, Meter& meter);

}  // namespace kvasir::jinja
