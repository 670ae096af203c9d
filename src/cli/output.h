// Where a verb's result goes: standard output, or a file that appears whole or not at all.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "cli/options.h"

namespace kvasir {

class Output {
 public:
  explicit Output(const Arguments& args);

  bool json() const { return json_; }
  // Whether text may go out piece by piece (plain text on standard output).
  bool streams() const { return !json_ && path_.empty(); }

  // Now, and visible at once. Errors: kIo.
  void Stream(std::string_view text);
  // The one document of --json.
  void Json(const nlohmann::ordered_json& document);
  // Text for people.
  void Text(std::string_view text);

 private:
  void Write(std::string_view bytes);
  bool json_;
  std::string path_;  // empty: standard output
};

// A line on standard error, with the program's name before it.
void Note(const std::string& line);

}  // namespace kvasir
