// The server: HTTP in front of one engine, until a signal ends it.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "cli/codec.h"
#include "cli/files.h"
#include "cli/generate.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "format/quote.h"
#include "kernels/table.h"
#include "server/api_server.h"
#include "server/http.h"

namespace kvasir {

namespace {

constexpr size_t kMaxKeyBytes = 1024;
// What clients have to take their last bytes once nobody wants to wait.
constexpr unsigned kLastSeconds = 2;

// Signals become bytes in a pipe, which the main thread reads. From here on the first SIGTERM or
// SIGINT asks for a drain, the second one for the end.
class SignalPipe {
 public:
  SignalPipe() {
    if (::pipe(fds_) != 0) Fail(Code::kIo, "serve: no pipe: the process has no descriptor left");
    struct sigaction action = {};
    action.sa_handler = [](int) {
      const int saved = errno;
      const char byte = 0;
      [[maybe_unused]] const ssize_t written = ::write(fds_[1], &byte, 1);
      errno = saved;
    };
    for (const int signal : {SIGTERM, SIGINT}) ::sigaction(signal, &action, nullptr);
  }

  // From here on any signal, and in `seconds` (0: never) the clock, ends the process at once: all
  // that is left is to see last bytes out.
  void EndOnNext(unsigned seconds) {
    for (const int signal : {SIGTERM, SIGINT, SIGALRM}) {
      std::signal(signal, [](int) { ::_exit(0); });
    }
    if (seconds > 0) ::alarm(seconds);
  }

  // Whether a signal came within `ms` (-1: however long it takes).
  bool Wait(int ms) {
    pollfd fd{fds_[0], POLLIN, 0};
    if (::poll(&fd, 1, ms) <= 0) return false;
    char byte = 0;
    return ::read(fds_[0], &byte, 1) == 1;
  }

 private:
  static inline int fds_[2] = {-1, -1};
};

// One key a line.
std::vector<std::string> ReadKeys(const Arguments& args, const char* flag) {
  std::vector<std::string> keys;
  if (!args.Given(flag)) return keys;
  const std::string path = args.values().Text(flag);
  const std::string text = ReadTextFile(path, fmt::format("--{}", flag));
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string key = text.substr(at, end - at);
    at = end + 1;
    while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
    if (key.empty()) continue;
    const bool plain =
        std::all_of(key.begin(), key.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
    if (!plain || key.size() > kMaxKeyBytes) {
      Fail(Code::kInvalid, "{}: a key is one line of up to {} printable characters without spaces",
           path, kMaxKeyBytes);
    }
    keys.push_back(std::move(key));
  }
  if (keys.empty()) Fail(Code::kInvalid, "{}: no key in it: give one key a line", path);
  return keys;
}

// Seconds of "500ms", "30s", "2m"; a number alone is seconds.
double ParseSeconds(const std::string& text, const char* flag) {
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1}, {"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const auto& [name, seconds] : kUnits) {
    if (error == std::errc() && unit == name && number >= 0 && number <= 1e6) {
      return number * seconds;
    }
  }
  Fail(Code::kUsage, "{}: {} is no time such as 500ms, 30s or 2m", flag, Quoted(text));
}

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

HttpOptions HttpOptionsFrom(const Arguments& args) {
  HttpOptions options;
  options.host = args.values().Text("host");
  options.port = static_cast<uint16_t>(args.values().Count("port"));
  options.api_keys = ReadKeys(args, "api-key-file");
  options.admin_keys = ReadKeys(args, "admin-key-file");
  options.cors_origins = args.List("cors-origin");
  if (!IsLoopback(options.host) && options.api_keys.empty() && !args.values().On("insecure")) {
    Fail(Code::kUsage,
         "serve: --host {} can be reached from other machines: give --api-key-file FILE, or "
         "--insecure if nobody else can get there",
         Quoted(options.host));
  }
  return options;
}

std::string UrlOf(const HttpOptions& options, uint16_t port) {
  const bool v6 = options.host.find(':') != std::string::npos;
  return v6 ? fmt::format("http://[{}]:{}", options.host, port)
            : fmt::format("http://{}:{}", options.host, port);
}

MetricsInfo MetricsInfoFrom(const Session& session, const std::string& name) {
  const EngineOptions& options = session.engine().options();
  const LaneShape shape = session.model().MainLanes(session.encoding());
  const uint32_t block = options.prefix_interval > 0 ? options.prefix_interval : kPageEntries;
  return {.model_name = name,
          .version = KVASIR_VERSION,
          .simd = std::string(session.kernels().target),
          .context = session.engine().context(),
          .block_tokens = block,
          .blocks = options.kv_memory / (shape.EntryBytes() * shape.lanes() * block),
          .routes = ApiServer::Paths()};
}

// Waits for a signal, lets what runs come to its end, and cuts off what takes too long. Says
// whether a second signal came.
bool RunUntilSignal(SignalPipe& signals, EngineLoop& loop, double drain_seconds) {
  while (!signals.Wait(-1)) {
  }
  loop.BeginDrain();
  Note(fmt::format("draining: {} requests have up to {} s; a second signal ends them",
                   loop.n_active(), drain_seconds));
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(drain_seconds);
  bool again = false;
  while (!again && loop.n_active() > 0 && std::chrono::steady_clock::now() < deadline) {
    again = signals.Wait(20);
  }
  loop.Stop();
  return again;
}

}  // namespace

void ServeVerb(const Arguments& args) {
  const HttpOptions http_options = HttpOptionsFrom(args);
  const OptionValues& values = args.values();
  const double drain_seconds = ParseSeconds(values.Text("drain-timeout"), "--drain-timeout");
  OpenedModel opened(args);
  opened.NeedTokenizer();
  const std::string name = values.Given("alias") ? values.Text("alias") : opened.name();
  const PromptBuilder raw = opened.Prompts(args, /*chat=*/false);
  const PromptBuilder chat = opened.Prompts(args, /*chat=*/true);
  const Request pattern = RequestFrom(values, args.List("stop"));

  // The port is ours, or refused, before the weights are read; until they are, routes say so.
  ApiServer api(name, KVASIR_VERSION);
  HttpServer http(http_options, api.Routes(), [&](const HttpLogLine& line) { api.Log(line); });
  http.Start();
  Session session(args, opened, /*batch=*/true);
  Engine& engine = session.engine();
  Metrics metrics(MetricsInfoFrom(session, name));
  EngineLoop loop(engine, {.max_waiting = values.Count("max-waiting")}, &metrics);

  const Policy* policy = engine.policy();
  const std::string policy_spec = policy ? policy->Spec() : "none";
  api.Open({.loop = loop,
            .metrics = metrics,
            .tokenizer = opened.NeedTokenizer(),
            .raw = raw,
            .chat = chat,
            .defaults = {pattern.sampling, pattern.max_tokens, pattern.stop, pattern.ignore_eos,
                         static_cast<uint32_t>(opened.NeedTokenizer().vocab_size())},
            .context = engine.context(),
            .pins = policy && policy->pins(),
            .policy = policy_spec,
            .codec = Name(session.encoding()),
            .lanes = session.model().MainLanes(session.encoding()).lanes()});
  SignalPipe signals;
  session.PrintNotices();
  std::printf("kvasir: serving %s\n",
              fmt::format("{} on {}: KV budget {}, policy {}, codec {}, {} threads", name,
                          UrlOf(http_options, http.port()), FormatSize(engine.options().kv_memory),
                          policy_spec, Name(session.encoding()), session.workers().size())
                  .c_str());
  std::fflush(stdout);

  const bool again = RunUntilSignal(signals, loop, drain_seconds);
  signals.EndOnNext(again ? kLastSeconds : 0);
  http.Stop();
}

}  // namespace kvasir
