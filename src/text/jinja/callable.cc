#include "text/jinja/callable.h"

#include <algorithm>
#include <iterator>

#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

void RefuseUndefined(const Value& object, std::string_view wanted, const Meter& meter) {
  const auto* undefined = std::get_if<Undefined>(&object.data());
  if (undefined == nullptr) return;
  meter.Refuse("{} is undefined, so it has no \"{}\"",
               undefined->what == nullptr ? "a value" : *undefined->what, wanted);
}

Value UndefinedOf(const std::string& name) {
  return Value::Data(Undefined{std::make_shared<const std::string>("\"" + name + "\"")});
}

Value LoopAttribute(const Loop& loop, const std::string& name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto size = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::Of(index + 1);
  if (name == "index0") return Value::Of(index);
  if (name == "revindex") return Value::Of(size - index);
  if (name == "revindex0") return Value::Of(size - index - 1);
  if (name == "first") return Value::Of(index == 0);
  if (name == "last") return Value::Of(index + 1 == size);
  if (name == "length") return Value::Of(size);
  if (name == "depth") return Value::Of(loop.depth0 + 1);
  if (name == "depth0") return Value::Of(loop.depth0);
  if (name == "previtem" && index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && index + 1 < size) return loop.items[loop.index + 1];
  return UndefinedOf(name);
}

Value Named(const Value& object, const std::string& name, const Meter& meter) {
  RefuseUndefined(object, name, meter);
  if (object.loop() != nullptr) return LoopAttribute(*object.loop(), name);
  if (const List* list = object.list(); list != nullptr && list->is_group) {
    if (name == "grouper") return list->items[0];
    if (name == "list") return list->items[1];
  }
  const Value* found = nullptr;
  if (object.Is<Namespace*>()) {
    const auto& values = std::get<Namespace*>(object.data())->values;
    const auto at = values.find(name);
    if (at != values.end()) found = &at->second;
  } else if (const Dict* dict = object.dict()) {
    found = dict->Find(name);
  }
  return found == nullptr ? UndefinedOf(name) : *found;
}

}  // namespace

Bound::Bound(const Callable& callable, Arguments arguments, Meter& meter) : callable_(callable) {
  if (callable.parameters == "*") {
    all_ = std::move(arguments);
    return;
  }
  std::vector<std::string_view> names = Words(callable.parameters);
  if (arguments.positional.size() > names.size()) {
    meter.Refuse("{} takes at most {} arguments", callable.name, names.size());
  }
  values_.resize(names.size());
  std::ranges::move(arguments.positional, values_.begin());
  for (auto& [name, value] : arguments.named) {
    const auto found = std::ranges::find_if(names, [&](std::string_view parameter) {
      return parameter == name ||
             (parameter.ends_with('?') && parameter.substr(0, parameter.size() - 1) == name);
    });
    const auto at = static_cast<size_t>(found - names.begin());
    if (at == names.size() || values_[at].has_value()) {
      meter.Refuse("{} takes no argument \"{}\" here", callable.name, name);
    }
    values_[at] = std::move(value);
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (!values_[i].has_value() && !names[i].ends_with('?')) {
      meter.Refuse("{} lacks the argument \"{}\"", callable.name, names[i]);
    }
  }
}

const std::string* Bound::Text(size_t i, Meter& meter) const {
  if (!Has(i) || values_[i]->IsNone()) return nullptr;
  if (values_[i]->string() == nullptr) {
    meter.Refuse("{} wants a string, not {}", callable_.name, TypeName(*values_[i]));
  }
  return values_[i]->string();
}

int64_t Bound::Int(size_t i, int64_t otherwise, Meter& meter) const {
  if (!Has(i) || values_[i]->IsNone()) return otherwise;
  if (!values_[i]->IsInt()) {
    meter.Refuse("{} wants an integer, not {}", callable_.name, TypeName(*values_[i]));
  }
  return values_[i]->AsInt();
}

bool Bound::Flag(size_t i, bool otherwise) const {
  return Has(i) ? Truthy(*values_[i]) : otherwise;
}

Value Call(const Callable& callable, const Value& self, Arguments arguments, Meter& meter) {
  meter.Steps(1);
  return callable.function(self, Bound(callable, std::move(arguments), meter), meter);
}

Value Attribute(const Value& object, const std::string& name, Meter& meter) {
  if (IsMethodOf(object, name)) {
    meter.Bytes(sizeof(BoundMethod));
    return Value::Data(
        MethodPtr(std::make_shared<BoundMethod>(BoundMethod{FindMethod(name), object})));
  }
  return Named(object, name, meter);
}

Value Item(const Value& object, const Value& key, Meter& meter) {
  if (const std::string* name = key.string()) {
    Value found = Named(object, *name, meter);
    return found.IsUndefined() ? Attribute(object, *name, meter) : found;
  }
  RefuseUndefined(object, "[...]", meter);
  if (!key.IsInt()) return UndefinedOf("[...]");
  const int64_t i = key.AsInt();
  if (const List* list = object.list(); list != nullptr && list->has_subscripts()) {
    const auto size = static_cast<int64_t>(list->items.size());
    const int64_t at = i < 0 ? i + size : i;
    if (at >= 0 && at < size) return list->items[static_cast<size_t>(at)];
  } else if (const std::string* text = object.string()) {
    const int64_t size = Length(object, meter);
    const int64_t at = i < 0 ? i + size : i;
    if (at >= 0 && at < size) {
      std::string_view rest = *text;
      for (int64_t skip = 0; skip < at; ++skip) rest.remove_prefix(Utf8UnitLength(rest));
      return MakeString(std::string(rest.substr(0, Utf8UnitLength(rest))), object, meter);
    }
  }
  return UndefinedOf(fmt::format("[{}]", i));
}

}  // namespace kvasir::jinja
