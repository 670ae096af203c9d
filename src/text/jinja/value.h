// Values of a template: Python's, as far as templates meet them.
//
// Invariants  Lists and dicts never change once made (the sandbox forbids it in jinja2 too), so
//             values form no cycles; how deep they nest is bounded, so recursion over them is
//             safe. What changes: how far a generator was read, and namespaces and loops, which
//             belong to the renderer.
// Threads     A rendering and its values live on one thread; the constants of a parsed template
//             are shared and hold no generator.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace kvasir::jinja {

struct Limits {
  uint64_t steps = 10'000'000;    // expressions and statements evaluated, elements touched
  uint64_t bytes = 256ull << 20;  // of strings and lists made, output included
};

// What a rendering may still spend, and where it is. Errors: kInvalid when a limit is passed.
class Meter {
 public:
  explicit Meter(const Limits& limits) : steps_(limits.steps), bytes_(limits.bytes) {}

  void Steps(uint64_t n) { Take(n, &steps_, "steps"); }
  void Bytes(uint64_t n) { Take(n, &bytes_, "bytes"); }
  int line = 0;

  // The template did something that Python refuses.
  template <typename... Args>
  [[noreturn]] void Refuse(fmt::format_string<Args...> format, Args&&... args) const {
    Fail(Code::kInvalid, "chat template, line {}: {}", line,
         fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  void Take(uint64_t n, uint64_t* left, const char* what) {
    if (n > *left) Refuse("rendering takes more {} than are allowed", what);
    *left -= n;
  }
  uint64_t steps_, bytes_;
};

inline constexpr int kMaxValueDepth = 200;

class Value;
struct Macro;
struct Namespace;
struct Loop;
struct BoundMethod;

struct Undefined {
  std::shared_ptr<const std::string> what;  // for messages; may be null
};
struct None {};
struct List;
struct Dict;
enum class Builtin { kRange, kDict, kNamespace, kRaiseException, kStrftimeNow };

using StringPtr = std::shared_ptr<const std::string>;
// Text that | safe or | escape vouches for: "+" escapes what it is joined with.
struct Markup {
  StringPtr text;
};
// An integer beyond 64 bits, as its digits: it can be printed and compared, not reckoned with.
struct BigInt {
  StringPtr digits;
};
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;
using LoopPtr = std::shared_ptr<const Loop>;
using MethodPtr = std::shared_ptr<const BoundMethod>;

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, StringPtr, ListPtr, DictPtr,
                            Namespace*, const Macro*, LoopPtr, Builtin, Markup, BigInt, MethodPtr>;

  Value() = default;  // undefined
  Value(Data data) : data_(std::move(data)) {}
  static Value Of(std::string text) {
    return Data(std::make_shared<const std::string>(std::move(text)));
  }
  static Value Of(bool b) { return Data(b); }
  static Value Of(int64_t i) { return Data(i); }
  static Value Of(double d) { return Data(d); }
  static Value NoneValue() { return Data(None{}); }
  // Errors: kInvalid when it would nest deeper than kMaxValueDepth.
  static Value Of(List list);
  static Value Of(Dict dict);

  const Data& data() const { return data_; }
  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(data_);
  }
  bool IsUndefined() const { return Is<Undefined>(); }
  bool IsNone() const { return Is<None>(); }
  // Null unless the value is one.
  const std::string* string() const {
    const Markup* markup = std::get_if<Markup>(&data_);
    return markup != nullptr ? markup->text.get() : Pointee<StringPtr>();
  }
  const List* list() const { return Pointee<ListPtr>(); }
  const Dict* dict() const { return Pointee<DictPtr>(); }
  const Loop* loop() const { return Pointee<LoopPtr>(); }
  const BoundMethod* method() const { return Pointee<MethodPtr>(); }
  // Python's int, which bool is one of; null for other values.
  bool IsInt() const { return Is<int64_t>() || Is<bool>(); }
  int64_t AsInt() const;  // of an int
  bool IsNumber() const { return IsInt() || Is<double>(); }
  bool IsCallable() const {
    return Is<const Macro*>() || Is<LoopPtr>() || Is<Builtin>() || Is<MethodPtr>();
  }
  double AsDouble() const;  // of a number

  int depth() const;  // 0 for scalars

 private:
  template <typename P>
  const typename P::element_type* Pointee() const {
    const P* pointer = std::get_if<P>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }
  Data data_;
};

struct List {
  // Python's sequences differ in what they allow besides iteration: a generator (what map and
  // select return) has no length, is always true, and is used up by an iteration; a view
  // (dict.items()) has no subscripts; neither they nor ranges become text or JSON.
  enum class Kind { kList, kTuple, kRange, kView, kGenerator };

  bool has_subscripts() const { return kind <= Kind::kRange; }
  bool has_text() const { return kind <= Kind::kTuple; }

  std::vector<Value> items;
  Kind kind = Kind::kList;
  bool is_group = false;  // of groupby: a tuple whose parts have the names grouper and list
  int depth = 1;
  mutable size_t taken = 0;  // of a generator, which belongs to one rendering
};

// Keys in the order in which they came; a repeated key keeps its place and takes the new value.
struct Dict {
  std::vector<std::pair<std::string, Value>> items;
  std::unordered_map<std::string, size_t> index;
  int depth = 1;

  void Set(std::string key, Value value);
  const Value* Find(const std::string& key) const;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> values;
};

// x.items without a call.
struct Callable;
struct BoundMethod {
  const Callable* callable = nullptr;  // null: one that this subset cannot call
  Value self;
};

struct Stmt;
struct Scope;
// The variable "loop". Once the loop has ended it only tells where it ended.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int64_t depth0 = 0;
  const Stmt* stmt = nullptr;          // null when over
  Scope* scope = nullptr;              // around the loop
  mutable std::vector<Value> changed;  // what "changed" saw last
};

bool Truthy(const Value& value);
std::string_view TypeName(const Value& value);  // Python's name of the type

// Both charge for what they look at.
bool Equal(const Value& a, const Value& b, Meter& meter);
bool Less(const Value& a, const Value& b, Meter& meter);

// The elements of a list, keys of a dict, characters of a string; none of an undefined value.
// Errors: kInvalid for what Python does not iterate over.
std::vector<Value> Elements(const Value& value, Meter& meter);
// The keys and values of a dict as tuples.
std::vector<Value> Pairs(const Dict& dict, Meter& meter);
// Python's len(). Errors: kInvalid.
int64_t Length(const Value& value, Meter& meter);
bool Contains(const Value& container, const Value& item, Meter& meter);
Value MakeString(std::string text, Meter& meter);
// A string of the kind that `like` is: Markup stays Markup.
Value MakeString(std::string text, const Value& like, Meter& meter);
Value MakeMarkup(std::string text, Meter& meter);
Value MakeList(std::vector<Value> items, Meter& meter, List::Kind kind = List::Kind::kList);

}  // namespace kvasir::jinja
