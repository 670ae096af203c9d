// Filters that choose and map.
#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "text/jinja/filters.h"

namespace kvasir::jinja {

namespace {

Value Default(const Value& self, const Bound& arguments, Meter& meter) {
  const bool replaced = self.IsUndefined() || (arguments.Flag(1, false) && !Truthy(self));
  if (!replaced) return self;
  return arguments.Has(0) ? arguments[0] : MakeString("", meter);
}

// attr(name): an attribute, which the keys of a dict are not.
Value Attr(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string* name = arguments.Text(0, meter);
  if (name == nullptr) meter.Refuse("attr wants a name");
  return self.dict() != nullptr && !IsMethodOf(self, *name) ? Value()
                                                            : Attribute(self, *name, meter);
}

const Value* Named(const Arguments& arguments, std::string_view name) {
  for (const auto& [key, value] : arguments.named) {
    if (key == name) return &value;
  }
  return nullptr;
}

// The callable that the argument at `at` names, and the arguments after it.
const Callable& Lookup(const Arguments& all, size_t at, const Callable* (*find)(std::string_view),
                       std::string_view what, Arguments* rest, Meter& meter) {
  const std::string* name = all.positional[at].string();
  const Callable* callable = name == nullptr ? nullptr : find(*name);
  if (callable == nullptr) {
    Fail(Code::kUnsupported, "chat template, line {}: the {} \"{}\"", meter.line, what,
         name == nullptr ? TypeName(all.positional[at]) : *name);
  }
  rest->positional.assign(all.positional.begin() + static_cast<ptrdiff_t>(at) + 1,
                          all.positional.end());
  rest->named = all.named;
  return *callable;
}

// map(attribute="a.b"[, default=x]) or map("filter", arguments...)
Value Map(const Value& self, const Bound& bound, Meter& meter) {
  if (!Truthy(self)) return Generator({}, meter);
  const Arguments& all = bound.all();
  const Value* path = Named(all, "attribute");
  const Value* otherwise = Named(all, "default");
  std::vector<Value> results;
  if (path != nullptr) {
    for (const auto& [name, value] : all.named) {
      if (name != "attribute" && name != "default") meter.Refuse("map: the argument \"{}\"", name);
    }
    for (const Value& element : Elements(self, meter)) {
      results.push_back(AtPath(element, *path, otherwise, meter));
    }
  } else if (!all.positional.empty()) {
    Arguments rest;
    const Callable& filter = Lookup(all, 0, FindFilter, "filter", &rest, meter);
    for (const Value& element : Elements(self, meter)) {
      results.push_back(Call(filter, element, rest, meter));
    }
  } else {
    meter.Refuse("map wants a filter or an attribute");
  }
  return Generator(std::move(results), meter);
}

// Elements for which a test holds (`wanted`) or fails: of themselves, or of an attribute.
Value Sieve(const Value& self, const Bound& bound, bool by_attribute, bool wanted, Meter& meter) {
  if (!Truthy(self)) return Generator({}, meter);
  const Arguments& all = bound.all();
  const size_t at = by_attribute ? 1 : 0;
  if (by_attribute && all.positional.empty()) meter.Refuse("selecting by attribute wants its name");
  Arguments rest;
  const Callable* test =
      all.positional.size() > at ? &Lookup(all, at, FindTest, "test", &rest, meter) : nullptr;
  std::vector<Value> kept;
  for (const Value& element : Elements(self, meter)) {
    const Value tested =
        by_attribute ? AtPath(element, all.positional[0], nullptr, meter) : element;
    const Value answer = test == nullptr ? tested : Call(*test, tested, rest, meter);
    if (Truthy(answer) == wanted) kept.push_back(element);
  }
  return Generator(std::move(kept), meter);
}
Value Select(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, false, true, meter);
}
Value Reject(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, false, false, meter);
}
Value SelectAttr(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, true, true, meter);
}
Value RejectAttr(const Value& self, const Bound& bound, Meter& meter) {
  return Sieve(self, bound, true, false, meter);
}

constexpr Callable kFilters[] = {
    {"attr", "name", Attr},
    {"d", "default_value? boolean?", Default},
    {"default", "default_value? boolean?", Default},
    {"map", "*", Map},
    {"reject", "*", Reject},
    {"rejectattr", "*", RejectAttr},
    {"select", "*", Select},
    {"selectattr", "*", SelectAttr},
};

}  // namespace

std::span<const Callable> ChoiceFilters() { return kFilters; }

}  // namespace kvasir::jinja
