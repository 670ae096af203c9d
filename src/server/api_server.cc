#include "server/api_server.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "format/json.h"
#include "format/quote.h"

namespace kvasir {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxIgnoredNames = 16;
constexpr size_t kMaxIgnoredBytes = 64;
constexpr const char* kRetrySeconds = "1";

// Bodies are JSON objects. What is wrong with one is the request's fault, whatever a file would
// call it.
json Body(const HttpRequest& request) {
  json body;
  try {
    body = ParseJson(request.body, "body");
  } catch (const Error& error) {
    throw RequestError(Code::kInvalid, error.what(), "");
  }
  if (!body.is_object()) throw RequestError(Code::kInvalid, "body: not a JSON object", "");
  return body;
}

HttpReply Json(const ordered_json& document) {
  HttpReply reply;
  reply.body = DumpJson(document);
  return reply;
}

[[noreturn]] void Refuse(const char* field, const std::string& what) {
  throw RequestError(Code::kInvalid, fmt::format("{}: {}", field, what), field);
}

bool SwitchOr(const json& body, const char* field, bool otherwise) {
  const auto found = body.find(field);
  if (found == body.end() || found->is_null()) return otherwise;
  if (!found->is_boolean()) Refuse(field, "neither true nor false");
  return found->get<bool>();
}

std::string TextOf(const json& body, const char* field) {
  if (!body[field].is_string()) Refuse(field, "no text");
  return body[field].get<std::string>();
}

std::vector<int32_t> IdsOf(const json& body, const char* field, size_t vocabulary) {
  const auto found = body.find(field);
  if (found == body.end() || !found->is_array()) Refuse(field, "not a list of token ids");
  std::vector<int32_t> ids;
  for (const json& id : *found) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary) {
      Refuse(field, fmt::format("not a list of token ids below {}", vocabulary));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// Field names for a header: those that cannot be mistaken for anything else in one.
std::string IgnoredNames(const std::vector<std::string>& names) {
  std::string list;
  size_t n = 0;
  for (const std::string& name : names) {
    const bool plain = !name.empty() && name.size() <= kMaxIgnoredBytes &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                (c >= '0' && c <= '9') || c == '_' || c == '.';
                       });
    if (!plain) continue;
    if (n++ == kMaxIgnoredNames) break;
    list += (list.empty() ? "" : ", ") + name;
  }
  return list;
}

}  // namespace

struct ApiServer::Row {
  const char* method;
  const char* path;
  HttpAccess access;
  HttpReply (ApiServer::*handler)(const HttpRequest&);
};

const ApiServer::Row ApiServer::kRows[] = {
    {"POST", "/v1/chat/completions", HttpAccess::kKey, &ApiServer::Chat},
    {"POST", "/v1/completions", HttpAccess::kKey, &ApiServer::Completions},
    {"GET", "/v1/models", HttpAccess::kKey, &ApiServer::Models},
    {"GET", "/health", HttpAccess::kOpen, &ApiServer::Health},
    {"GET", "/version", HttpAccess::kOpen, &ApiServer::Version},
    {"POST", "/tokenize", HttpAccess::kKey, &ApiServer::Tokenize},
    {"POST", "/detokenize", HttpAccess::kKey, &ApiServer::Detokenize},
    {"POST", "/apply-template", HttpAccess::kKey, &ApiServer::ApplyTemplate},
    {"GET", "/metrics", HttpAccess::kKey, &ApiServer::MetricsText},
    {"GET", "/v1/kv", HttpAccess::kKey, &ApiServer::Kv},
    {"POST", "/reset_prefix_cache", HttpAccess::kAdmin, &ApiServer::ResetPrefixCache},
};

ApiServer::ApiServer(std::string model_name, std::string version)
    : model_name_(std::move(model_name)),
      version_(std::move(version)),
      started_s_(static_cast<uint64_t>(std::time(nullptr))),
      run_id_(fmt::format("{:016x}", RandomSeed())) {}

void ApiServer::Open(const ApiModel& model) {
  owned_ = std::make_unique<const ApiModel>(model);
  model_ = owned_.get();
}

std::vector<std::string> ApiServer::Paths() {
  std::vector<std::string> paths;
  for (const Row& row : kRows) paths.emplace_back(row.path);
  return paths;
}

