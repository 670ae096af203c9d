#include "bench/client.h"

#include <httplib.h>

#include <cmath>
#include <exception>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir::bench {

namespace {

using nlohmann::json;

constexpr double kSmallRequestSeconds = 30;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void Prepare(httplib::Client& client, double timeout_s) {
  const auto seconds = static_cast<time_t>(std::ceil(timeout_s));
  client.set_connection_timeout(std::min<time_t>(seconds, 30));
  client.set_read_timeout(seconds);
  client.set_write_timeout(seconds);
  client.set_tcp_nodelay(true);
  client.set_keep_alive(false);
}

httplib::Headers HeadersFor(const ClientOptions& options) {
  httplib::Headers headers = {{"Accept-Encoding", "identity"}};
  if (!options.api_key.empty()) headers.emplace("Authorization", "Bearer " + options.api_key);
  return headers;
}

// HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT. The library takes anything else for a host's name.
bool IsHostAndPort(std::string_view text) {
  const size_t bracket = text.find(']');
  const size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (text.empty() || colon == 0) return false;
  if (colon == std::string_view::npos) return true;
  const std::string_view port = text.substr(colon + 1);
  return !port.empty() && port.size() <= 5 &&
         port.find_first_not_of("0123456789") == std::string_view::npos;
}

// What an error of the transport is called in the result.
void Explain(httplib::Error error, bool late, double timeout_s, Record& record) {
  record.message = httplib::to_string(error);
  switch (error) {
    case httplib::Error::Connection:
    case httplib::Error::BindIPAddress:
    case httplib::Error::SSLConnection:
    case httplib::Error::SSLLoadingCerts:
    case httplib::Error::SSLServerVerification:
      record.failure = "connect";
      return;
    case httplib::Error::ConnectionTimeout:
      record.failure = "timeout";
      return;
    default:
      record.failure = late ? "timeout" : "cut off";
      if (late) record.message = fmt::format("no byte for {} s", timeout_s);
  }
}

}  // namespace

Client::Client(ClientOptions options) : options_(std::move(options)) {
  std::string url = options_.base_url;
  const size_t scheme = url.find("://");
  const std::string_view name = std::string_view(url).substr(0, scheme);
  if (scheme == std::string::npos || (name != "http" && name != "https")) {
    Fail(Code::kUsage, "--base-url {}: expected http://HOST:PORT", Quoted(url));
  }
  while (url.back() == '/') url.pop_back();
  const size_t path = url.find('/', scheme + 3);
  origin_ = url.substr(0, path);
  if (path != std::string::npos) path_ = url.substr(path);
  // Other clients take the base with the version in it; the endpoint has it too.
  if (path_.ends_with("/v1")) path_.resize(path_.size() - 3);
  if (origin_.size() <= scheme + 3 ||
      !IsHostAndPort(std::string_view(origin_).substr(scheme + 3))) {
    Fail(Code::kUsage, "--base-url {}: expected http://HOST:PORT", Quoted(options_.base_url));
  }
  route_ = options_.endpoint.ends_with("/chat/completions") ? Route::kChat : Route::kCompletions;
}

Client::Reply Client::Send(const char* method, const std::string& path, const std::string& body,
                           double timeout_s) const {
  httplib::Client client(origin_);
  Prepare(client, timeout_s);
  httplib::Request request;
  request.method = method;
  request.path = path_ + path;
  request.headers = HeadersFor(options_);
  if (!body.empty()) request.set_header("Content-Type", "application/json");
  request.body = body;
  const httplib::Result result = client.send(request);
  if (!result) return {0, {}, httplib::to_string(result.error())};
  return {result->status, result->body, {}};
}

std::optional<std::string> Client::Get(const std::string& path) const {
  Reply reply = Send("GET", path, {}, kSmallRequestSeconds);
  if (reply.status != 200) return std::nullopt;
  return std::move(reply.body);
}

void Client::Connect() {
  const Reply reply = Send("GET", "/v1/models", {}, kSmallRequestSeconds);
  if (reply.status == 0) {
    Fail(Code::kUnavailable, "{}: no server answers there ({}): start one, or correct --base-url",
         options_.base_url, reply.error);
  }
  if (reply.status == 401 || reply.status == 403) {
    Fail(Code::kUnavailable, "{}: the server wants a key ({}): give one with --api-key-file",
         options_.base_url, reply.status);
  }
  if (reply.status == 503) {
    Fail(Code::kUnavailable, "{}: the server is not ready: {}", options_.base_url,
         ErrorMessage(reply.body));
  }
  if (!options_.model.empty()) return;
  const json models = json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  const json* data = models.is_object() && models.contains("data") ? &models["data"] : nullptr;
  if (reply.status != 200 || !data || !data->is_array() || data->empty() ||
      !(*data)[0].is_object() || !(*data)[0].contains("id") || !(*data)[0]["id"].is_string()) {
    Fail(Code::kUnavailable, "{}: /v1/models lists no model ({}): name one with --model",
         options_.base_url, reply.status);
  }
  options_.model = (*data)[0]["id"].get<std::string>();
}

