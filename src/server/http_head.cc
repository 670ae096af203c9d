#include "server/http_head.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace kvasir {

namespace {

constexpr std::string_view kInvalidType = "invalid_request_error";
constexpr size_t kReadBytes = 16 << 10;

[[noreturn]] void Refuse(int status, const std::string& message) {
  throw HttpRefusal(status, kInvalidType, message);
}

HttpChannel::Clock::time_point After(double seconds) {
  return HttpChannel::Clock::now() + std::chrono::duration_cast<HttpChannel::Clock::duration>(
                                         std::chrono::duration<double>(seconds));
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsTokenChar(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}
bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Looks at a head byte by byte as it comes, so that what is too much or no HTTP is refused where it
// starts and not where it ends.
class HeadScan {
 public:
  explicit HeadScan(const HttpLimits& limits) : limits_(limits) {}

  // True at the last byte of a head.
  bool Step(char c) {
    const bool after_cr = previous_ == '\r';
    previous_ = c;
    if (c == '\n') {
      if (!after_cr) Refuse(400, "the request head has a line feed without a carriage return");
      return EndLine();
    }
    if (after_cr) Refuse(400, "the request head has a carriage return without a line feed");
    if (c == '\r') return false;
    ++line_bytes_;
    lines_ == 0 ? CheckRequestLine(c) : CheckHeader(c);
    return false;
  }
  // Bytes before the request line, to be left out.
  size_t skipped() const { return skipped_; }

 private:
  bool EndLine() {
    if (line_bytes_ == 0) {
      if (lines_ > 0) return true;
      // One empty line before a request is what some clients add to the body before it.
      if (skipped_ > 0) Refuse(400, "the request starts with empty lines");
      skipped_ = 2;
      return false;
    }
    ++lines_;
    line_bytes_ = 0;
    return false;
  }
  void CheckRequestLine(char c) {
    if (c < ' ' || c > '~') Refuse(400, "the request line has bytes that are no printable ASCII");
    if (line_bytes_ > limits_.request_line_bytes) {
      Refuse(414, fmt::format("the request line is over {} bytes", limits_.request_line_bytes));
    }
  }
  void CheckHeader(char c) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < ' ' && c != '\t') || byte == 0x7f) Refuse(400, "a header has control characters");
    if (++header_bytes_ > limits_.header_bytes) {
      Refuse(431, fmt::format("the headers are over {} bytes", limits_.header_bytes));
    }
    if (lines_ > limits_.header_lines) {
      Refuse(431, fmt::format("there are over {} headers", limits_.header_lines));
    }
  }

  const HttpLimits& limits_;
  size_t lines_ = 0, line_bytes_ = 0, header_bytes_ = 0, skipped_ = 0;
  char previous_ = '\0';
};

// Cuts a line off, without its CR LF.
std::string_view TakeLineOf(std::string_view* text) {
  const size_t end = text->find("\r\n");
  CHECK(end != std::string_view::npos);
  const std::string_view line = text->substr(0, end);
  text->remove_prefix(end + 2);
  return line;
}

void ParseRequestLine(std::string_view line, HttpHead* head) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    Refuse(400, "the request line is not METHOD TARGET HTTP/1.1");
  }
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (version.size() != 8 || !version.starts_with("HTTP/") || !IsDigit(version[5]) ||
      version[6] != '.' || !IsDigit(version[7])) {
    Refuse(400, "the request line is not METHOD TARGET HTTP/1.1");
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0") Refuse(505, "only HTTP/1.1 is spoken here");
  if (!IsToken(method)) Refuse(400, "the request's method is no word");
  if (!target.starts_with('/') || target.find_first_of(" #") != std::string_view::npos) {
    Refuse(400, "the request's target is no path");
  }
  head->method = method;
  head->path = target.substr(0, target.find('?'));
  head->http10 = version == "HTTP/1.0";
}

