#include "text/jinja/json_value.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/error.h"

namespace kvasir::jinja {

namespace {

// Builds values from the parser's events. A list or dict is made when it ends.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(const std::string& where, std::string_view text) : where_(where), text_(text) {}

  Value Take() { return std::move(result_); }

  bool null() override { return Add(Value::NoneValue()); }
  bool boolean(bool b) override { return Add(Value::Of(b)); }
  bool number_integer(number_integer_t i) override { return Add(Value::Of(int64_t{i})); }
  bool number_unsigned(number_unsigned_t u) override {
    return u <= INT64_MAX ? Add(Value::Of(static_cast<int64_t>(u))) : Big(fmt::format("{}", u));
  }
  bool number_float(number_float_t d, const string_t& text) override {
    const bool whole = text.find_first_not_of("-0123456789") == std::string::npos;
    return whole ? Big(text) : Add(Value::Of(d));
  }
  bool string(string_t& text) override { return Add(Value::Of(std::move(text))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(/*is_dict=*/true); }
  bool start_array(size_t) override { return Open(/*is_dict=*/false); }
  bool key(string_t& name) override {
    open_.back().key = std::move(name);
    return true;
  }
  bool end_object() override {
    Value dict = Value::Of(std::move(open_.back().dict));
    open_.pop_back();
    return Add(std::move(dict));
  }
  bool end_array() override {
    Value list = Value::Of(std::move(open_.back().list));
    open_.pop_back();
    return Add(std::move(list));
  }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
    Fail(Code::kCorrupt, "{}: no JSON: unexpected at byte {} of {}", where_, at, text_.size());
  }

 private:
  struct Container {
    bool is_dict = false;
    List list;
    Dict dict;
    std::string key;
  };

  bool Open(bool is_dict) {
    if (open_.size() >= kMaxValueDepth) {
      Fail(Code::kInvalid, "{}: JSON that nests deeper than {}", where_, kMaxValueDepth);
    }
    open_.emplace_back().is_dict = is_dict;
    return true;
  }
  bool Big(std::string digits) {
    return Add(Value::Data(BigInt{std::make_shared<const std::string>(std::move(digits))}));
  }
  bool Add(Value value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().is_dict) {
      open_.back().dict.Set(std::move(open_.back().key), std::move(value));
    } else {
      open_.back().list.items.push_back(std::move(value));
    }
    return true;
  }

  const std::string& where_;
  const std::string_view text_;
  std::vector<Container> open_;
  Value result_;
};

}  // namespace

Value ParseJsonValue(std::string_view text, const std::string& where) {
  Builder builder(where, text);
  if (!nlohmann::json::sax_parse(text, &builder)) Fail(Code::kCorrupt, "{}: no JSON", where);
  return builder.Take();
}

}  // namespace kvasir::jinja
