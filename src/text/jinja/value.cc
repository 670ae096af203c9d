#include "text/jinja/value.h"

#include <algorithm>
#include <type_traits>

#include "text/jinja/strings.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

int DepthAbove(int child_depth) {
  if (child_depth >= kMaxValueDepth) {
    Fail(Code::kInvalid, "chat template: values nest deeper than {}", kMaxValueDepth);
  }
  return child_depth + 1;
}

}  // namespace

Value Value::Of(List list) {
  int depth = 0;
  for (const Value& item : list.items) depth = std::max(depth, item.depth());
  list.depth = DepthAbove(depth);
  return Data(std::make_shared<const List>(std::move(list)));
}

Value Value::Of(Dict dict) {
  int depth = 0;
  for (const auto& [key, value] : dict.items) depth = std::max(depth, value.depth());
  dict.depth = DepthAbove(depth);
  return Data(std::make_shared<const Dict>(std::move(dict)));
}

int64_t Value::AsInt() const {
  const bool* flag = std::get_if<bool>(&data_);
  return flag != nullptr ? (*flag ? 1 : 0) : std::get<int64_t>(data_);
}

double Value::AsDouble() const {
  const double* number = std::get_if<double>(&data_);
  return number != nullptr ? *number : static_cast<double>(AsInt());
}

int Value::depth() const {
  if (const List* l = list()) return l->depth;
  if (const Dict* d = dict()) return d->depth;
  return 0;
}

void Dict::Set(std::string key, Value value) {
  const auto [at, is_new] = index.emplace(key, items.size());
  if (is_new) {
    items.emplace_back(std::move(key), std::move(value));
  } else {
    items[at->second].second = std::move(value);
  }
}

const Value* Dict::Find(const std::string& key) const {
  const auto found = index.find(key);
  return found == index.end() ? nullptr : &items[found->second].second;
}

bool Truthy(const Value& value) {
  if (value.IsNumber()) return value.AsDouble() != 0;
  if (const std::string* s = value.string()) return !s->empty();
  if (const List* l = value.list()) {
    return l->kind == List::Kind::kGenerator || !l->items.empty();
  }
  if (const Dict* d = value.dict()) return !d->items.empty();
  return !value.IsUndefined() && !value.IsNone();
}

std::string_view TypeName(const Value& value) {
  constexpr std::string_view kNames[] = {
      "undefined", "NoneType", "bool",        "int",      "float",  "str", "list",  "dict",
      "Namespace", "Macro",    "LoopContext", "function", "Markup", "int", "method"};
  constexpr std::string_view kLists[] = {"list", "tuple", "range", "dict view", "generator"};
  const List* list = value.list();
  return list != nullptr ? kLists[static_cast<size_t>(list->kind)] : kNames[value.data().index()];
}

namespace {

// Of values of one type that are compared by what they are, not by what they hold.
bool SameObject(const Value& a, const Value& b) {
  return std::visit(
      [&]<typename T>(const T& x) {
        const T& y = std::get<T>(b.data());
        if constexpr (std::is_same_v<T, BigInt>) {
          return *x.digits == *y.digits;
        } else if constexpr (std::is_same_v<T, MethodPtr>) {
          return x->callable == y->callable && x->self.data().index() == y->self.data().index();
        } else if constexpr (std::is_pointer_v<T> || std::is_same_v<T, Builtin> ||
                             std::is_same_v<T, LoopPtr>) {
          return x == y;
        } else {
          return true;  // undefined, none
        }
      },
      a.data());
}

// Order of whole numbers of which at least one lies beyond 64 bits.
bool LessBig(const Value& a, const Value& b) {
  const auto digits = [](const Value& v) {
    return v.Is<BigInt>() ? *std::get<BigInt>(v.data()).digits : fmt::format("{}", v.AsInt());
  };
  const std::string left = digits(a), right = digits(b);
  const bool below = left[0] == '-', other_below = right[0] == '-';
  if (below != other_below) return below;
  const bool smaller = left.size() != right.size() ? left.size() < right.size() : left < right;
  return below ? left != right && !smaller : smaller;
}

bool IsWhole(const Value& value) { return value.IsInt() || value.Is<BigInt>(); }

}  // namespace

bool Equal(const Value& a, const Value& b, Meter& meter) {
  meter.Steps(1);
  if (a.IsInt() && b.IsInt()) return a.AsInt() == b.AsInt();
  if (a.IsNumber() && b.IsNumber()) return a.AsDouble() == b.AsDouble();
  if (a.string() != nullptr && b.string() != nullptr) {
    meter.Steps(a.string()->size() / 4096);
    return *a.string() == *b.string();
  }
  if (a.data().index() != b.data().index()) return false;
  if (const List* left = a.list()) {
    const List* right = b.list();
    if (left == right) return true;
    return left->kind == right->kind && left->has_subscripts() &&
           std::equal(left->items.begin(), left->items.end(), right->items.begin(),
                      right->items.end(),
                      [&](const Value& x, const Value& y) { return Equal(x, y, meter); });
  }
  if (const Dict* left = a.dict()) {
    const Dict* right = b.dict();
    if (left == right) return true;
    return left->items.size() == right->items.size() &&
           std::ranges::all_of(left->items, [&](const auto& item) {
             const Value* other = right->Find(item.first);
             return other != nullptr && Equal(item.second, *other, meter);
           });
  }
  return SameObject(a, b);
}

