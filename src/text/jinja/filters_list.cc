// Filters that order, part and add up.
#include <algorithm>
#include <numeric>

#include "text/jinja/arithmetic.h"
#include "text/jinja/filters.h"
#include "text/jinja/strings.h"

namespace kvasir::jinja {

namespace {

Value First(const Value& self, const Bound&, Meter& meter) {
  if (const List* list = self.list()) {
    if (list->taken >= list->items.size()) return Value();
    return list->items[IsGenerator(self) ? list->taken++ : 0];
  }
  const std::vector<Value> elements = Elements(self, meter);
  return elements.empty() ? Value() : elements.front();
}
Value Last(const Value& self, const Bound&, Meter& meter) {
  if (IsGenerator(self)) meter.Refuse("a generator cannot be read from its end");
  const List* list = self.list();
  if (list != nullptr && !list->items.empty()) return list->items.back();
  const std::vector<Value> elements = Elements(self, meter);
  return elements.empty() ? Value() : elements.back();
}
Value Items(const Value& self, const Bound&, Meter& meter) {
  if (self.IsUndefined()) return Generator({}, meter);
  if (self.dict() == nullptr) meter.Refuse("items wants a mapping, not {}", TypeName(self));
  return Generator(Pairs(*self.dict(), meter), meter);
}
Value ListFilter(const Value& self, const Bound&, Meter& meter) {
  return MakeList(Elements(self, meter), meter);
}
Value Reverse(const Value& self, const Bound&, Meter& meter) {
  const bool was_generator = IsGenerator(self);
  std::vector<Value> elements = Elements(self, meter);
  std::ranges::reverse(elements);
  if (was_generator) return MakeList(std::move(elements), meter);
  if (self.string() == nullptr) return Generator(std::move(elements), meter);
  std::string text;
  for (const Value& element : elements) text += *element.string();
  return MakeString(std::move(text), self, meter);
}

// `elements` by their keys; what compares equal keeps its order, also backwards.
std::vector<Value> Sorted(const std::vector<Value>& elements, const std::vector<Value>& keys,
                          bool backwards, Meter& meter) {
  std::vector<size_t> order(elements.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return backwards ? Less(keys[b], keys[a], meter) : Less(keys[a], keys[b], meter);
  });
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(elements[i]);
  return sorted;
}

// sort(reverse, case_sensitive, attribute): several attributes are separated by commas.
Value Sort(const Value& self, const Bound& arguments, Meter& meter) {
  const bool case_sensitive = arguments.Flag(1, false);
  const std::string* paths = arguments.Has(2) ? arguments[2].string() : nullptr;
  std::vector<Value> parts;
  if (paths != nullptr) {
    const std::string comma(1, ',');
    for (const std::string_view part : Split(*paths, &comma, -1, meter)) {
      parts.push_back(MakeString(std::string(part), meter));
    }
  } else {
    parts.push_back(arguments.Has(2) ? arguments[2] : Value::NoneValue());
  }
  const std::vector<Value> elements = Elements(self, meter);
  std::vector<Value> keys;
  for (const Value& element : elements) {
    std::vector<Value> key;
    for (const Value& part : parts) {
      key.push_back(SortKey(element, &part, case_sensitive, meter));
    }
    keys.push_back(parts.size() == 1 ? std::move(key[0]) : MakeList(std::move(key), meter));
  }
  return MakeList(Sorted(elements, keys, arguments.Flag(0, false), meter), meter);
}

// dictsort(case_sensitive, by, reverse): the pairs of a dict.
Value DictSort(const Value& self, const Bound& arguments, Meter& meter) {
  if (self.dict() == nullptr) meter.Refuse("dictsort wants a mapping, not {}", TypeName(self));
  const std::string* given = arguments.Text(1, meter);
  const std::string by = given == nullptr ? "key" : *given;
  if (by != "key" && by != "value") meter.Refuse("dictsort: by key or by value");
  std::vector<Value> keys;
  for (const auto& [name, value] : self.dict()->items) {
    keys.push_back(SortKey(by == "key" ? MakeString(name, meter) : value, nullptr,
                           arguments.Flag(0, false), meter));
  }
  return MakeList(Sorted(Pairs(*self.dict(), meter), keys, arguments.Flag(2, false), meter), meter);
}

Value Extreme(const Value& self, const Bound& arguments, bool greatest, Meter& meter) {
  const Value* path = arguments.Has(1) ? &arguments[1] : nullptr;
  Value best, best_key;
  bool first = true;
  for (const Value& element : Elements(self, meter)) {
    Value key = SortKey(element, path, arguments.Flag(0, false), meter);
    if (first || (greatest ? Less(best_key, key, meter) : Less(key, best_key, meter))) {
      best = element;
      best_key = std::move(key);
    }
    first = false;
  }
  return best;
}
Value Min(const Value& self, const Bound& arguments, Meter& meter) {
  return Extreme(self, arguments, /*greatest=*/false, meter);
}
Value Max(const Value& self, const Bound& arguments, Meter& meter) {
  return Extreme(self, arguments, /*greatest=*/true, meter);
}

Value Sum(const Value& self, const Bound& arguments, Meter& meter) {
  const bool by_path = arguments.Has(0) && !arguments[0].IsNone();
  Value sum = arguments.Has(1) ? arguments[1] : Value::Of(int64_t{0});
  if (sum.string() != nullptr) meter.Refuse("sum does not join strings");
  for (const Value& element : Elements(self, meter)) {
    sum = Combine(Op::kAdd, sum, by_path ? AtPath(element, arguments[0], nullptr, meter) : element,
                  meter);
  }
  return sum;
}

Value Unique(const Value& self, const Bound& arguments, Meter& meter) {
  const Value* path = arguments.Has(1) ? &arguments[1] : nullptr;
  std::vector<Value> kept, keys;
  for (const Value& element : Elements(self, meter)) {
    Value key = SortKey(element, path, arguments.Flag(0, false), meter);
    if (key.dict() != nullptr || (key.list() != nullptr && key.list()->kind == List::Kind::kList)) {
      meter.Refuse("unique: {} cannot be told apart", TypeName(key));
    }
    const auto same = [&](const Value& other) { return Equal(key, other, meter); };
    if (std::ranges::any_of(keys, same)) continue;
    keys.push_back(std::move(key));
    kept.push_back(element);
  }
  return Generator(std::move(kept), meter);
}

// groupby(attribute, default, case_sensitive): (key, elements) in the order of the keys.
Value GroupBy(const Value& self, const Bound& arguments, Meter& meter) {
  const Value* otherwise = arguments.Has(1) ? &arguments[1] : nullptr;
  const bool case_sensitive = arguments.Flag(2, false);
  const std::vector<Value> elements = Elements(self, meter);
  std::vector<Value> keys;
  const auto key_of = [&](const Value& element) {
    return AtPath(element, arguments[0], otherwise, meter);
  };
  for (const Value& element : elements) {
    keys.push_back(SortKey(key_of(element), nullptr, case_sensitive, meter));
  }
  std::vector<Value> groups, members;
  Value last;
  const auto finish = [&] {
    if (members.empty()) return;
    // The first member's key, in its own case.
    List group{.items = {key_of(members[0]), MakeList(members, meter)},
               .kind = List::Kind::kTuple,
               .is_group = true};
    meter.Bytes(2 * sizeof(Value) + 64);
    groups.push_back(Value::Of(std::move(group)));
    members.clear();
  };
  for (const Value& element : Sorted(elements, keys, false, meter)) {
    Value key = SortKey(key_of(element), nullptr, case_sensitive, meter);
    if (!members.empty() && !Equal(key, last, meter)) finish();
    last = std::move(key);
    members.push_back(element);
  }
  finish();
  return MakeList(std::move(groups), meter);
}

// Lists of `n` elements each; the last one is filled up.
Value Batch(const Value& self, const Bound& arguments, Meter& meter) {
  const int64_t n = arguments.Int(0, 0, meter);
  const bool fills = arguments.Has(1) && !arguments[1].IsNone();
  std::vector<Value> batches, batch;
  for (const Value& element : Elements(self, meter)) {
    if (static_cast<int64_t>(batch.size()) == n) {
      batches.push_back(MakeList(std::exchange(batch, {}), meter));
    }
    batch.push_back(element);
  }
  if (!batch.empty()) {
    while (fills && static_cast<int64_t>(batch.size()) < n) {
      meter.Steps(1);
      meter.Bytes(sizeof(Value));
      batch.push_back(arguments[1]);
    }
    batches.push_back(MakeList(std::move(batch), meter));
  }
  return Generator(std::move(batches), meter);
}

// `n` lists of nearly the same length; shorter ones are filled up.
Value SliceFilter(const Value& self, const Bound& arguments, Meter& meter) {
  const int64_t n = arguments.Int(0, 0, meter);
  const bool fills = arguments.Has(1) && !arguments[1].IsNone();
  const std::vector<Value> elements = Elements(self, meter);
  if (n == 0) meter.Refuse("division by zero");
  std::vector<Value> slices;
  size_t at = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto longer = static_cast<int64_t>(elements.size()) % n;
    const size_t length = elements.size() / static_cast<size_t>(n) + (i < longer ? 1 : 0);
    const auto begin = elements.begin() + static_cast<ptrdiff_t>(at);
    std::vector<Value> slice(begin, begin + static_cast<ptrdiff_t>(length));
    at += length;
    if (fills && i >= longer) slice.push_back(arguments[1]);
    meter.Bytes(sizeof(Value));
    slices.push_back(MakeList(std::move(slice), meter));
  }
  return Generator(std::move(slices), meter);
}

constexpr Callable kFilters[] = {
    {"batch", "linecount fill_with?", Batch},
    {"dictsort", "case_sensitive? by? reverse?", DictSort},
    {"first", "", First},
    {"groupby", "attribute default? case_sensitive?", GroupBy},
    {"items", "", Items},
    {"last", "", Last},
    {"list", "", ListFilter},
    {"max", "case_sensitive? attribute?", Max},
    {"min", "case_sensitive? attribute?", Min},
    {"reverse", "", Reverse},
    {"slice", "slices fill_with?", SliceFilter},
    {"sort", "reverse? case_sensitive? attribute?", Sort},
    {"sum", "attribute? start?", Sum},
    {"unique", "case_sensitive? attribute?", Unique},
};

}  // namespace

std::span<const Callable> ListFilters() { return kFilters; }

}  // namespace kvasir::jinja
