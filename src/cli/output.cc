#include "cli/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/files.h"
#include "server/openai.h"

namespace kvasir {

Output::Output(const Arguments& args) : json_(args.values().On("json")) {
  // A batch names its answers with --output, quantize its model; their reports go to standard
  // output.
  const bool names_other = args.verb().bit == kBatch || args.verb().bit == kQuantize;
  if (!names_other && args.Given("output")) path_ = args.values().Text("output");
}

void Output::Stream(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    Fail(Code::kIo, "standard output: cannot be written: {}", std::strerror(errno));
  }
}

void Output::Json(const nlohmann::ordered_json& document) { Write(DumpJson(document) + '\n'); }

void Output::Text(std::string_view text) { Write(text); }

void Output::Write(std::string_view bytes) {
  if (path_.empty()) return Stream(bytes);
  WriteFileWhole(path_, bytes);
}

void Note(const std::string& line) { std::fprintf(stderr, "kvasir: %s\n", line.c_str()); }

}  // namespace kvasir
