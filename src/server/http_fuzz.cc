// One connection's bytes: whatever they are, handlers see only requests that keep the promises of
// http.h, and every answer is HTTP.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "server/http_connection.h"

namespace {

using namespace kvasir;

constexpr std::string_view kKey = "fuzz-key-0123456789";

// A client that sends its bytes in pieces and then closes or falls silent.
class MemoryChannel final : public HttpChannel {
 public:
  MemoryChannel(std::string_view bytes, size_t piece, bool silent)
      : bytes_(bytes), piece_(piece), silent_(silent) {}
  Got Read(char* into, size_t room, size_t* count, Clock::time_point) override {
    if (bytes_.empty()) return silent_ ? Got::kLate : Got::kEnd;
    *count = std::min({room, piece_, bytes_.size()});
    std::memcpy(into, bytes_.data(), *count);
    bytes_.remove_prefix(*count);
    return Got::kBytes;
  }
  bool Write(std::string_view bytes) override {
    written.append(bytes);
    return true;
  }
  bool gone() const override { return false; }
  bool stopping() const override { return false; }
  bool StartWork() override { return true; }
  void EndWork() override {}

  std::string written;

 private:
  std::string_view bytes_;
  size_t piece_;
  bool silent_;
};

HttpReply CheckedEcho(const HttpRequest& request) {
  CHECK(request.body.size() <= 64);
  CHECK(request.remote == "fuzz");
  HttpReply reply;
  reply.body = request.method;
  return reply;
}

HttpReply Streamed(const HttpRequest&) {
  HttpReply reply;
  reply.stream = [](HttpStream& stream) { stream.Write("part"); };
  return reply;
}

const HttpService& Service() {
  static const HttpService service = [] {
    SetLogLevel(LogLevel::kError);
    HttpOptions options;
    options.api_keys = {std::string(kKey)};
    options.cors_origins = {"https://a.example"};
    options.limits.body_bytes = 64;
    options.limits.header_bytes = 512;
    options.limits.header_lines = 8;
    options.limits.request_line_bytes = 64;
    return HttpService(options,
                       {{"GET", "/s", HttpAccess::kOpen, Streamed},
                        {"POST", "/p", HttpAccess::kOpen, CheckedEcho},
                        {"POST", "/k", HttpAccess::kKey, CheckedEcho},
                        {"GET", "/admin", HttpAccess::kAdmin,
                         [](const HttpRequest&) -> HttpReply {
                           CheckFailed(__FILE__, __LINE__, "no admin route without admin keys");
                         }}},
                       [](const HttpLogLine& line) {
                         CHECK(line.status >= 200 && line.status <= 599);
                         CHECK(line.status == 200 || line.status >= 400);
                       });
  }();
  return service;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = data[0] % 16 == 0 ? size : data[0] % 16;
  MemoryChannel channel(bytes, piece, data[0] >= 128);
  HttpConnection(Service(), channel, "fuzz").Serve();
  CHECK(channel.written.empty() || channel.written.starts_with("HTTP/1.1 "));
  return 0;
}
