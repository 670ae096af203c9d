// GGUF models that lie in several files: x-00001-of-00003.gguf and so on. The first part has the
// keys of the model; each has split.no, split.count and split.tensors.count, and tensors of its
// own.
//
// Errors   kNotFound naming the part that is missing; kInvalid for a later part, naming the first;
//          kCorrupt for parts that disagree; those of ParseGguf.
// Threads  No state: any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "format/gguf.h"
#include "format/problems.h"

namespace kvasir {

// "x-00002-of-00003.gguf" is {"x", 2, 3}.
struct GgufPartName {
  std::string prefix;
  uint32_t number = 0, count = 0;
};
// Of a file's name or path; nothing for other names and for numbers outside 1..count.
std::optional<GgufPartName> ParseGgufPartName(std::string_view path);
std::string ToPath(const GgufPartName& name);

struct GgufPart {
  MappedFile file;
  std::span<const uint8_t> bytes;  // of the file
  Gguf gguf;
};

// The whole model behind `path`, which names a file that stands alone or the first part.
std::vector<GgufPart> OpenGguf(const std::string& path);
// As SurveyGguf: what can be read (the file `path` at least), and why the rest cannot.
std::vector<GgufPart> OpenGguf(const std::string& path, Problems& problems);

// For bytes that stand alone. Errors: kUnsupported where they are a part.
void CheckNoPart(const Metadata& metadata, const std::string& where);

}  // namespace kvasir
