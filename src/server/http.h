// HTTP/1.1 in front of the engine: sockets, limits and access, and nothing of what a route means.
//
// Everything a client can do wrong on the wire ends here: slow, huge, malformed, half-closed,
// forged. A handler sees a request whose head and body are whole, within limits and allowed in.
//
// Limits   HttpLimits; a body over its limit is 413 before it is read, also when it comes in
//          chunks. Content-Encoding and Range are refused (415, 416).
// Access   A client is who its socket says, never who a header says. Keys are compared as SHA-256
//          digests in constant time; no key ever shows in a log or an answer. Host must be the
//          bound name, loopback or an allowed origin's, so that a page of another site cannot reach
//          a local server through its own name.
// Threads  Handlers run on connection threads, several at once. Start and Stop from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir {

struct HttpLimits {
  size_t body_bytes = size_t{16} << 20;
  size_t header_bytes = size_t{64} << 10;
  size_t header_lines = 100;
  size_t request_line_bytes = size_t{8} << 10;
  double header_seconds = 10, body_seconds = 60;
  double write_seconds = 30;  // a client that takes nothing for so long is gone
  double idle_seconds = 5;    // a kept connection without a request
  size_t connections = 512;
};

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, a name, or "unix:/path"
  uint16_t port = 8080;            // 0: any free one
  std::vector<std::string> api_keys, admin_keys;
  std::vector<std::string> cors_origins;
  HttpLimits limits;
};

// What a handler is given.
struct HttpRequest {
  std::string method;  // upper case
  std::string path;    // without the query
  std::string body;
  std::string remote;  // address of the socket's other end
  // Whether the client has closed its end, be it only its sending half: the two look the same. A
  // handler that does not ask gives its reply to both. Cheap enough to ask every few milliseconds.
  std::function<bool()> gone;
};

// Where a handler's stream goes.
class HttpStream {
 public:
  virtual ~HttpStream() = default;
  // False when the client is gone or takes nothing for write_seconds: end the stream then.
  virtual bool Write(std::string_view bytes) = 0;
  virtual bool gone() const = 0;
};

// What a handler gives back: a body, or a function that writes one in chunks.
struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  // Names and values of ours; values are checked to be one printable line.
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::function<void(HttpStream&)> stream;
};

enum class HttpAccess : uint8_t {
  kOpen,   // nobody is asked for a key
  kKey,    // one of api_keys, if there are any
  kAdmin,  // one of admin_keys; without any the route does not exist
};

struct HttpRoute {
  std::string method, path;  // exact
  HttpAccess access = HttpAccess::kKey;
  // Errors: an Error becomes its status and OpenAI's error body; anything else 500.
  std::function<HttpReply(const HttpRequest&)> handler;
};

// What became of a request, for logs and metrics; `route` is one of the table's paths or empty.
struct HttpLogLine {
  std::string_view method, route, remote;
  int status = 0;
  double seconds = 0;
};

class HttpServer {
 public:
  HttpServer(HttpOptions options, std::vector<HttpRoute> routes,
             std::function<void(const HttpLogLine&)> log);
  ~HttpServer();  // Stop
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds and listens; connections are served from here on. Errors: kIo naming host and port.
  void Start();
  uint16_t port() const;  // after Start
  // No new connections; returns when those at work have ended. Safe to call again.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir
