#include "cli/main.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/verbs.h"

namespace kvasir {

namespace {

constexpr int kBugExit = 70;

void OnAbort(int) { _exit(kBugExit); }

int Print(const std::string& text, std::FILE* stream, int code) {
  std::fwrite(text.data(), 1, text.size(), stream);
  return std::fflush(stream) == 0 ? code : 1;
}

// An error is one line, whatever the message quotes.
void PrintError(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fflush(stdout);
  Note(message);
}

// Returns the exit code.
int Dispatch(const Arguments& args) {
  switch (args.verb().bit) {
    case kRun:
      RunVerb(args);
      return 0;
    case kBatch:
      BatchVerb(args);
      return 0;
    case kServe:
      ServeVerb(args);
      return 0;
    case kEvalPpl:
      EvalPplVerb(args);
      return 0;
    case kEvalKeep:
      EvalKeepVerb(args);
      return 0;
    case kTokenize:
      TokenizeVerb(args);
      return 0;
    case kTemplate:
      TemplateVerb(args);
      return 0;
    case kInspect:
      InspectVerb(args);
      return 0;
    case kQuantize:
      QuantizeVerb(args);
      return 0;
    case kDoctor:
      DoctorVerb(args);
      return 0;
    case kBench:
      BenchVerb(args);
      return 0;
    case kBenchServe:
      BenchServeVerb(args);
      return 0;
    case kEval:
      return EvalVerb(args);
  }
  CHECK_MSG(false, "verb {} has no function", args.verb().name);
}

std::string Joined(std::span<const std::string_view> words) {
  return fmt::format("{}", fmt::join(words, " "));
}

int RunCommand(std::span<const std::string_view> args) {
  if (args.empty()) return Print(GeneralHelp(), stderr, 2);
  if (args[0] == "--version") return Print(VersionText(), stdout, 0);
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    const bool topic = args[0] == "help" && args.size() > 1;
    return Print(topic ? TopicHelp(Joined(args.subspan(1))) : GeneralHelp(), stdout, 0);
  }
  size_t n_words = 0;
  const CliVerb& verb = FindVerb(args, &n_words);
  const Arguments parsed = ParseArguments(verb, args.subspan(n_words));
  if (parsed.help()) return Print(VerbHelp(verb), stdout, 0);
  if (parsed.values().On("verbose")) SetLogLevel(LogLevel::kInfo);
  return Dispatch(parsed);
}

}  // namespace

int Main(std::span<const std::string_view> args) {
  std::signal(SIGABRT, OnAbort);  // a failed CHECK has printed its line by then
  try {
    return RunCommand(args);
  } catch (const Error& error) {
    PrintError(error.what());
    return ExitCode(error.code());
  } catch (const std::bad_alloc&) {
    PrintError("memory: the system has no more: choose a smaller model or --kv-memory");
    return 1;
  } catch (const std::exception& error) {
    PrintError(fmt::format("internal error: {}: please report this", error.what()));
    return kBugExit;
  }
}

}  // namespace kvasir
