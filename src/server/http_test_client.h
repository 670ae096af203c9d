// A server with routes of every kind and a client that may misbehave, for tests of the wire.
#pragma once

#include <arpa/inet.h>
#include <dirent.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "server/http.h"
#include "server/http_head.h"

namespace kvasir::test {

// No test waits longer for anything; none comes near it.
constexpr auto kPatience = std::chrono::seconds(20);

template <typename Condition>
bool Eventually(Condition condition) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline size_t OpenFds() {
  size_t count = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

struct HttpAnswerText {
  int status = 0;  // 0: there is no answer
  std::string head, body;
  bool whole = false;  // the body came to its end
  // A header's value, empty if it is not there. `name` in lower case.
  std::string Header(std::string_view name) const {
    size_t at = head.find("\r\n");
    while (at != std::string::npos && at + 2 < head.size()) {
      const size_t end = head.find("\r\n", at + 2);
      const std::string line = head.substr(at + 2, end - at - 2);
      const size_t colon = line.find(": ");
      if (colon != std::string::npos && LowerAscii(line.substr(0, colon)) == name) {
        return line.substr(colon + 2);
      }
      at = end;
    }
    return {};
  }
};

class HttpTestClient {
 public:
  explicit HttpTestClient(uint16_t port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Connect(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  explicit HttpTestClient(const std::string& path) {
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    Connect(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  HttpTestClient(HttpTestClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), got_(std::move(other.got_)) {}
  HttpTestClient& operator=(HttpTestClient&&) = delete;
  ~HttpTestClient() { Close(); }

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // With a reset instead of an end of file.
  void Reset() {
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    Close();
  }
  void HalfClose() { ::shutdown(fd_, SHUT_WR); }
  // False when the server takes no more.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // What comes until the server closes.
  std::string ReadToEnd() {
    while (More()) {
    }
    return std::exchange(got_, {});
  }
  bool ReadUntil(std::string_view text) {
    while (got_.find(text) == std::string::npos) {
      if (!More()) return false;
    }
    return true;
  }
  HttpAnswerText Read(bool of_head_request = false) {
    HttpAnswerText answer;
    if (!ReadUntil("\r\n\r\n")) return answer;
    answer.head = Take(got_.find("\r\n\r\n") + 4);
    answer.status = std::stoi(answer.head.substr(9, 3));
    answer.whole = true;
    if (of_head_request || answer.status == 100) return answer;
    if (answer.Header("transfer-encoding") == "chunked") {
      answer.whole = ReadChunks(&answer.body);
    } else if (const std::string length = answer.Header("content-length"); !length.empty()) {
      while (got_.size() < std::stoul(length) && More()) {
      }
      answer.body = Take(std::stoul(length));
      answer.whole = answer.body.size() == std::stoul(length);
    } else {
      answer.body = ReadToEnd();
    }
    return answer;
  }
  HttpAnswerText Ask(std::string_view request) {
    Send(request);
    return Read(request.starts_with("HEAD"));
  }
  bool ClosedByServer() { return ReadToEnd().empty() && ended_; }

 private:
  void Connect(const sockaddr* address, socklen_t size) {
    connected_ = ::connect(fd_, address, size) == 0;
  }
  bool More() {
    pollfd poll{fd_, POLLIN, 0};
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(kPatience).count();
    if (::poll(&poll, 1, static_cast<int>(ms)) <= 0) return false;
    char bytes[65536];
    const ssize_t count = ::recv(fd_, bytes, sizeof(bytes), 0);
    if (count > 0) got_.append(bytes, static_cast<size_t>(count));
    ended_ = count <= 0;
    return count > 0;
  }
  std::string Take(size_t count) {
    std::string taken = got_.substr(0, count);
    got_.erase(0, taken.size());
    return taken;
  }
  bool ReadChunks(std::string* body) {
    for (;;) {
      if (!ReadUntil("\r\n")) return false;
      const size_t size = std::stoul(Take(got_.find("\r\n") + 2), nullptr, 16);
      while (got_.size() < size + 2) {
        if (!More()) return false;
      }
      body->append(Take(size));
      Take(2);
      if (size == 0) return true;
    }
  }

  int fd_ = -1;
  bool connected_ = false, ended_ = false;
  std::string got_;
};

inline std::string Get(std::string_view path, std::string_view headers = {}) {
  return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", path, headers);
}
inline std::string Post(std::string_view path, std::string_view body,
                        std::string_view headers = {}) {
  return fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n{}", path,
                     body.size(), headers, body);
}

// A running server.
class HttpTestServer {
 public:
  // A small body limit, and times that no test runs into, however slow the machine.
  static HttpOptions Patient() {
    HttpOptions options;
    options.port = 0;
    options.limits.body_bytes = 1000;
    options.limits.header_seconds = options.limits.body_seconds = 60;
    options.limits.write_seconds = options.limits.idle_seconds = 60;
    return options;
  }

  explicit HttpTestServer(HttpOptions options = Patient())
      : server_(std::move(options), Routes(), [this](const HttpLogLine& line) {
          const std::lock_guard lock(mutex_);
          log_.push_back(
              fmt::format("{} {} {} {}", line.method, line.route, line.remote, line.status));
        }) {
    server_.Start();
  }

  uint16_t port() const { return server_.port(); }
  HttpTestClient Connect() const { return HttpTestClient(port()); }
  HttpAnswerText Ask(std::string_view request) const { return Connect().Ask(request); }
  void Stop() { server_.Stop(); }
  std::vector<std::string> log() const {
    const std::lock_guard lock(mutex_);
    return log_;
  }
  bool Answers() const { return Ask(Get("/open")).status == 200; }

  std::atomic<int> calls = 0;         // of /v1/echo
  std::atomic<int> started = 0;       // handlers and streams that wait for their client to leave
  std::atomic<int> ended = 0;         // and have seen it
  std::atomic<bool> release = false;  // ends /hold

 private:
  static HttpReply Text(std::string text) {
    HttpReply reply;
    reply.content_type = "text/plain";
    reply.body = std::move(text);
    return reply;
  }
  static HttpReply Stream(std::function<void(HttpStream&)> stream) {
    HttpReply reply;
    reply.content_type = "text/event-stream";
    reply.stream = std::move(stream);
    return reply;
  }
  std::vector<HttpRoute> Routes() {
    using Request = const HttpRequest&;
    return {
        {"GET", "/open", HttpAccess::kOpen, [](Request) { return Text("open"); }},
        {"GET", "/remote", HttpAccess::kOpen, [](Request request) { return Text(request.remote); }},
        {"GET", "/v1/models", HttpAccess::kKey, [](Request) { return Text("models"); }},
        {"POST", "/v1/echo", HttpAccess::kKey,
         [this](Request request) {
           ++calls;
           return Text(request.body);
         }},
        {"POST", "/admin", HttpAccess::kAdmin, [](Request) { return Text("admin"); }},
        {"GET", "/stream", HttpAccess::kOpen,
         [](Request) {
           return Stream([](HttpStream& stream) {
             for (const char* part : {"one", "", "two"}) stream.Write(part);
           });
         }},
        {"GET", "/endless", HttpAccess::kOpen,
         [this](Request) {
           return Stream([this](HttpStream& stream) {
             ++started;
             const std::string part(10000, 'x');
             while (stream.Write(part)) {
             }
             ++ended;
           });
         }},
        {"GET", "/quiet", HttpAccess::kOpen,
         [this](Request) {
           return Stream([this](HttpStream& stream) {
             stream.Write("hello");
             ++started;
             while (!stream.gone()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
             ++ended;
           });
         }},
        {"POST", "/wait", HttpAccess::kOpen,
         [this](Request request) {
           ++started;
           while (!request.gone()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
           ++ended;
           return Text("nobody reads this");
         }},
        {"GET", "/hold", HttpAccess::kOpen,
         [this](Request) {
           ++started;
           while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(2));
           return Text("held");
         }},
        {"GET", "/busy", HttpAccess::kOpen,
         [](Request) -> HttpReply { Fail(Code::kBusy, "needs 3 GiB, budget 2 GiB"); }},
        {"GET", "/invalid", HttpAccess::kOpen,
         [](Request) -> HttpReply { Fail(Code::kInvalid, "top_k is -1"); }},
        {"GET", "/throw", HttpAccess::kOpen,
         [](Request) -> HttpReply { throw std::runtime_error("private matter"); }},
        {"GET", "/throw-int", HttpAccess::kOpen, [](Request) -> HttpReply { throw 7; }},
        {"GET", "/no-memory", HttpAccess::kOpen,
         [](Request) -> HttpReply { throw std::bad_alloc(); }},
        {"GET", "/bad-header", HttpAccess::kOpen,
         [](Request) {
           HttpReply reply = Text("x");
           reply.headers.emplace_back("X-Name", "a\r\nSet-Cookie: b");
           return reply;
         }},
        {"GET", "/stream-throws", HttpAccess::kOpen,
         [](Request) {
           return Stream([](HttpStream& stream) {
             stream.Write("one");
             throw std::runtime_error("private matter");
           });
         }},
    };
  }

  mutable std::mutex mutex_;
  std::vector<std::string> log_;
  HttpServer server_;  // last: its threads use the rest
};

}  // namespace kvasir::test
