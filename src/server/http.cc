// The server around the connections: who is accepted, who has to go, and the end.
//
// Each connection has a thread, up to limits.connections of them. A thread that waits for a client
// sleeps in poll and costs a few KiB, so idle connections slow nobody; what they could do is occupy
// all places. So a place belongs to its client only while the server works for it: when all are
// taken, the connection that has waited longest for its client is closed for the new one. Only when
// the server is at work for all of them a new one gets a 503. Nothing is queued here but what the
// kernel's backlog holds.
#include "server/http.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "base/log.h"
#include "server/http_connection.h"
#include "server/http_socket.h"

namespace kvasir {

namespace {

// Connections given up may be at their last instructions while their successors run already.
constexpr size_t kEndingConnections = 64;
constexpr int kReapMs = 1000;
constexpr int kNoFileMs = 10;  // how long to wait when the process has no descriptor left

constexpr std::string_view kFull =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    "Connection: close\r\nContent-Length: 112\r\n\r\n"
    "{\"error\":{\"message\":\"all connections are at work\",\"type\":\"unavailable_error\","
    "\"param\":null,\"code\":\"unavailable\"}}";
constexpr size_t kFullBody = kFull.size() - kFull.find("\r\n\r\n") - 4;
static_assert(kFullBody == 112);

}  // namespace

class HttpServer::Impl {
 public:
  Impl(HttpOptions options, std::vector<HttpRoute> routes,
       std::function<void(const HttpLogLine&)> log)
      : options_(std::move(options)), service_(options_, std::move(routes), std::move(log)) {}
  ~Impl() { Stop(); }

  void Start() {
    const std::lock_guard lock(life_);
    CHECK_MSG(!accepting_.joinable() && !stop_.raised(), "a server starts once");
    listener_.emplace(options_.host, options_.port);
    port_ = listener_->port();
    accepting_ = std::thread([this] { Accept(); });
  }

  uint16_t port() const { return port_; }

  void Stop() {
    const std::lock_guard lock(life_);
    if (!accepting_.joinable()) return;
    stop_.Raise();
    accepting_.join();
    listener_.reset();
    // No thread is started any more, so the list only shrinks.
    for (;;) {
      Reap();
      std::unique_lock workers(mutex_);
      if (live_.empty() && ended_.empty()) return;
      ended_one_.wait(workers, [this] { return !ended_.empty(); });
    }
  }

 private:
  struct Worker {
    Worker(int fd, double write_seconds, const HttpStopSignal& stop)
        : channel(fd, write_seconds, stop) {}
    HttpSocketChannel channel;
    bool given_up = false;
    std::thread thread;
  };
  using Workers = std::list<Worker>;

  void Accept() {
    while (!stop_.raised()) {
      pollfd fds[] = {{listener_->fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
      ::poll(fds, 2, kReapMs);
      Reap();
      if ((fds[0].revents & POLLIN) == 0 || stop_.raised()) continue;
      std::string remote;
      const int fd = listener_->Accept(&remote);
      if (fd >= 0) {
        Place(fd, std::move(remote));
      } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        LogWarning("cannot accept a connection: {}", std::strerror(errno));
        MakeRoom();
        pollfd wait{stop_.fd(), POLLIN, 0};
        ::poll(&wait, 1, kNoFileMs);
      }
    }
  }

  // Takes fd over: gives it a thread, or a 503.
  void Place(int fd, std::string remote) {
    {
      const std::lock_guard lock(mutex_);
      const size_t most = options_.limits.connections;
      const bool full = live_.size() - given_up_ >= most && !GiveUpOne();
      if (!full && live_.size() < most + kEndingConnections && StartWorker(fd, remote)) {
        return;
      }
    }
    Refuse(fd, remote);
  }

  // With mutex_. False, and fd still the caller's, if there is no thread or memory for it.
  bool StartWorker(int fd, const std::string& remote) {
    Workers made;
    try {
      made.emplace_back(fd, options_.limits.write_seconds, stop_);
    } catch (const std::bad_alloc&) {
      return false;
    }
    const auto worker = made.begin();
    try {
      // It starts with mutex_ held here, and needs it to end.
      worker->thread = std::thread([this, worker, remote] { Run(worker, remote); });
    } catch (const std::system_error& error) {
      LogWarning("cannot start a connection's thread: {}", error.what());
      worker->channel.Release();
      return false;
    }
    live_.splice(live_.end(), made);
    return true;
  }

  void Run(Workers::iterator worker, const std::string& remote) noexcept {
    HttpConnection(service_, worker->channel, remote).Serve();
    worker->channel.Finish();
    const std::lock_guard lock(mutex_);
    worker->channel.Close();
    if (worker->given_up) --given_up_;
    ended_.splice(ended_.end(), live_, worker);
    ended_one_.notify_all();
  }

  void MakeRoom() {
    const std::lock_guard lock(mutex_);
    GiveUpOne();
  }

  // With mutex_. Closes the connection that has waited longest for its client, if one does.
  bool GiveUpOne() {
    for (;;) {
      auto oldest = live_.end();
      int64_t since = 0;
      for (auto it = live_.begin(); it != live_.end(); ++it) {
        const int64_t waiting = it->channel.waiting_since();
        if (waiting <= 0 || (oldest != live_.end() && waiting >= since)) continue;
        oldest = it;
        since = waiting;
      }
      if (oldest == live_.end()) return false;
      // Its request may have become whole in between; then it is another one's turn.
      if (!oldest->channel.GiveUp()) continue;
      oldest->given_up = true;
      ++given_up_;
      return true;
    }
  }

  // Without waiting: this is the accepting thread.
  void Refuse(int fd, const std::string& remote) {
    const HttpFd owner(fd);
    std::array<char, 4096> ignored;
    // Unread input would turn the closing into a reset.
    (void)::recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT);
    (void)::send(fd, kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(fd, SHUT_WR);
    if (service_.log) service_.log({"OTHER", "", remote, 503, 0});
  }

  void Reap() {
    Workers ended;
    {
      const std::lock_guard lock(mutex_);
      ended.swap(ended_);
    }
    for (Worker& worker : ended) worker.thread.join();
  }

  const HttpOptions options_;
  const HttpService service_;
  HttpStopSignal stop_;
  std::optional<HttpListener> listener_;
  std::atomic<uint16_t> port_ = 0;

  std::mutex life_;  // Start and Stop
  std::thread accepting_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable ended_one_;
  Workers live_, ended_;
  size_t given_up_ = 0;  // of live_
};

HttpServer::HttpServer(HttpOptions options, std::vector<HttpRoute> routes,
                       std::function<void(const HttpLogLine&)> log)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(routes), std::move(log))) {}
HttpServer::~HttpServer() = default;
void HttpServer::Start() { impl_->Start(); }
uint16_t HttpServer::port() const { return impl_->port(); }
void HttpServer::Stop() { impl_->Stop(); }

}  // namespace kvasir
