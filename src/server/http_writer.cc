#include "server/http_writer.h"

#include <httplib.h>

#include <algorithm>
#include <exception>

#include "base/log.h"

namespace kvasir {

namespace {

// Chunks on their way to a client.
class SinkStream final : public HttpStream {
 public:
  SinkStream(HttpChannel& channel, httplib::DataSink& sink) : channel_(channel), sink_(sink) {}
  bool Write(std::string_view bytes) override {
    // An empty chunk would end the body.
    if (!failed_ && !bytes.empty()) {
      failed_ = channel_.gone() || !sink_.write(bytes.data(), bytes.size());
    }
    return !failed_;
  }
  bool gone() const override { return failed_ || channel_.gone(); }
  bool failed() const { return failed_; }

 private:
  HttpChannel& channel_;
  httplib::DataSink& sink_;
  bool failed_ = false;
};

// One exchange as cpp-httplib sees it: a server without a socket, on a stream that gives it the
// head written here and takes what it answers.
class Exchange final : private httplib::Server, private httplib::Stream {
 public:
  Exchange(HttpChannel& channel, const HttpAnswer& answer) : channel_(channel), answer_(answer) {
    head_ = fmt::format("{} / HTTP/1.{}\r\n{}\r\n", answer.method == "HEAD" ? "HEAD" : "GET",
                        answer.http10 ? 0 : 1,
                        answer.close    ? "Connection: close\r\n"
                        : answer.http10 ? "Connection: Keep-Alive\r\n"
                                        : "");
    // It streams only while it has a listening socket; never used as one.
    svr_sock_ = 0;
    set_keep_alive_timeout(static_cast<time_t>(answer.idle_seconds));
    set_keep_alive_max_count(answer.requests_left);
    set_pre_routing_handler([this](const httplib::Request&, httplib::Response& response) {
      FillIn(response);
      return HandlerResponse::Handled;
    });
  }

  bool Run() {
    bool closed = false;
    return process_request(*this, answer_.close, closed, nullptr) && !failed_;
  }

 private:
  void FillIn(httplib::Response& response) {
    HttpReply& reply = *answer_.reply;
    response.status = reply.status;
    for (const auto& [name, value] : reply.headers) response.set_header(name, value);
    if (!reply.stream) {
      response.body = std::move(reply.body);
      if (!response.body.empty()) response.set_header("Content-Type", reply.content_type);
      return;
    }
    response.set_header("Cache-Control", "no-store");
    response.set_header("X-Accel-Buffering", "no");
    auto provider = [this](size_t, httplib::DataSink& sink) { return Provide(sink); };
    if (answer_.http10) {
      response.set_content_provider(reply.content_type, provider);
    } else {
      response.set_chunked_content_provider(reply.content_type, provider);
    }
  }

  // The whole stream in one call. A stream that fails is cut off: without its last chunk the client
  // knows that it is not whole.
  bool Provide(httplib::DataSink& sink) {
    SinkStream stream(channel_, sink);
    try {
      answer_.reply->stream(stream);
    } catch (const std::exception& error) {
      LogWarning("a reply's stream was cut off: {}", error.what());
      failed_ = true;
    } catch (...) {
      LogWarning("a reply's stream was cut off");
      failed_ = true;
    }
    failed_ = failed_ || stream.failed();
    if (!failed_) sink.done();
    return !failed_;
  }

  bool is_readable() const override { return at_ < head_.size(); }
  bool is_writable() const override { return !failed_; }
  ssize_t read(char* into, size_t room) override {
    const size_t count = head_.copy(into, room, at_);
    at_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* bytes, size_t count) override {
    failed_ = failed_ || !channel_.Write({bytes, count});
    return failed_ ? -1 : static_cast<ssize_t>(count);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override { ip.clear(), port = 0; }
  void get_local_ip_and_port(std::string& ip, int& port) const override { ip.clear(), port = 0; }
  socket_t socket() const override { return 0; }

  HttpChannel& channel_;
  const HttpAnswer& answer_;
  std::string head_;
  size_t at_ = 0;
  bool failed_ = false;
};

bool IsPrintableLine(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}
bool IsHeaderName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  });
}

}  // namespace

bool IsWritable(const HttpReply& reply) {
  if (reply.status < 200 || reply.status > 599) return false;
  if (reply.content_type.empty() || !IsPrintableLine(reply.content_type)) return false;
  return std::all_of(reply.headers.begin(), reply.headers.end(), [](const auto& header) {
    return IsHeaderName(header.first) && IsPrintableLine(header.second);
  });
}

bool WriteHttpAnswer(HttpChannel& channel, const HttpAnswer& answer) {
  return Exchange(channel, answer).Run();
}

}  // namespace kvasir