std::vector<HttpRoute> ApiServer::Routes() {
  std::vector<HttpRoute> routes;
  for (const Row& row : kRows) {
    routes.push_back({row.method, row.path, row.access, [this, &row](const HttpRequest& request) {
                        try {
                          return (this->*row.handler)(request);
                        } catch (const Error& error) {
                          return Refusal(error);
                        }
                      }});
  }
  return routes;
}

void ApiServer::Log(const HttpLogLine& line) {
  LogInfo("{} {} {} {} {:.3f} s", line.remote, line.method, line.route.empty() ? "-" : line.route,
          line.status, line.seconds);
  if (const ApiModel* m = model_) m->metrics.AnswerDone(line.route, line.status);
}

const ApiModel& ApiServer::model() const {
  const ApiModel* model = model_;
  if (!model) Fail(Code::kUnavailable, "loading: the model is not ready yet");
  return *model;
}

HttpReply ApiServer::Refusal(const Error& error) {
  if (const ApiModel* m = model_) m->metrics.Refused(error.code());
  HttpReply reply = Json(ApiErrorBody(error));
  reply.status = HttpStatus(error.code());
  if (error.code() == Code::kBusy || error.code() == Code::kUnavailable) {
    reply.headers.emplace_back("Retry-After", kRetrySeconds);
  }
  return reply;
}

ApiEcho ApiServer::Echo(const ApiModel& model) {
  return {.id = fmt::format("{}-{}", run_id_, ++n_answers_),
          .model = model_name_,
          .created_s = static_cast<uint64_t>(std::time(nullptr)),
          .policy = model.policy,
          .codec = model.codec,
          .lanes = model.lanes};
}

HttpReply ApiServer::Generate(ApiRoute route, const HttpRequest& request) {
  const ApiModel& m = model();
  ApiRequest body = ParseApiRequest(route, Body(request), m.defaults);
  const bool stream = body.stream;
  const std::string ignored = IgnoredNames(body.ignored);
  EngineRequests requests = RequestBuilder(m.raw, m.chat, m.context, m.pins).Build(body);
  const auto answer =
      std::make_shared<Answer>(m.loop, m.tokenizer, std::move(body), Echo(m), std::move(requests));
  HttpReply reply;
  if (stream) {
    answer->AwaitFirst(request.gone);
    reply.content_type = "text/event-stream; charset=utf-8";
    reply.stream = [&m, answer](HttpStream& out) {
      if (const std::optional<Error> error = answer->Stream(out)) m.metrics.Refused(error->code());
    };
  } else {
    reply = Json(answer->Whole(request.gone));
  }
  if (!ignored.empty()) reply.headers.emplace_back("x-kvasir-ignored", ignored);
  return reply;
}

HttpReply ApiServer::Models(const HttpRequest&) {
  const ApiModel& m = model();
  return Json({{"object", "list"},
               {"data",
                {{{"id", model_name_},
                  {"object", "model"},
                  {"created", started_s_},
                  {"owned_by", "kvasir"},
                  {"root", model_name_},
                  {"parent", nullptr},
                  {"max_model_len", m.context}}}}});
}

HttpReply ApiServer::Health(const HttpRequest&) {
  const ApiModel* m = model_;
  const char* word = !m ? "loading" : m->loop.draining() ? "draining" : "ok";
  HttpReply reply = Json({{"status", word}});
  if (std::string_view(word) != "ok") {
    reply.status = 503;
    reply.headers.emplace_back("Retry-After", kRetrySeconds);
  }
  return reply;
}

HttpReply ApiServer::Version(const HttpRequest&) { return Json({{"version", version_}}); }

