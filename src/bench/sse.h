// Server-sent events out of bytes as they come: the parsing rules of the HTML standard,
// section 9.2.6.
//
// Lines may end in LF, CR or CRLF, and any piece may end anywhere, inside a CRLF too. Comments and
// unknown fields are skipped; an event without data is none.
//
// Errors   kCorrupt: an event of more than kMaxEventBytes.
// Cost     Each byte is copied once; what is kept is one unfinished event.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace kvasir::bench {

struct SseEvent {
  std::string type;  // of an "event:" line; empty: a plain message
  std::string data;  // data lines, joined by newlines
};

class SseParser {
 public:
  static constexpr size_t kMaxEventBytes = size_t{16} << 20;

  explicit SseParser(std::function<void(const SseEvent&)> take) : take_(std::move(take)) {}

  void Feed(std::string_view bytes);
  // The stream has ended: hands out an event that only lacks its last empty line, as some servers
  // leave it.
  void Finish();

 private:
  void EndLine();
  void EndEvent();

  std::function<void(const SseEvent&)> take_;
  std::string line_;
  SseEvent event_;
  bool has_data_ = false;
  bool after_cr_ = false;
  bool first_line_ = true;
};

}  // namespace kvasir::bench
