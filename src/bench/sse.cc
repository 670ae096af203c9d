#include "bench/sse.h"

#include "base/error.h"

namespace kvasir::bench {

void SseParser::Feed(std::string_view bytes) {
  while (!bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') bytes.remove_prefix(1);
      continue;
    }
    const size_t end = bytes.find_first_of("\r\n");
    line_.append(bytes.substr(0, end));
    if (line_.size() + event_.data.size() > kMaxEventBytes) {
      Fail(Code::kCorrupt, "event stream: an event of more than {} bytes", kMaxEventBytes);
    }
    if (end == std::string_view::npos) return;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    EndLine();
  }
}

void SseParser::EndLine() {
  std::string_view line = line_;
  if (first_line_ && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  first_line_ = false;
  if (line.empty()) {
    EndEvent();
  } else {
    const size_t colon = line.find(':');
    const std::string_view field = line.substr(0, colon);
    std::string_view value =
        colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "data") {
      if (has_data_) event_.data += '\n';
      event_.data += value;
      has_data_ = true;
    } else if (field == "event") {
      event_.type = value;
    } else if (field == "error") {  // llama.cpp before 2025 wrote errors as a field of their own
      event_.type = "error";
      event_.data += value;
      has_data_ = true;
    }
  }
  line_.clear();
}

void SseParser::EndEvent() {
  if (has_data_) take_(event_);
  event_ = {};
  has_data_ = false;
}

void SseParser::Finish() {
  if (!line_.empty()) EndLine();
  EndEvent();
}

}  // namespace kvasir::bench
