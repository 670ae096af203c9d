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
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <new>
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
constexpr std::chrono::seconds kEnding{1};
constexpr int kReapMs = 1000;
constexpr int kRestMs = 10;

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
    Worker(HttpFd fd, double write_seconds, const HttpStopSignal& stop)
        : channel(std::move(fd), write_seconds, stop) {}
    HttpSocketChannel channel;
    bool given_up = false;
    std::thread thread;
  };
  using Workers = std::list<Worker>;

  void Accept() noexcept {
    while (!stop_.raised()) {
      pollfd fds[] = {{listener_->fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
      ::poll(fds, 2, kReapMs);
      Reap();
      if ((fds[0].revents & POLLIN) == 0 || stop_.raised()) continue;
      try {
        AcceptOne();
      } catch (const std::bad_alloc&) {
        // That connection is closed; the next may find memory again.
        Rest();
      }
    }
  }

  void AcceptOne() {
    std::string remote;
    HttpFd fd = listener_->Accept(&remote);
    if (fd.get() >= 0) {
      starved_ = false;
      if (!Place(&fd, remote)) Refuse(std::move(fd), remote);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      if (!starved_) LogWarning("cannot accept connections: {}", std::strerror(errno));
      starved_ = true;
      {
        const std::lock_guard lock(mutex_);
        GiveUpOne();
      }
      Rest();
    }
  }

  // Without memory or descriptors trying again at once would only take the processor too.
  void Rest() {
    pollfd wait{stop_.fd(), POLLIN, 0};
    ::poll(&wait, 1, kRestMs);
  }

  // Takes fd over if there is a place for it.
  bool Place(HttpFd* fd, const std::string& remote) {
    std::unique_lock lock(mutex_);
    const size_t most = options_.limits.connections;
    if (live_.size() - given_up_ >= most && !GiveUpOne()) return false;
    // Those given up end by themselves; accepting faster than they do would only pile up threads.
    const bool room = ended_one_.wait_for(lock, kEnding,
                                          [&] { return live_.size() < most + kEndingConnections; });
    return room && StartWorker(fd, remote);
  }

  // With mutex_. False, and fd still the caller's, if there is no thread for it.
  bool StartWorker(HttpFd* fd, const std::string& remote) {
    Workers made;
    made.emplace_back(std::move(*fd), options_.limits.write_seconds, stop_);
    const auto worker = made.begin();
    try {
      // It starts while mutex_ is held here, and needs it to end.
      worker->thread =
          std::thread([this, worker, remote]() mutable { Run(worker, std::move(remote)); });
    } catch (const std::system_error& error) {
      LogWarning("cannot start a connection's thread: {}", error.what());
      *fd = worker->channel.TakeFd();
      return false;
    }
    live_.splice(live_.end(), made);
    return true;
  }

  void Run(Workers::iterator worker, std::string remote) noexcept {
    HttpConnection(service_, worker->channel, std::move(remote)).Serve();
    worker->channel.Finish();
    const std::lock_guard lock(mutex_);
    worker->channel.Close();
    if (worker->given_up) --given_up_;
    ended_.splice(ended_.end(), live_, worker);
    ended_one_.notify_all();
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
  void Refuse(const HttpFd fd, const std::string& remote) {
    std::array<char, 4096> ignored;
    // Unread input would turn the closing into a reset.
    (void)::recv(fd.get(), ignored.data(), ignored.size(), MSG_DONTWAIT);
    (void)::send(fd.get(), kFull.data(), kFull.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(fd.get(), SHUT_WR);
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
  bool starved_ = false;  // of descriptors; accepting_'s, so that it is logged once

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
