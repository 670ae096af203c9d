// A file of requests, all of them submitted at once and answered in the order of the file.
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "cli/files.h"
#include "cli/generate.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "format/json.h"
#include "format/quote.h"
#include "server/openai.h"
#include "server/requests.h"

namespace kvasir {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// One line of IN and what becomes of it.
struct Line {
  size_t number = 0;
  std::string text;
  ordered_json custom_id;  // null until it is known
  ordered_json answer;     // the line of OUT
};

class Batch {
 public:
  Batch(const Arguments& args, Session& session)
      : session_(session),
        raw_(session.opened().Prompts(args, /*chat=*/false)),
        chat_(session.opened().Prompts(args, /*chat=*/true)),
        run_id_(fmt::format("{:016x}", RandomSeed())),
        created_s_(static_cast<uint64_t>(std::time(nullptr))) {
    const Request pattern = RequestFrom(args.values(), args.List("stop"));
    defaults_ = {pattern.sampling, pattern.max_tokens, pattern.stop, pattern.ignore_eos,
                 session.model().config().vocab_size};
  }

  void Read(const std::string& text) {
    size_t number = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      std::string line = text.substr(at, end - at);
      ++number;
      at = end + 1;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      lines_.push_back({number, std::move(line), nullptr, {}});
    }
  }

  void Run() {
    for (Line& line : lines_) Start(line);
    ProgressBar bar("answering");
    while (session_.engine().Step()) {
      bar.Update(static_cast<double>(n_done_) / static_cast<double>(lines_.size()));
    }
  }

  std::string Answers() const {
    std::string out;
    for (const Line& line : lines_) out += DumpJson(line.answer) + '\n';
    return out;
  }

  ordered_json Summary(double seconds) const {
    const Ledger ledger = session_.engine().ledger();
    return {{"requests", lines_.size()},
            {"failed", n_failed_},
            {"prompt_tokens", prompt_tokens_},
            {"completion_tokens", completion_tokens_},
            {"seconds", seconds},
            {"kv", KvJson(session_, session_.engine(),
                          {use_.positions, use_.entries_kept, use_.entries_dropped, ledger.bytes,
                           ledger.bytes_side})},
            {"memory", MemoryJson()}};
  }

 private:
  std::string IdOf(const Line& line) const { return fmt::format("{}-{}", run_id_, line.number); }

  // Submits the line's request, or answers it when it cannot be one.
  void Start(Line& line) {
    json request;
    try {
      request = ParseJson(line.text, fmt::format("line {}", line.number));
      if (!request.is_object() || !request.contains("custom_id") ||
          !request["custom_id"].is_string()) {
        Fail(Code::kInvalid, "line {}: no object with a text as \"custom_id\"", line.number);
      }
    } catch (const Error& error) {
      ++n_failed_;
      ++n_done_;
      line.answer = {{"id", "batch_req_" + IdOf(line)},
                     {"custom_id", nullptr},
                     {"response", nullptr},
                     {"error", {{"code", "invalid_line"}, {"message", error.what()}}}};
      return;
    }
    line.custom_id = request["custom_id"].get<std::string>();
    line.text.clear();
    try {
      Submit(line, request);
    } catch (const Error& error) {
      Refuse(line, error);
    }
  }

  void Submit(Line& line, const json& request) {
    const std::string id = request["custom_id"].get<std::string>();
    if (!seen_.insert(id).second) {
      throw RequestError(Code::kInvalid, fmt::format("custom_id: {} occurs twice", Quoted(id)),
                         "custom_id");
    }
    if (request.contains("method") && request["method"] != "POST") {
      throw RequestError(Code::kInvalid, "method: only POST is possible", "method");
    }
    const ApiRoute route = RouteOf(request);
    if (!request.contains("body")) throw RequestError(Code::kInvalid, "body: missing", "body");
    ApiRequest body = ParseApiRequest(route, request["body"], defaults_);
    if (body.stream) {
      throw RequestError(Code::kInvalid, "stream: true: a batch has no streams", "stream");
    }
    RefuseWhatServesOnly(body);
    Engine& engine = session_.engine();
    const bool pins = engine.policy() && engine.policy()->pins();
    Request r =
        std::move(RequestBuilder(raw_, chat_, engine.context(), pins).Build(body).requests.front());
    r.on_done = [this, &line, body](Generation generation) {
      Finish(line, body, std::move(generation));
    };
    engine.Submit(std::move(r));
  }

