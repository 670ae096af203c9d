// The two ways of failing: Error for what came from outside and is wrong, CHECK for what cannot happen.
//
// An Error ends one load or one request. Its message says what was wrong, where, and what would be
// right, in one line. CHECK stays on in release builds, never sees outside input, and aborts.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace kvasir {

enum class Code {
  kUsage,        // wrong flags or arguments: exit code 2
  kInvalid,      // a request or value that cannot be right
  kCorrupt,      // a file that breaks its own format
  kUnsupported,  // well-formed, but nothing this engine knows
  kNotFound,
  kIo,
  kBudget,  // can never fit into the KV budget
  kBusy,    // no room now; later there may be
  kUnavailable,  // loading, draining, or a deadline that passed
  kCancelled,
};

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const { return code_; }

 private:
  Code code_;
};

template <typename... Args>
[[noreturn]] void Fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Stable word for a code ("corrupt"), and the exit code and HTTP status it maps to.
std::string_view Name(Code code);
int ExitCode(Code code);
int HttpStatus(Code code);

[[noreturn]] void CheckFailed(const char* file, int line, const char* condition,
                              const std::string& detail = {});

}  // namespace kvasir

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) [[unlikely]]                                          \
      ::kvasir::CheckFailed(__FILE__, __LINE__, #condition);                \
  } while (0)
#define CHECK_MSG(condition, ...)                                                              \
  do {                                                                                         \
    if (!(condition)) [[unlikely]]                                                             \
      ::kvasir::CheckFailed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__));       \
  } while (0)
#ifdef NDEBUG
#define DCHECK(condition) \
  do {                    \
  } while (0)
#else
#define DCHECK(condition) CHECK(condition)
#endif
