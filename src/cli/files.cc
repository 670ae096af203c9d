#include "cli/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/whole_file.h"
#include "format/quote.h"

namespace kvasir {

namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ > STDERR_FILENO) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

std::string ReadTextFile(const std::string& path, std::string_view what) {
  const Descriptor file(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    Fail(errno == ENOENT ? Code::kNotFound : Code::kIo, "{}: {}: {}", what, path,
         std::strerror(errno));
  }
  std::string text;
  for (;;) {
    const size_t size = text.size();
    constexpr size_t kPiece = size_t{1} << 16;
    text.resize(size + kPiece);
    const ssize_t n = read(file.get(), text.data() + size, kPiece);
    if (n < 0 && errno != EINTR) Fail(Code::kIo, "{}: {}: {}", what, path, std::strerror(errno));
    text.resize(size + static_cast<size_t>(n > 0 ? n : 0));
    if (n == 0) return text;
    if (text.size() > kMaxTextBytes) {
      Fail(Code::kInvalid, "{}: {}: more than {} bytes of text", what, path, kMaxTextBytes);
    }
  }
}

void WriteFileWhole(const std::string& path, std::string_view bytes) {
  WholeFile file(path);
  file.Write(bytes);
  file.Commit();
}

std::vector<int32_t> ParseTokenIds(std::string_view text, const std::string& where) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  std::vector<int32_t> ids;
  for (size_t at = 0; (at = text.find_first_not_of(kSpace, at)) != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || stop != word.data() + word.size() || id < 0) {
      Fail(Code::kInvalid, "{}: {} is no token id; ids are whole numbers separated by white space",
           where, Quoted(word));
    }
    ids.push_back(id);
    at = end;
  }
  return ids;
}

void CheckTokenIds(std::span<const int32_t> ids, uint32_t vocabulary, const std::string& where) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (static_cast<uint32_t>(ids[i]) >= vocabulary) {
      Fail(Code::kInvalid, "{}: token id {} at place {} is outside the vocabulary of {}", where,
           ids[i], i + 1, vocabulary);
    }
  }
}

}  // namespace kvasir
