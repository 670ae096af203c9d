// Sockets: a listener, and a connection's channel over one.
//
// Every wait of a channel also waits for the server's stop signal, an event that stays raised. No
// call raises SIGPIPE. Sockets are non-blocking and close on exec.
//
// Threads  A channel's Read and Write belong to its connection's thread; GiveUp, waiting_since and
//          stopping are for the thread that accepts.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "server/http_head.h"

namespace kvasir {

class HttpFd {  // owner of a file descriptor
 public:
  explicit HttpFd(int fd = -1) : fd_(fd) {}
  HttpFd(HttpFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  HttpFd& operator=(HttpFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~HttpFd() { Close(); }
  int get() const { return fd_; }
  void Close();

 private:
  int fd_;
};

// An event that, once raised, wakes every present and future wait.
class HttpStopSignal {
 public:
  HttpStopSignal();
  void Raise();
  bool raised() const { return raised_; }
  int fd() const { return event_.get(); }

 private:
  HttpFd event_;
  std::atomic<bool> raised_ = false;
};

class HttpListener {
 public:
  // "127.0.0.1", "::1", a name, "0.0.0.0" and "::" for all addresses, or "unix:/path". Errors: kIo
  // naming host and port.
  HttpListener(const std::string& host, uint16_t port);
  ~HttpListener();
  HttpListener(const HttpListener&) = delete;
  HttpListener& operator=(const HttpListener&) = delete;

  int fd() const { return fd_.get(); }
  uint16_t port() const { return port_; }  // 0 for a path
  // The next waiting connection and its other end's address, or none and errno.
  HttpFd Accept(std::string* remote) const;

 private:
  void BindPath(const std::string& path);
  void BindAddress(const std::string& host, uint16_t port);

  HttpFd fd_;
  uint16_t port_ = 0;
  std::string path_;  // of a socket in the file system
};

class HttpSocketChannel final : public HttpChannel {
 public:
  HttpSocketChannel(HttpFd fd, double write_seconds, const HttpStopSignal& stop);

  Got Read(char* into, size_t room, size_t* count, Clock::time_point until) override;
  bool Write(std::string_view bytes) override;
  // End of file counts: a client that closes looks like one that closes its sending half, until
  // something is written to it. Plain replies are sent to both.
  bool gone() const override;
  bool stopping() const override { return stop_.raised(); }
  bool StartWork() override;
  void EndWork() override;

  // Since when it is the client's turn, in nanoseconds of the steady clock; else 0 or less.
  int64_t waiting_since() const { return waiting_since_; }
  // Ends the connection if it is the client's turn.
  bool GiveUp();
  // Ends it in order: what was sent arrives although input is left, which the kernel would
  // otherwise answer with a reset.
  void Finish();
  void Close() { fd_.Close(); }
  HttpFd TakeFd() { return std::move(fd_); }

 private:
  bool WriteSome(std::string_view bytes);

  HttpFd fd_;
  double write_seconds_;
  const HttpStopSignal& stop_;
  std::atomic<int64_t> waiting_since_;
};

}  // namespace kvasir
