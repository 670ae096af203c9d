#include "kv/plan.h"

#include <charconv>

#include "base/error.h"

namespace kvasir {

namespace {

// One line, read from left to right; every failure names the line.
class LineReader {
 public:
  LineReader(std::string_view line, size_t number) : line_(line), rest_(line), number_(number) {}

  bool AtEnd() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
    return rest_.empty();
  }
  bool Skip(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void Expect(std::string_view word) {
    if (!Skip(word)) Refuse("expected");
  }
  uint32_t Number() {
    uint32_t value = 0;
    const char* const begin = rest_.data();
    const auto [end, error] = std::from_chars(begin, begin + rest_.size(), value);
    if (error != std::errc{}) Refuse("expected a number below 2^32 in");
    rest_.remove_prefix(static_cast<size_t>(end - begin));
    return value;
  }
  [[noreturn]] void Refuse(std::string_view what) const {
    Fail(Code::kInvalid,
         "plan line {}: {} \"drop layer=L head=H|all: ascending indices\" or \"protect: BEGIN "
         "END\", "
         "got \"{}\"",
         number_, what, line_);
  }

 private:
  std::string_view line_, rest_;
  size_t number_;
};

DropOp ReadDrop(LineReader& line) {
  DropOp op;
  op.layer = line.Number();
  line.Expect(" head=");
  if (!line.Skip("all")) {
    const uint32_t head = line.Number();
    if (head > INT32_MAX) line.Refuse("a head below 2^31 in");
    op.head = static_cast<int32_t>(head);
  }
  line.Expect(":");
  while (!line.AtEnd()) {
    const uint32_t index = line.Number();
    if (!op.indices.empty() && index <= op.indices.back()) line.Refuse("expected");
    op.indices.push_back(index);
  }
  return op;
}

ProtectOp ReadProtect(LineReader& line) {
  ProtectOp op;
  line.Expect(" ");
  op.begin = line.Number();
  line.Expect(" ");
  op.end = line.Number();
  if (op.begin >= op.end || !line.AtEnd()) line.Refuse("expected BEGIN < END in");
  return op;
}

}  // namespace

void Plan::Clear() {
  drops.clear();
  protects.clear();
}

std::string Plan::ToText() const {
  std::string text;
  for (const DropOp& op : drops) {
    const std::string head = op.head == kAllHeads ? "all" : fmt::format("{}", op.head);
    text += fmt::format("drop layer={} head={}:", op.layer, head);
    for (const uint32_t index : op.indices) text += fmt::format(" {}", index);
    text += '\n';
  }
  for (const ProtectOp& op : protects) text += fmt::format("protect: {} {}\n", op.begin, op.end);
  return text;
}

Plan Plan::FromText(std::string_view text) {
  Plan plan;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t length = std::min(text.find('\n'), text.size());
    LineReader line(text.substr(0, length), number);
    text.remove_prefix(std::min(length + 1, text.size()));
    if (line.AtEnd()) continue;
    if (line.Skip("drop layer=")) {
      plan.drops.push_back(ReadDrop(line));
    } else if (line.Skip("protect:")) {
      plan.protects.push_back(ReadProtect(line));
    } else {
      line.Refuse("expected");
    }
  }
  return plan;
}

}  // namespace kvasir
