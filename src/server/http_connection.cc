#include "server/http_connection.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <nlohmann/json.hpp>
#include <random>

#include "base/log.h"
#include "server/http_writer.h"
#include "server/openai.h"

namespace kvasir {

namespace {

using Clock = std::chrono::steady_clock;

// After so many requests a client has to connect again.
constexpr size_t kRequestsPerConnection = 10'000;

// Methods as logs and metrics may show them: a client must not choose their words.
constexpr std::string_view kMethods[] = {"GET",   "HEAD",    "POST",    "PUT",  "DELETE",
                                         "PATCH", "OPTIONS", "CONNECT", "TRACE"};
std::string_view KnownMethod(std::string_view method) {
  const auto* known = std::find(std::begin(kMethods), std::end(kMethods), method);
  return known == std::end(kMethods) ? "OTHER" : *known;
}

HttpReply ErrorReply(int status, std::string_view type, std::string_view message,
                     std::string_view code) {
  HttpReply reply;
  reply.status = status;
  reply.body = DumpJson(
      {{"error", {{"message", message}, {"type", type}, {"param", nullptr}, {"code", code}}}});
  return reply;
}

// What went wrong inside is for the log; the client gets a number to ask with.
HttpReply InternalError(std::string_view what) {
  std::random_device random;
  const std::string id = fmt::format("{:08x}{:08x}", random(), random());
  LogWarning("internal error {}: {}", id, what);
  return ErrorReply(500, "internal_error",
                    fmt::format("internal error; its id in the log is {}", id), "internal");
}

// The reply to what `work` throws.
template <typename Work>
HttpReply Guard(Work work) {
  try {
    HttpReply reply = work();
    if (!IsWritable(reply))
      return InternalError("a handler's reply has a malformed header or status");
    return reply;
  } catch (const HttpRefusal& refusal) {
    HttpReply reply = ErrorReply(refusal.status(), refusal.type(), refusal.what(),
                                 refusal.type().substr(0, refusal.type().rfind('_')));
    if (refusal.status() == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    return reply;
  } catch (const Error& error) {
    HttpReply reply;
    reply.status = HttpStatus(error.code());
    reply.body = DumpJson(ApiErrorBody(error));
    return reply;
  } catch (const std::bad_alloc&) {
    return ErrorReply(503, "unavailable_error", "no memory for this request now", "unavailable");
  } catch (const std::exception& error) {
    return InternalError(error.what());
  } catch (...) {
    return InternalError("an exception of unknown type");
  }
}

bool HasHeader(const HttpReply& reply, std::string_view name) {
  return std::any_of(reply.headers.begin(), reply.headers.end(),
                     [&](const auto& header) { return LowerAscii(header.first) == name; });
}

}  // namespace

// A request on its way, and what is known of it for its answer and the log.
struct HttpConnection::Exchange {
  std::optional<HttpHead> head;
  Clock::time_point start = Clock::now();
  std::string_view route;               // a path of the table
  const std::string* origin = nullptr;  // the allowed one it comes from
  std::string allow;                    // methods of its path, where that is the answer
  bool body_taken = false;
  bool working = false;  // the connection cannot be given up any more
  bool left = false;     // the client closed before its request was whole
};

HttpService::HttpService(const HttpOptions& options, std::vector<HttpRoute> table,
                         std::function<void(const HttpLogLine&)> log_line)
    : limits(options.limits),
      origins(options.host, options.cors_origins),
      api_keys(options.api_keys, "api key"),
      admin_keys(options.admin_keys, "admin key"),
      routes(std::move(table)),
      log(std::move(log_line)) {
  for (const HttpRoute& route : routes) CHECK_MSG(route.handler, "route {}", route.path);
}

HttpConnection::HttpConnection(const HttpService& service, HttpChannel& channel, std::string remote)
    : service_(service),
      channel_(channel),
      remote_(std::move(remote)),
      reader_(channel, service.limits) {}

void HttpConnection::Serve() noexcept {
  try {
    const HttpLimits& limits = service_.limits;
    double wait_seconds = limits.header_seconds;
    for (size_t left = kRequestsPerConnection; left > 0 && !channel_.stopping(); --left) {
      if (!ServeOne(wait_seconds, left - 1)) break;
      channel_.EndWork();
      wait_seconds = limits.idle_seconds;
    }
  } catch (...) {
    // Every request has its own net; what comes through is the lack of memory to say so.
  }
}

bool HttpConnection::ServeOne(double wait_seconds, size_t requests_left) {
  Exchange exchange;
  HttpReply reply = Guard([&] { return Answer(exchange, wait_seconds); });
  if (exchange.left || (!exchange.working && !channel_.StartWork())) return false;

  const HttpHead* head = exchange.head ? &*exchange.head : nullptr;
  AddHeaders(exchange, &reply);
  HttpAnswer answer;
  answer.reply = &reply;
  answer.idle_seconds = service_.limits.idle_seconds;
  answer.requests_left = requests_left;
  if (head != nullptr) {
    answer.method = head->method;
    answer.http10 = head->http10;
  }
  // After a head that could not be read or a body that was not, the next request's start is
  // unknown.
  const bool in_step = head != nullptr && (exchange.body_taken || !head->has_body());
  answer.close =
      !in_step || !head->keep_alive || (head->http10 && reply.stream) || channel_.stopping();
  const int status = reply.status;
  const bool usable = WriteHttpAnswer(channel_, answer);
  if (service_.log) {
    const std::chrono::duration<double> took = Clock::now() - exchange.start;
    service_.log({head != nullptr ? KnownMethod(head->method) : "OTHER", exchange.route, remote_,
                  status, took.count()});
  }
  return usable && !answer.close;
}

HttpReply HttpConnection::Answer(Exchange& exchange, double wait_seconds) {
  exchange.head = reader_.ReadHead(wait_seconds);
  exchange.start = Clock::now();
  if (!exchange.head) {
    exchange.left = true;
    return {};
  }
  const HttpHead& head = *exchange.head;
  service_.origins.CheckHost(head);
  exchange.origin = service_.origins.Check(head);
  const HttpRoute* route = Route(exchange);
  if (route == nullptr) return Preflight(exchange);

  if (head.Count("range") > 0) {
    throw HttpRefusal(416, "invalid_request_error", "parts of an answer are not given out");
  }
  if (head.Count("content-encoding") > 0) {
    throw HttpRefusal(415, "invalid_request_error", "bodies come without Content-Encoding");
  }
  std::optional<std::string> body = reader_.ReadBody(head);
  exchange.body_taken = body.has_value();
  exchange.working = exchange.body_taken && channel_.StartWork();
  if (!exchange.working) {
    exchange.left = true;
    return {};
  }
  HttpRequest request{head.method, head.path, std::move(*body), remote_,
                      [this] { return channel_.gone(); }};
  return route->handler(request);
}

// The route for a request's path and method that its keys open; null for a preflight.
const HttpRoute* HttpConnection::Route(Exchange& exchange) const {
  const HttpHead& head = *exchange.head;
  const bool has_key = service_.api_keys.empty() || service_.api_keys.Admit(head);
  const bool has_admin_key = service_.admin_keys.Admit(head);
  std::vector<const HttpRoute*> seen;  // routes of the path that exist for this client
  for (const HttpRoute& route : service_.routes) {
    if (route.path != head.path || (route.access == HttpAccess::kAdmin && !has_admin_key)) continue;
    seen.push_back(&route);
  }
  if (seen.empty()) throw HttpRefusal(404, "not_found_error", "nothing is served at this path");
  exchange.route = seen.front()->path;

  const HttpRoute* found = nullptr;
  const HttpRoute* found_get = nullptr;
  bool opened = false;
  std::vector<std::string_view> methods;
  for (const HttpRoute* route : seen) {
    if (route->method == head.method) found = route;
    if (route->method == "GET") found_get = route;
    opened = opened || has_key || route->access != HttpAccess::kKey;
    methods.push_back(route->method);
  }
  if (found_get != nullptr) methods.emplace_back("HEAD");
  if (found == nullptr && head.method == "HEAD") found = found_get;
  exchange.allow = fmt::format("{}", fmt::join(methods, ", "));
  // A preflight comes without the key; it says nothing but what an allowed origin may send.
  if (found == nullptr && head.method == "OPTIONS" && exchange.origin != nullptr &&
      head.Count("access-control-request-method") > 0) {
    return nullptr;
  }
  if (found != nullptr ? found->access == HttpAccess::kKey && !has_key : !opened) {
    throw HttpRefusal(401, "authentication_error",
                      "a key is needed: Authorization: Bearer KEY or x-api-key: KEY");
  }
  if (found == nullptr) {
    throw HttpRefusal(405, "invalid_request_error",
                      fmt::format("this path takes {}", exchange.allow));
  }
  return found;
}

HttpReply HttpConnection::Preflight(const Exchange& exchange) const {
  HttpReply reply;
  reply.headers = {{"Access-Control-Allow-Methods", exchange.allow},
                   {"Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key, *"},
                   {"Access-Control-Max-Age", "600"}};
  return reply;
}

// What every answer says, whoever made it.
void HttpConnection::AddHeaders(const Exchange& exchange, HttpReply* reply) const {
  reply->headers.emplace_back("X-Content-Type-Options", "nosniff");
  if (reply->status == 405) reply->headers.emplace_back("Allow", exchange.allow);
  if ((reply->status == 429 || reply->status == 503) && !HasHeader(*reply, "retry-after")) {
    reply->headers.emplace_back("Retry-After", "1");
  }
  if (exchange.origin != nullptr) {
    reply->headers.emplace_back("Access-Control-Allow-Origin", *exchange.origin);
    reply->headers.emplace_back("Vary", "Origin");
  }
}

}  // namespace kvasir
