#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace kvasir {

namespace {
struct CodeRow {
  Code code;
  std::string_view name;
  int exit_code;
  int http_status;
};
constexpr CodeRow kCodes[] = {
    {Code::kUsage, "usage", 2, 400},         {Code::kInvalid, "invalid_request", 1, 400},
    {Code::kCorrupt, "corrupt", 1, 400},     {Code::kUnsupported, "unsupported", 1, 400},
    {Code::kNotFound, "not_found", 1, 404},  {Code::kIo, "io", 1, 500},
    {Code::kBudget, "kv_budget_exceeded", 1, 400}, {Code::kBusy, "busy", 1, 429},
    {Code::kUnavailable, "unavailable", 1, 503}, {Code::kCancelled, "cancelled", 1, 499},
};
const CodeRow& Row(Code code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row;
  }
  CheckFailed(__FILE__, __LINE__, "every code has a row");
}
}  // namespace

std::string_view Name(Code code) { return Row(code).name; }
int ExitCode(Code code) { return Row(code).exit_code; }
int HttpStatus(Code code) { return Row(code).http_status; }

void CheckFailed(const char* file, int line, const char* condition, const std::string& detail) {
  std::fprintf(stderr, "kvasir: internal error: %s:%d: CHECK(%s)%s%s: please report this\n", file,
               line, condition, detail.empty() ? "" : " ", detail.c_str());
  std::abort();
}

}  // namespace kvasir