HttpReply ApiServer::Tokenize(const HttpRequest& request) {
  const ApiModel& m = model();
  const json body = Body(request);
  if (body.contains("content")) {  // llama.cpp's form
    std::vector<TokenId> ids;
    if (SwitchOr(body, "add_special", false) && m.tokenizer.add_bos() &&
        m.tokenizer.bos() != kNoToken) {
      ids.push_back(m.tokenizer.bos());
    }
    const std::vector<TokenId> text =
        m.tokenizer.Encode(TextOf(body, "content"), SwitchOr(body, "parse_special", false));
    ids.insert(ids.end(), text.begin(), text.end());
    if (!SwitchOr(body, "with_pieces", false)) return Json({{"tokens", ids}});
    ordered_json pieces = ordered_json::array();
    for (const TokenId id : ids) {
      pieces.push_back({{"id", id}, {"piece", m.tokenizer.Piece(id, true)}});
    }
    return Json({{"tokens", std::move(pieces)}});
  }
  std::vector<TokenId> ids;
  if (body.contains("messages")) {
    ids =
        m.chat.Chat(ParseMessages(body["messages"]), SwitchOr(body, "add_generation_prompt", true))
            .tokens;
  } else if (body.contains("prompt")) {
    const std::string text = TextOf(body, "prompt");
    ids = SwitchOr(body, "add_special_tokens", true) && !text.empty()
              ? m.raw.Plain(text).tokens
              : m.tokenizer.Encode(text, /*special=*/false);
  } else {
    Refuse("prompt", "missing: give \"prompt\", \"messages\" or \"content\"");
  }
  ordered_json answer = {{"count", ids.size()}, {"max_model_len", m.context}, {"tokens", ids}};
  if (SwitchOr(body, "return_token_strs", false)) {
    ordered_json texts = ordered_json::array();
    for (const TokenId id : ids) texts.push_back(m.tokenizer.Piece(id, true));
    answer["token_strs"] = std::move(texts);
  }
  return Json(answer);
}

HttpReply ApiServer::Detokenize(const HttpRequest& request) {
  const ApiModel& m = model();
  const std::vector<int32_t> ids = IdsOf(Body(request), "tokens", m.tokenizer.vocab_size());
  const std::string text = m.tokenizer.Decode(ids);
  return Json({{"prompt", text}, {"content", text}});
}

HttpReply ApiServer::ApplyTemplate(const HttpRequest& request) {
  const ApiModel& m = model();
  const json body = Body(request);
  if (!body.contains("messages")) Refuse("messages", "missing");
  if (!m.chat.has_template()) Refuse("messages", "this model has no chat template");
  return Json({{"prompt", m.chat.Render(ParseMessages(body["messages"]),
                                        SwitchOr(body, "add_generation_prompt", true))}});
}

HttpReply ApiServer::MetricsText(const HttpRequest&) {
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = model().metrics.Text(model().loop.snapshot());
  return reply;
}

HttpReply ApiServer::Kv(const HttpRequest&) {
  const ApiModel& m = model();
  const EngineSnapshot s = m.loop.snapshot();
  const Ledger& ledger = s.ledger;
  ordered_json by_use = ordered_json::object();
  for (int i = 0; i < kPlaneUses; ++i) {
    by_use[std::string(Name(static_cast<PlaneUse>(i)))] = ledger.bytes_by_use[i];
  }
  ordered_json sequences = ordered_json::array();
  for (const SequenceLine& line : s.sequences) {
    sequences.push_back({{"id", line.id},
                         {"position", line.position},
                         {"prompt_tokens", line.prompt_tokens},
                         {"cached_tokens", line.cached_tokens},
                         {"generated_tokens", line.generated_tokens},
                         {"entries", line.entries},
                         {"entries_dropped", line.entries_dropped},
                         {"bytes_reserved", line.bytes_reserved}});
  }
  return Json({{"policy", m.policy},
               {"codec", m.codec},
               {"budget_bytes", ledger.budget_bytes},
               {"bytes", ledger.bytes},
               {"bytes_peak", ledger.bytes_peak},
               {"bytes_reserved", ledger.bytes_reserved},
               {"bytes_reserved_peak", ledger.bytes_reserved_peak},
               {"bytes_committed", ledger.bytes_committed},
               {"bytes_tables", ledger.bytes_tables},
               {"bytes_by_codec", std::move(by_use)},
               {"bytes_side", ledger.bytes_side},
               {"rows_nonfinite", ledger.rows_nonfinite},
               {"entries", ledger.entries},
               {"entries_dropped", ledger.entries_dropped},
               {"snapshots", s.stats.n_snapshots},
               {"snapshot_bytes", s.stats.snapshot_bytes},
               {"running", s.stats.n_running},
               {"waiting", s.stats.n_waiting},
               {"sequences", std::move(sequences)}});
}

HttpReply ApiServer::ResetPrefixCache(const HttpRequest&) {
  model().loop.DropPrefixes();
  return Json({{"dropped", true}});
}

}  // namespace kvasir
