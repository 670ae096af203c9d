#include "server/http_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

namespace kvasir {

namespace {

using Clock = HttpChannel::Clock;

constexpr std::string_view kUnixPrefix = "unix:";
constexpr double kFinishSeconds = 1;      // how long leftovers of a client are taken
constexpr size_t kWriteSlice = 64 << 10;  // what a client has to take within write_seconds

Clock::duration Seconds(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Milliseconds for poll, rounded up so that it does not spin at the end.
int PollMs(Clock::time_point until) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
}

bool Interrupted() { return errno == EINTR; }
bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK; }

void SetOption(int fd, int level, int option) {
  const int on = 1;
  ::setsockopt(fd, level, option, &on, sizeof(on));
}

std::string AddressText(const sockaddr_storage& address, socklen_t size) {
  if (address.ss_family == AF_UNIX) return "unix";
  std::array<char, NI_MAXHOST> text{};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, text.data(), text.size(),
                    nullptr, 0, NI_NUMERICHOST) != 0) {
    return "unknown";
  }
  const std::string_view host(text.data());
  constexpr std::string_view kMapped = "::ffff:";  // IPv4 on a socket for both
  return std::string(host.starts_with(kMapped) ? host.substr(kMapped.size()) : host);
}

}  // namespace

void HttpFd::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

HttpStopSignal::HttpStopSignal() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (event_.get() < 0) Fail(Code::kIo, "eventfd: {}", std::strerror(errno));
}

void HttpStopSignal::Raise() {
  raised_ = true;
  const uint64_t one = 1;
  CHECK(::write(event_.get(), &one, sizeof(one)) == sizeof(one));
}

HttpListener::HttpListener(const std::string& host, uint16_t port) {
  if (host.starts_with(kUnixPrefix)) {
    BindPath(host.substr(kUnixPrefix.size()));
  } else {
    BindAddress(host, port);
  }
  if (::listen(fd_.get(), SOMAXCONN) != 0) {
    Fail(Code::kIo, "{}:{}: cannot listen: {}", host, port, std::strerror(errno));
  }
}

HttpListener::~HttpListener() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

void HttpListener::BindPath(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    Fail(Code::kUsage, "unix:{}: a socket's path has 1 to {} bytes", path,
         sizeof(address.sun_path) - 1);
  }
  path.copy(address.sun_path, path.size());
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  // A socket nobody listens on is what a killed server left behind.
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) {
    const HttpFd probe(::socket(AF_UNIX, type, 0));
    if (::connect(probe.get(), name, sizeof(address)) != 0 && errno == ECONNREFUSED) {
      ::unlink(path.c_str());
    }
  }
  fd_ = HttpFd(::socket(AF_UNIX, type, 0));
  if (fd_.get() < 0 || ::bind(fd_.get(), name, sizeof(address)) != 0) {
    Fail(Code::kIo, "unix:{}: cannot bind: {}", path, std::strerror(errno));
  }
  path_ = path;
  // Nobody can connect before listen, so the mode is there in time.
  if (::chmod(path.c_str(), 0600) != 0) {
    Fail(Code::kIo, "unix:{}: cannot set its mode: {}", path, std::strerror(errno));
  }
}

void HttpListener::BindAddress(const std::string& host, uint16_t port) {
  std::string name = host;
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  // One socket has one address: the one clients try first when they are told "localhost".
  if (name == "localhost") name = "127.0.0.1";
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) Fail(Code::kIo, "{}:{}: {}", host, port, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
    HttpFd fd(::socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd.get() < 0) continue;
    SetOption(fd.get(), SOL_SOCKET, SO_REUSEADDR);
    if (::bind(fd.get(), info->ai_addr, info->ai_addrlen) != 0) continue;
    sockaddr_storage bound{};
    socklen_t size = sizeof(bound);
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    port_ =
        ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port
                                          : reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
    fd_ = std::move(fd);
    return;
  }
  Fail(Code::kIo, "{}:{}: cannot bind: {}", host, port, std::strerror(errno));
}

HttpFd HttpListener::Accept(std::string* remote) const {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  HttpFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size,
                      SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.get() >= 0) *remote = AddressText(address, size);
  return fd;
}

HttpSocketChannel::HttpSocketChannel(HttpFd fd, double write_seconds, const HttpStopSignal& stop)
    : fd_(std::move(fd)), write_seconds_(write_seconds), stop_(stop) {
  EndWork();
  SetOption(fd_.get(), IPPROTO_TCP, TCP_NODELAY);  // a token is sent when it is there
  SetOption(fd_.get(), SOL_SOCKET, SO_KEEPALIVE);
}

HttpChannel::Got HttpSocketChannel::Read(char* into, size_t room, size_t* count,
                                         Clock::time_point until) {
  for (;;) {
    // First, since bytes that trickle in must not stretch the time there is for all of them.
    if (Clock::now() >= until) return Got::kLate;
    const ssize_t got = ::recv(fd_.get(), into, room, 0);
    if (got > 0) {
      *count = static_cast<size_t>(got);
      return Got::kBytes;
    }
    if (got == 0 || (!WouldBlock() && !Interrupted())) return Got::kEnd;
    pollfd fds[] = {{fd_.get(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
    ::poll(fds, 2, PollMs(until));
    if (stop_.raised()) return Got::kStopped;
  }
}

bool HttpSocketChannel::WriteSome(std::string_view bytes) {
  const Clock::time_point until = Clock::now() + Seconds(write_seconds_);
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    if (Interrupted()) continue;
    if (!WouldBlock()) return false;
    pollfd fds{fd_.get(), POLLOUT, 0};
    ::poll(&fds, 1, PollMs(until));
    if (Clock::now() >= until) return false;
  }
  return true;
}

bool HttpSocketChannel::Write(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size(); at += kWriteSlice) {
    if (!WriteSome(bytes.substr(at, kWriteSlice))) return false;
  }
  return true;
}

bool HttpSocketChannel::gone() const {
  pollfd fds{fd_.get(), POLLRDHUP, 0};
  return ::poll(&fds, 1, 0) > 0 && (fds.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

bool HttpSocketChannel::StartWork() {
  int64_t since = waiting_since_;
  return since == 0 || (since > 0 && waiting_since_.compare_exchange_strong(since, 0));
}

void HttpSocketChannel::EndWork() {
  waiting_since_ =
      std::max<int64_t>(1, std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
}

bool HttpSocketChannel::GiveUp() {
  int64_t since = waiting_since_;
  if (since <= 0 || !waiting_since_.compare_exchange_strong(since, -1)) return false;
  ::shutdown(fd_.get(), SHUT_RDWR);
  return true;
}

void HttpSocketChannel::Finish() {
  if (waiting_since_ == 0) EndWork();
  ::shutdown(fd_.get(), SHUT_WR);
  const Clock::time_point until = Clock::now() + Seconds(kFinishSeconds);
  std::array<char, 16 << 10> bytes;
  size_t count = 0;
  while (Read(bytes.data(), bytes.size(), &count, until) == Got::kBytes) {
  }
}

}  // namespace kvasir
