#include "format/json.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/quote.h"

namespace kvasir {

namespace {

using nlohmann::json;

// Builds the value event by event, in the form the library's parser asks for.
class StrictBuilder {
 public:
  using number_integer_t = json::number_integer_t;
  using number_unsigned_t = json::number_unsigned_t;
  using number_float_t = json::number_float_t;
  using string_t = json::string_t;
  using binary_t = json::binary_t;

  StrictBuilder(const std::string& where, size_t max_values)
      : where_(where), max_values_(max_values) {}
  json Take() { return std::move(root_); }

  bool null() { return Add(nullptr); }
  bool boolean(bool value) { return Add(value); }
  bool number_integer(number_integer_t value) { return Add(value); }
  bool number_unsigned(number_unsigned_t value) { return Add(value); }
  bool number_float(number_float_t value, const string_t&) { return Add(value); }
  bool string(string_t& value) { return Add(std::move(value)); }
  bool binary(binary_t&) { return false; }  // no event of JSON text

  bool start_object(size_t) { return Open(json::object()); }
  bool end_object() { return Close(); }
  bool start_array(size_t) { return Open(json::array()); }
  bool end_array() { return Close(); }
  bool key(string_t& name) {
    const auto [place, fresh] = open_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!fresh) {
      Fail(Code::kCorrupt, "{}: the key {} occurs twice in one object", where_, Quoted(name));
    }
    next_ = &place->second;
    return true;
  }
  bool parse_error(size_t position, const std::string& last_token, const json::exception&) {
    Fail(Code::kCorrupt, "{}: no valid JSON at byte {}, near {}", where_, position,
         Quoted(last_token));
  }

 private:
  // Where the next value belongs: the root, the end of the open array, or the key just read.
  template <typename T>
  json* Place(T&& value) {
    if (++n_values_ > max_values_) {
      Fail(Code::kCorrupt, "{}: JSON of more than {} values", where_, max_values_);
    }
    if (open_.empty()) {
      root_ = std::forward<T>(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<json::array_t&>();
      return &array.emplace_back(std::forward<T>(value));
    }
    *next_ = std::forward<T>(value);
    return next_;
  }
  template <typename T>
  bool Add(T&& value) {
    Place(std::forward<T>(value));
    return true;
  }
  bool Open(json&& value) {
    if (open_.size() == kMaxJsonDepth) {
      Fail(Code::kCorrupt, "{}: JSON nested deeper than {} levels", where_, kMaxJsonDepth);
    }
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  const std::string& where_;
  json root_;
  size_t max_values_;
  size_t n_values_ = 0;
  std::vector<json*> open_;  // an array's elements move only while the array itself is the last
  json* next_ = nullptr;
};

}  // namespace

json ParseJson(std::string_view text, const std::string& where, size_t max_values) {
  StrictBuilder builder(where, max_values);
  const bool complete = json::sax_parse(text.begin(), text.end(), &builder);
  CHECK(complete);  // a refusal has thrown
  return builder.Take();
}

}  // namespace kvasir
