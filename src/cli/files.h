// Whole files: read at once, written whole or not at all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir {

// "-" reads standard input. `what` names the flag in errors: kNotFound, kIo, kInvalid (beyond 1
// GiB).
std::string ReadTextFile(const std::string& path, std::string_view what);
// Writes a temporary file beside `path` and renames it. Errors: kIo; nothing is left behind then.
void WriteFileWhole(const std::string& path, std::string_view bytes);
// Token ids separated by white space. Errors: kInvalid naming the word that is none.
std::vector<int32_t> ParseTokenIds(std::string_view text, const std::string& where);
// Errors: kInvalid naming the first id that is not below `vocabulary`, and its place from 1.
void CheckTokenIds(std::span<const int32_t> ids, uint32_t vocabulary, const std::string& where);

}  // namespace kvasir