std::optional<size_t> Client::Count(const std::string& path, const char* key,
                                    const std::string& text) const {
  const Reply reply =
      Send("POST", path, Dump({{"model", options_.model}, {key, text}}), kSmallRequestSeconds);
  if (reply.status != 200) return std::nullopt;
  const json answer = json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) return std::nullopt;
  if (answer.contains("count") && answer["count"].is_number_unsigned()) {
    return answer["count"].get<size_t>();
  }
  if (answer.contains("tokens") && answer["tokens"].is_array()) return answer["tokens"].size();
  return std::nullopt;
}

CountTokens Client::Counter() const {
  struct Form {
    const char *path, *key;
  };
  constexpr Form kForms[] = {
      {"/tokenize", "prompt"}, {"/tokenize", "content"}, {"/extras/tokenize", "input"}};
  for (const Form& form : kForms) {
    // A server that does not know the key may answer with no tokens instead of an error.
    if (Count(form.path, form.key, "once upon a time").value_or(0) < 2) continue;
    return [this, form](const std::string& text) {
      const std::optional<size_t> count = Count(form.path, form.key, text);
      if (!count) {
        Fail(Code::kUnavailable, "{}: {} stopped answering while prompts were made",
             options_.base_url, form.path);
      }
      return *count;
    };
  }
  return {};
}

json Client::Dialogue::Ask(const Turn& turn) {
  const ClientOptions& options = client_.options_;
  json body = turn.body.is_null() ? json::object() : turn.body;
  if (turn.body.is_null()) {
    if (client_.route_ == Route::kChat) {
      messages_.push_back({{"role", "user"}, {"content", turn.text}});
      body["messages"] = messages_;
    } else {
      text_ += (text_.empty() ? "" : "\n") + turn.text;
      body["prompt"] = text_;
    }
  }
  body["model"] = options.model;
  if (turn.max_tokens) body["max_tokens"] = *turn.max_tokens;
  if (options.temperature && !body.contains("temperature")) {
    body["temperature"] = *options.temperature;
  }
  if (options.ignore_eos) body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  return body;
}

void Client::Dialogue::Answered(const std::string& text) {
  if (client_.route_ == Route::kChat) {
    messages_.push_back({{"role", "assistant"}, {"content", text}});
  } else {
    text_ += text;
  }
}

Record Client::Stream(const json& body, Clock::time_point run_start) const try {
  Record record;
  httplib::Request request;
  request.method = "POST";
  request.path = path_ + options_.endpoint;
  request.headers = HeadersFor(options_);
  request.set_header("Content-Type", "application/json");
  request.set_header("Accept", "text/event-stream");
  request.body = Dump(body);

  const Clock::time_point start = Clock::now();
  Clock::time_point last_byte = start;
  record.start = std::chrono::duration<double>(start - run_start).count();
  AnswerReader reader(route_, record);
  SseParser parser([&](const SseEvent& event) {
    if (record.ok()) reader.Take(event, std::chrono::duration<double>(last_byte - start).count());
  });
  int status = 0;
  bool is_stream = false;
  std::string other;  // a body that is no event stream: an error as a rule
  request.response_handler = [&](const httplib::Response& response) {
    status = response.status;
    is_stream =
        status == 200 && response.get_header_value("Content-Type").starts_with("text/event-stream");
    last_byte = Clock::now();
    return true;
  };
  request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
    last_byte = Clock::now();
    if (is_stream) {
      parser.Feed({data, size});
    } else if (other.size() < 65536) {
      other.append(data, size);
    }
    return record.ok();
  };
  httplib::Client client(origin_);
  Prepare(client, options_.timeout_s);
  const httplib::Result result = client.send(request);
  const double seconds = Since(start);
  if (is_stream) parser.Finish();
  if (!record.ok()) return record;
  if (status != 0 && status != 200) {
    record.failure = fmt::format("http {}", status);
    record.message = ErrorMessage(other);
  } else if (!result && !reader.complete()) {
    const bool late = Since(last_byte) >= 0.9 * options_.timeout_s;
    Explain(result.error(), late, options_.timeout_s, record);
  } else if (!is_stream) {
    record.failure = "malformed";
    record.message = "the answer is no event stream: " + ErrorMessage(other);
  } else {
    reader.End(seconds);
  }
  return record;
} catch (const std::exception& error) {
  Record record;
  record.start = Since(run_start);
  record.failure = "malformed";
  record.message = error.what();
  return record;
}

}  // namespace kvasir::bench