void ParseHeaderLine(std::string_view line, HttpHead* head) {
  const size_t colon = line.find(':');
  // A blank before the colon or at the start of the line (folding) is no token either.
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) {
    Refuse(400, "a header line is not NAME: VALUE");
  }
  head->headers.emplace_back(LowerAscii(line.substr(0, colon)), Trim(line.substr(colon + 1)));
}

bool HasConnectionToken(const HttpHead& head, std::string_view wanted) {
  for (const auto& [name, value] : head.headers) {
    if (name != "connection") continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const size_t comma = std::min(rest.find(','), rest.size());
      if (LowerAscii(Trim(rest.substr(0, comma))) == wanted) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

void ParseFraming(HttpHead* head) {
  const size_t lengths = head->Count("content-length");
  const size_t codings = head->Count("transfer-encoding");
  if (lengths + codings > 1) {
    Refuse(400,
           "the body's length is given more than once: one Content-Length or one "
           "Transfer-Encoding");
  }
  if (codings == 1) {
    if (head->http10 || LowerAscii(*head->Find("transfer-encoding")) != "chunked") {
      Refuse(400, "the only Transfer-Encoding is chunked, in HTTP/1.1");
    }
    head->chunked = true;
  }
  if (lengths == 1) {
    const std::string_view text = *head->Find("content-length");
    const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), IsDigit);
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), head->content_length);
    if (!digits || error != std::errc{}) Refuse(400, "Content-Length is no number of bytes");
  }
}

}  // namespace

std::string LowerAscii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

size_t HttpHead::Count(std::string_view name) const {
  return static_cast<size_t>(std::count_if(
      headers.begin(), headers.end(), [&](const auto& header) { return header.first == name; }));
}

std::optional<std::string_view> HttpHead::Find(std::string_view name) const {
  if (Count(name) != 1) return std::nullopt;
  for (const auto& header : headers) {
    if (header.first == name) return header.second;
  }
  return std::nullopt;
}

HttpHead ParseHttpHead(std::string_view text) {
  HttpHead head;
  ParseRequestLine(TakeLineOf(&text), &head);
  for (;;) {
    const std::string_view line = TakeLineOf(&text);
    if (line.empty()) break;
    ParseHeaderLine(line, &head);
  }
  if (head.Count("host") != 1) Refuse(400, "a request has one Host header");
  ParseFraming(&head);
  if (head.Count("expect") > 0) {
    const auto expect = head.Find("expect");
    if (!expect || LowerAscii(*expect) != "100-continue") Refuse(417, "Expect is 100-continue");
    head.expects_continue = !head.http10;
  }
  head.keep_alive =
      head.http10 ? HasConnectionToken(head, "keep-alive") : !HasConnectionToken(head, "close");
  return head;
}

HttpChannel::Got HttpReader::Fill(Clock::time_point until) {
  buffer_.erase(0, at_);
  at_ = 0;
  std::array<char, kReadBytes> bytes;
  size_t count = 0;
  const HttpChannel::Got got = channel_.Read(bytes.data(), bytes.size(), &count, until);
  if (got == HttpChannel::Got::kBytes) buffer_.append(bytes.data(), count);
  return got;
}

std::optional<HttpHead> HttpReader::ReadHead(double wait_seconds) {
  HeadScan scan(limits_);
  bool started = !rest().empty();
  Clock::time_point until = After(started ? limits_.header_seconds : wait_seconds);
  for (size_t scanned = 0;;) {
    const std::string_view bytes = rest();
    while (scanned < bytes.size()) {
      if (!scan.Step(bytes[scanned++])) continue;
      at_ += scanned;
      return ParseHttpHead(bytes.substr(scan.skipped(), scanned - scan.skipped()));
    }
    const HttpChannel::Got got = Fill(until);
    if (got == HttpChannel::Got::kLate && started) {
      throw HttpRefusal(
          408, kInvalidType,
          fmt::format("the request head took over {} seconds", limits_.header_seconds));
    }
    if (got != HttpChannel::Got::kBytes) return std::nullopt;
    if (!started) until = After(limits_.header_seconds);
    started = true;
  }
}

