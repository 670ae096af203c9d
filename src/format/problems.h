// What is wrong with a file: thrown at once where the file is to be used, kept where it is looked
// at.
#pragma once

#include <utility>
#include <vector>

#include "base/error.h"

namespace kvasir {

class Problems {
 public:
  // Null: the first one is thrown.
  explicit Problems(std::vector<Error>* kept) : kept_(kept) {}

  void Add(Error error) {
    if (kept_ == nullptr) throw error;
    if (!full()) kept_->push_back(std::move(error));
  }
  template <typename... Args>
  void Add(Code code, fmt::format_string<Args...> format, Args&&... args) {
    Add(Error(code, fmt::format(format, std::forward<Args>(args)...)));
  }
  // Runs `step` and keeps what it throws.
  template <typename F>
  void Try(F&& step) {
    try {
      step();
    } catch (const Error& error) {
      Add(error);
    }
  }
  // Enough for people to see what a file is like; hostile files could have millions.
  bool full() const { return kept_ != nullptr && kept_->size() >= kMost; }
  std::vector<Error>* kept() const { return kept_; }

 private:
  static constexpr size_t kMost = 100;
  std::vector<Error>* kept_;
};

}  // namespace kvasir