bool Less(const Value& a, const Value& b, Meter& meter) {
  meter.Steps(1);
  if (a.IsInt() && b.IsInt()) return a.AsInt() < b.AsInt();
  if (a.IsNumber() && b.IsNumber()) return a.AsDouble() < b.AsDouble();
  if (IsWhole(a) && IsWhole(b)) return LessBig(a, b);
  if (a.string() != nullptr && b.string() != nullptr) {
    // UTF-8 sorts as its code points do.
    meter.Steps(a.string()->size() / 4096);
    return *a.string() < *b.string();
  }
  const List* left = a.list();
  const List* right = b.list();
  if (left == nullptr || right == nullptr || left->kind != right->kind || !left->has_text()) {
    meter.Refuse("{} and {} have no order", TypeName(a), TypeName(b));
  }
  const size_t common = std::min(left->items.size(), right->items.size());
  for (size_t i = 0; i < common; ++i) {
    if (!Equal(left->items[i], right->items[i], meter)) {
      return Less(left->items[i], right->items[i], meter);
    }
  }
  return left->items.size() < right->items.size();
}

std::vector<Value> Elements(const Value& value, Meter& meter) {
  std::vector<Value> elements;
  if (const List* list = value.list()) {
    if (list->kind == List::Kind::kGenerator) {
      elements.assign(list->items.begin() + static_cast<ptrdiff_t>(list->taken), list->items.end());
      list->taken = list->items.size();
    } else {
      elements = list->items;
    }
  } else if (const Dict* dict = value.dict()) {
    for (const auto& [key, unused] : dict->items) elements.push_back(MakeString(key, meter));
  } else if (const std::string* text = value.string()) {
    for (size_t at = 0; at < text->size();) {
      const size_t length = Utf8UnitLength(std::string_view(*text).substr(at));
      elements.push_back(MakeString(text->substr(at, length), meter));
      at += length;
    }
  } else if (!value.IsUndefined()) {
    meter.Refuse("{} is not iterable", TypeName(value));
  }
  meter.Steps(elements.size());
  meter.Bytes(elements.size() * sizeof(Value));
  return elements;
}

std::vector<Value> Pairs(const Dict& dict, Meter& meter) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict.items) {
    pairs.push_back(MakeList({MakeString(key, meter), value}, meter, List::Kind::kTuple));
  }
  return pairs;
}

int64_t Length(const Value& value, Meter& meter) {
  const List* list = value.list();
  if (list != nullptr && list->kind != List::Kind::kGenerator) {
    return static_cast<int64_t>(list->items.size());
  }
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->items.size());
  if (const std::string* text = value.string()) {
    meter.Steps(text->size() / 64);
    return static_cast<int64_t>(CountUnits(*text));
  }
  if (!value.IsUndefined()) meter.Refuse("{} has no length", TypeName(value));
  return 0;
}

bool Contains(const Value& container, const Value& item, Meter& meter) {
  if (const std::string* text = container.string()) {
    const std::string* part = item.string();
    if (part == nullptr) meter.Refuse("\"in\" a string wants a string, not {}", TypeName(item));
    return Find(*text, *part, 0, meter) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (item.list() != nullptr || item.dict() != nullptr) {
      meter.Refuse("{} cannot be a key", TypeName(item));
    }
    return item.string() != nullptr && dict->Find(*item.string()) != nullptr;
  }
  if (const List* list = container.list()) {
    const auto same = [&](const Value& other) { return Equal(item, other, meter); };
    if (list->kind != List::Kind::kGenerator) return std::ranges::any_of(list->items, same);
    while (list->taken < list->items.size()) {
      if (same(list->items[list->taken++])) return true;
    }
    return false;
  }
  if (!container.IsUndefined()) meter.Refuse("\"in\" wants a list, not {}", TypeName(container));
  return false;
}

Value MakeString(std::string text, Meter& meter) {
  // A string takes its bytes and about 64 of bookkeeping, which many short ones must pay for.
  meter.Bytes(text.size() + 64);
  return Value::Of(std::move(text));
}

Value MakeMarkup(std::string text, Meter& meter) {
  meter.Bytes(text.size() + 64);
  return Value::Data(Markup{std::make_shared<const std::string>(std::move(text))});
}

Value MakeString(std::string text, const Value& like, Meter& meter) {
  return like.Is<Markup>() ? MakeMarkup(std::move(text), meter)
                           : MakeString(std::move(text), meter);
}

Value MakeList(std::vector<Value> items, Meter& meter, List::Kind kind) {
  meter.Steps(items.size());
  meter.Bytes(items.size() * sizeof(Value) + 64);
  return Value::Of(List{.items = std::move(items), .kind = kind});
}

}  // namespace kvasir::jinja