bool HttpReader::FillBody(Clock::time_point until) {
  switch (Fill(until)) {
    case HttpChannel::Got::kBytes:
      return true;
    case HttpChannel::Got::kEnd:
      return false;
    case HttpChannel::Got::kLate:
      Refuse(408, fmt::format("the request body took over {} seconds", limits_.body_seconds));
    case HttpChannel::Got::kStopped:
      break;
  }
  throw HttpRefusal(503, "unavailable_error", "the server is stopping");
}

bool HttpReader::TakeBytes(uint64_t count, Clock::time_point until, std::string* body) {
  while (count > 0) {
    if (rest().empty() && !FillBody(until)) return false;
    const size_t now = std::min<uint64_t>(count, rest().size());
    body->append(rest().substr(0, now));
    at_ += now;
    count -= now;
  }
  return true;
}

// A line of at most `most` bytes, without its CR LF.
bool HttpReader::TakeLine(size_t most, Clock::time_point until, std::string* line) {
  line->clear();
  for (;;) {
    if (rest().empty() && !FillBody(until)) return false;
    const char c = buffer_[at_++];
    if (c == '\n' && line->ends_with('\r')) {
      line->pop_back();
      return true;
    }
    if (c == '\n' || line->ends_with('\r') || line->size() > most) {
      Refuse(400, "a line between the body's chunks is too long or does not end with CR LF");
    }
    line->push_back(c);
  }
}

bool HttpReader::ReadChunks(Clock::time_point until, std::string* body) {
  std::string line;
  for (;;) {
    if (!TakeLine(16, until, &line)) return false;
    uint64_t size = 0;
    const auto [end, error] =
        std::from_chars(line.data(), line.data() + line.size(), size, /*base=*/16);
    // from_chars takes no sign for an unsigned number, and 16 digits cannot overflow it. Chunk
    // extensions are refused: nobody sends them, and readers disagree about where they end.
    if (line.empty() || error != std::errc{} || end != line.data() + line.size()) {
      Refuse(400, "a chunk's size is no hexadecimal number");
    }
    if (size == 0) return SkipTrailers(until);
    if (size > limits_.body_bytes - body->size()) {
      Refuse(413, fmt::format("the body is over {} bytes", limits_.body_bytes));
    }
    if (!TakeBytes(size, until, body)) return false;
    if (!TakeLine(0, until, &line)) return false;
    if (!line.empty()) Refuse(400, "a chunk is longer than its size");
  }
}

// Trailers mean nothing here; they are bounded like headers and dropped.
bool HttpReader::SkipTrailers(Clock::time_point until) {
  std::string line;
  size_t bytes = 0;
  for (size_t lines = 0; lines <= limits_.header_lines; ++lines) {
    if (!TakeLine(limits_.header_bytes, until, &line)) return false;
    if (line.empty()) return true;
    bytes += line.size();
    if (bytes > limits_.header_bytes) break;
  }
  Refuse(431, "there are too many trailers");
}

std::optional<std::string> HttpReader::ReadBody(const HttpHead& head) {
  std::string body;
  if (!head.has_body()) return body;
  if (head.content_length > limits_.body_bytes) {
    Refuse(413, fmt::format("the body is over {} bytes", limits_.body_bytes));
  }
  if (head.expects_continue && !channel_.Write("HTTP/1.1 100 Continue\r\n\r\n")) {
    return std::nullopt;
  }
  const Clock::time_point until = After(limits_.body_seconds);
  const bool whole =
      head.chunked ? ReadChunks(until, &body) : TakeBytes(head.content_length, until, &body);
  if (!whole) return std::nullopt;
  return body;
}

}  // namespace kvasir
