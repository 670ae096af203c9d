// A progress bar on standard error, when that is a terminal; otherwise nothing.
#pragma once

#include <chrono>
#include <string>

namespace kvasir {

class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();  // wipes the bar
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `fraction` in [0, 1]. Draws at most some twenty times a second.
  void Update(double fraction);
  void Clear();

 private:
  std::string label_;
  bool enabled_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace kvasir
