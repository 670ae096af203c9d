// One connection from its first request to its last: read, let in, route, call, answer.
//
// The order is the promise: what is too big or no HTTP, then Host and Origin, then the path, then
// the key, then what the body may be; only then the body is read, and only then a handler runs.
//
// Threads  Serve runs on the connection's thread; HttpService is shared and immutable.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "server/http.h"
#include "server/http_access.h"
#include "server/http_head.h"

namespace kvasir {

struct HttpService {
  HttpService(const HttpOptions& options, std::vector<HttpRoute> table,
              std::function<void(const HttpLogLine&)> log_line);

  HttpLimits limits;
  HttpOrigins origins;
  HttpKeys api_keys, admin_keys;
  std::vector<HttpRoute> routes;
  std::function<void(const HttpLogLine&)> log;
};

class HttpConnection {
 public:
  HttpConnection(const HttpService& service, HttpChannel& channel, std::string remote);
  // Returns when the connection has to be closed. Throws nothing.
  void Serve() noexcept;

 private:
  struct Exchange;

  bool ServeOne(double wait_seconds, size_t requests_left);
  HttpReply Answer(Exchange& exchange, double wait_seconds);
  const HttpRoute* Route(Exchange& exchange) const;
  HttpReply Preflight(const Exchange& exchange) const;
  void AddHeaders(const Exchange& exchange, HttpReply* reply) const;

  const HttpService& service_;
  HttpChannel& channel_;
  std::string remote_;
  HttpReader reader_;
};

}  // namespace kvasir
