#include <sys/stat.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/whole_file.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/setup.h"
#include "cli/verbs.h"

namespace kvasir {

namespace {

// The whole of an input: a regular file is mapped, so that it may be larger than memory; what comes
// through a pipe is read first.
class Input {
 public:
  Input(const std::string& path, std::string_view what) {
    struct stat status;
    if (path != "-" && ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
      file_ = MappedFile(path);
    } else {
      text_ = ReadTextFile(path, what);
    }
  }
  std::string_view text() const {
    if (file_.path().empty()) return text_;
    return {reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size()};
  }

 private:
  MappedFile file_;
  std::string text_;
};

// A result that goes out in parts: to standard output, or to a file that appears whole in the end.
class Parts {
 public:
  Parts(const Arguments& args, Output* output) : output_(output) {
    if (args.Given("output")) file_.emplace(args.values().Text("output"));
  }
  void Write(std::string_view bytes) {
    if (file_) {
      file_->Write(bytes);
    } else {
      output_->Stream(bytes);
    }
  }
  void Finish() {
    if (file_) file_->Commit();
  }

 private:
  Output* output_;
  std::optional<WholeFile> file_;
};

void WriteIds(const Arguments& args, const Tokenizer& tokenizer, std::string_view text) {
  Output output(args);
  Parts parts(args, &output);
  parts.Write(output.json() ? "{\"tokens\":[" : "");
  const char* separator = "";
  const auto write = [&](std::span<const TokenId> ids) {
    parts.Write(separator);
    parts.Write(fmt::to_string(fmt::join(ids, output.json() ? "," : " ")));
    separator = output.json() ? "," : " ";
  };
  if (tokenizer.add_bos() && tokenizer.bos() != kNoToken) write(std::array{tokenizer.bos()});
  tokenizer.EncodeTo(text, args.values().On("special"), write);
  parts.Write(output.json() ? "]}\n" : "\n");
  parts.Finish();
}

// Calls `use` with some ten thousand ids at a time.
void ReadIds(std::string_view text, const std::string& where,
             const std::function<void(std::span<const TokenId>)>& use) {
  constexpr size_t kPart = size_t{1} << 16;
  while (!text.empty()) {
    const size_t cut =
        text.size() <= kPart ? text.size() : text.find_first_of(" \t\r\n\v\f", kPart);
    use(ParseTokenIds(text.substr(0, cut), where));
    text.remove_prefix(std::min(cut, text.size()));
  }
}

void WriteText(const Arguments& args, const Tokenizer& tokenizer) {
  const std::string path = args.values().Text("ids");
  const Input input(path, "--ids");
  const bool special = args.values().On("special");
  Output output(args);
  bool at_start = true;
  if (output.json()) {
    std::string text;
    ReadIds(input.text(), path, [&](std::span<const TokenId> ids) {
      text += tokenizer.Decode(ids, special, std::exchange(at_start, false));
    });
    const nlohmann::ordered_json document = {{"text", text}};
    return output.Json(document);
  }
  // A wrong id is found before anything is printed.
  ReadIds(input.text(), path, [&](std::span<const TokenId> ids) {
    for (const TokenId id : ids) tokenizer.Piece(id, special);
  });
  Parts parts(args, &output);
  ReadIds(input.text(), path, [&](std::span<const TokenId> ids) {
    parts.Write(tokenizer.Decode(ids, special, std::exchange(at_start, false)));
  });
  parts.Finish();
}

}  // namespace

void TokenizeVerb(const Arguments& args) {
  if (args.Given("prompt") + args.Given("file") + args.Given("ids") != 1) {
    Fail(Code::kUsage, "tokenize: give one of -p TEXT, -f FILE and --ids FILE");
  }
  // Files that hold a vocabulary and no model serve too.
  const std::unique_ptr<Tokenizer> tokenizer = OpenTokenizer(ModelPath(args));
  if (args.Given("ids")) return WriteText(args, *tokenizer);
  if (args.Given("prompt")) return WriteIds(args, *tokenizer, args.values().Text("prompt"));
  const Input input(args.values().Text("file"), "--file");
  WriteIds(args, *tokenizer, input.text());
}

}  // namespace kvasir
