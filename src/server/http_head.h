// The incoming half of a connection: request heads and bodies out of bytes nobody vouches for.
//
// The grammar is RFC 9112's without its leniencies, since a lenient reader behind a strict proxy
// (or the other way round) is how requests are smuggled: lines end with CR LF, nothing is folded,
// there is one Host, one length or one "chunked" but never both, and a size is digits that fit.
//
// Errors   HttpRefusal: answer it, then close; where the next request starts is no longer known.
// Cost     A head is held once, at most header_bytes + request_line_bytes; a body grows with the
//          bytes that came, not with those that were announced.
// Threads  A reader belongs to its connection's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "server/http.h"

namespace kvasir {

// A request that gets no handler: status and OpenAI error type beside the message. The message
// never quotes the client, so it may go into answers and logs as it is.
class HttpRefusal : public Error {
 public:
  HttpRefusal(int status, std::string_view type, const std::string& message)
      : Error(Code::kInvalid, message), status_(status), type_(type) {}
  int status() const { return status_; }
  std::string_view type() const { return type_; }

 private:
  int status_;
  std::string_view type_;  // a literal
};

// A connection as its thread sees it. The network's is in http_socket.h.
class HttpChannel {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Got : uint8_t { kBytes, kEnd, kLate, kStopped };

  virtual ~HttpChannel() = default;
  // Some bytes, at least one; or why there are none: the client has closed its end, nothing came
  // until then, the server is stopping.
  virtual Got Read(char* into, size_t room, size_t* count, Clock::time_point until) = 0;
  // All of it; false when the client is gone or stalled.
  virtual bool Write(std::string_view bytes) = 0;
  virtual bool gone() const = 0;
  virtual bool stopping() const = 0;
  // Whose turn it is. While it is the client's (from the start, until a request is whole), the
  // server may give the connection up for a newer one: StartWork then says false.
  virtual bool StartWork() = 0;
  virtual void EndWork() = 0;
};

struct HttpHead {
  std::string method, path;                                  // the path without its query
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  bool http10 = false, keep_alive = true, chunked = false, expects_continue = false;
  uint64_t content_length = 0;

  bool has_body() const { return chunked || content_length > 0; }
  size_t Count(std::string_view name) const;
  // The value of a header that is there exactly once, otherwise nothing.
  std::optional<std::string_view> Find(std::string_view name) const;
};

// `head`: from the request line to the empty line, both included.
HttpHead ParseHttpHead(std::string_view head);

std::string LowerAscii(std::string_view text);

class HttpReader {
 public:
  HttpReader(HttpChannel& channel, const HttpLimits& limits) : channel_(channel), limits_(limits) {}

  // The next request's head. Its first byte may take wait_seconds, the rest header_seconds. Nothing
  // when the connection ends before a head is whole, or waits in vain for its first byte.
  std::optional<HttpHead> ReadHead(double wait_seconds);
  // The body that belongs to the head just read. Nothing when the client closes before its end.
  std::optional<std::string> ReadBody(const HttpHead& head);

 private:
  using Clock = HttpChannel::Clock;

  std::string_view rest() const { return std::string_view(buffer_).substr(at_); }
  HttpChannel::Got Fill(Clock::time_point until);
  bool FillBody(Clock::time_point until);
  bool TakeBytes(uint64_t count, Clock::time_point until, std::string* body);
  bool TakeLine(size_t most, Clock::time_point until, std::string* line);
  bool ReadChunks(Clock::time_point until, std::string* body);
  bool SkipTrailers(Clock::time_point until);

  HttpChannel& channel_;
  const HttpLimits& limits_;
  std::string buffer_;  // bytes from at_ on are not used yet
  size_t at_ = 0;
};

}  // namespace kvasir