  // A line of the output holds one answer.
  static void RefuseWhatServesOnly(const ApiRequest& body) {
    const auto refuse = [](const char* field) {
      throw RequestError(Code::kInvalid, fmt::format("{}: only a server can honour it", field),
                         field);
    };
    if (body.n > 1) refuse("n");
    if (body.n_prompts() > 1) refuse("prompt");
    if (body.logprobs) refuse("logprobs");
    if (body.echo) refuse("echo");
    if (body.kv_report) refuse("kv.report");
  }

  static ApiRoute RouteOf(const json& request) {
    const auto url = request.find("url");
    if (url != request.end() && *url == "/v1/chat/completions") return ApiRoute::kChat;
    if (url != request.end() && *url == "/v1/completions") return ApiRoute::kCompletions;
    throw RequestError(Code::kInvalid, "url: known are /v1/chat/completions and /v1/completions",
                       "url");
  }

  void Finish(Line& line, const ApiRequest& body, Generation generation) {
    if (generation.error) return Refuse(line, *generation.error);
    ++n_done_;
    prompt_tokens_ += generation.prompt_tokens;
    completion_tokens_ += generation.tokens.size();
    use_.entries_kept += generation.entries;
    use_.entries_dropped += generation.entries_dropped;
    // The last token was sampled and never read, unless an end token was.
    const LaneShape shape = session_.model().MainLanes(session_.encoding());
    use_.positions += (generation.entries + generation.entries_dropped) / shape.lanes();
    Answer(line, 200,
           ApiResponse(body, {IdOf(line), session_.opened().name(), created_s_, {}, {}}, {},
                       {&generation, 1}, session_.opened().NeedTokenizer()));
  }

  void Refuse(Line& line, const Error& error) {
    ++n_failed_;
    ++n_done_;
    Answer(line, HttpStatus(error.code()), ApiErrorBody(error));
  }

  void Answer(Line& line, int status, ordered_json body) {
    line.answer = {
        {"id", "batch_req_" + IdOf(line)},
        {"custom_id", line.custom_id},
        {"response",
         {{"status_code", status}, {"request_id", "req_" + IdOf(line)}, {"body", std::move(body)}}},
        {"error", nullptr}};
  }

  Session& session_;
  PromptBuilder raw_, chat_;
  ApiDefaults defaults_;
  std::string run_id_;
  uint64_t created_s_;
  std::vector<Line> lines_;  // complete before the first request refers to one
  std::unordered_set<std::string> seen_;
  size_t n_done_ = 0, n_failed_ = 0;
  uint64_t prompt_tokens_ = 0, completion_tokens_ = 0;
  KvUse use_;
};

}  // namespace

void BatchVerb(const Arguments& args) {
  if (!args.Given("input") || !args.Given("output")) {
    Fail(Code::kUsage, "batch: give requests and a place for answers: -i IN.jsonl -o OUT.jsonl");
  }
  const std::string input = ReadTextFile(args.values().Text("input"), "--input");
  Output output(args);
  OpenedModel opened(args);
  opened.NeedTokenizer();
  Session session(args, opened, /*batch=*/true);
  const auto start = std::chrono::steady_clock::now();
  Batch batch(args, session);
  batch.Read(input);
  batch.Run();
  WriteFileWhole(args.values().Text("output"), batch.Answers());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const ordered_json summary = batch.Summary(seconds);
  if (output.json()) output.Json(summary);
  session.PrintNotices();
  if (!output.json()) {
    Note(fmt::format("{} requests, {} failed, {} prompt and {} generated tokens in {:.1f} s",
                     summary["requests"].get<size_t>(), summary["failed"].get<size_t>(),
                     summary["prompt_tokens"].get<uint64_t>(),
                     summary["completion_tokens"].get<uint64_t>(), seconds));
  }
}

}  // namespace kvasir
