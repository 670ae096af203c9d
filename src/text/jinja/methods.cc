// The methods of strings, dicts and lists of callable.h.
#include <algorithm>
#include <array>
#include <iterator>
#include <optional>

#include "text/jinja/callable.h"
#include "text/jinja/format.h"
#include "text/jinja/print.h"
#include "text/jinja/strings.h"
#include "text/unicode_class.h"
#include "text/utf8.h"

namespace kvasir::jinja {

namespace {

const std::string& Text(const Value& self, std::string_view method, const Meter& meter) {
  if (self.string() == nullptr) meter.Refuse("{} has no method \"{}\"", TypeName(self), method);
  return *self.string();
}
const Dict& DictOf(const Value& self, std::string_view method, const Meter& meter) {
  if (self.dict() == nullptr) meter.Refuse("{} has no method \"{}\"", TypeName(self), method);
  return *self.dict();
}

// The text of `value` as it becomes a part of `whole`: escaped if that is Markup.
std::string JoinedText(const Value& whole, const Value& value, Meter& meter) {
  const std::string text = ToText(value, meter);
  return whole.Is<Markup>() && !value.Is<Markup>() ? Escape(text, meter) : text;
}

Value Stripped(const Value& self, const Bound& arguments, Side side, Meter& meter) {
  const std::string& text = Text(self, "strip", meter);
  return MakeString(std::string(Strip(text, side, arguments.Text(0, meter), meter)), self, meter);
}
Value StripMethod(const Value& self, const Bound& arguments, Meter& meter) {
  return Stripped(self, arguments, Side::kBoth, meter);
}
Value LeftStrip(const Value& self, const Bound& arguments, Meter& meter) {
  return Stripped(self, arguments, Side::kLeft, meter);
}
Value RightStrip(const Value& self, const Bound& arguments, Meter& meter) {
  return Stripped(self, arguments, Side::kRight, meter);
}

Value Strings(const std::vector<std::string_view>& parts, const Value& self, Meter& meter) {
  std::vector<Value> values;
  for (const std::string_view part : parts) {
    values.push_back(MakeString(std::string(part), self, meter));
  }
  return MakeList(std::move(values), meter);
}
Value SplitMethod(const Value& self, const Bound& arguments, Meter& meter) {
  return Strings(Split(Text(self, "split", meter), arguments.Text(0, meter),
                       arguments.Int(1, -1, meter), meter),
                 self, meter);
}
Value RightSplit(const Value& self, const Bound& arguments, Meter& meter) {
  return Strings(SplitFromRight(Text(self, "rsplit", meter), arguments.Text(0, meter),
                                arguments.Int(1, -1, meter), meter),
                 self, meter);
}
Value SplitLinesMethod(const Value& self, const Bound& arguments, Meter& meter) {
  return Strings(SplitLines(Text(self, "splitlines", meter), arguments.Flag(0, false), meter), self,
                 meter);
}

// The part of a text between the places that two arguments name, as text[begin:end] has it; absent
// when it begins behind the end of the text.
std::optional<std::string_view> Range(std::string_view text, const Bound& arguments, Meter& meter,
                                      int64_t* begin) {
  *begin = 0;
  if (!arguments.Has(1) && !arguments.Has(2)) return text;
  meter.Steps(text.size() / 64);
  const auto size = static_cast<int64_t>(CountUnits(text));
  const auto place = [&](int64_t i) { return std::max<int64_t>(i < 0 ? i + size : i, 0); };
  *begin = place(arguments.Int(1, 0, meter));
  const int64_t end = std::min(place(arguments.Int(2, size, meter)), size);
  if (*begin > size || *begin > end) return std::nullopt;
  const auto bytes = [&](int64_t units) {
    size_t at = 0;
    for (; units > 0; --units) at += Utf8UnitLength(text.substr(at));
    return at;
  };
  const size_t from = bytes(*begin);
  return text.substr(from, bytes(end) - from);
}

// Whether `fits` holds for the argument, or for one of the strings in a tuple.
template <typename F>
Value AnyOf(const Bound& arguments, Meter& meter, F&& fits) {
  const List* list = arguments[0].list();
  if (list == nullptr) {
    const std::string* text = arguments.Text(0, meter);
    if (text == nullptr) meter.Refuse("the method wants a string, not {}", TypeName(arguments[0]));
    return Value::Of(fits(*text));
  }
  for (const Value& item : list->items) {
    meter.Steps(1);
    if (item.string() == nullptr) meter.Refuse("the method wants strings, not {}", TypeName(item));
    if (fits(*item.string())) return Value::Of(true);
  }
  return Value::Of(false);
}
Value StartsWith(const Value& self, const Bound& arguments, Meter& meter) {
  int64_t begin = 0;
  const auto text = Range(Text(self, "startswith", meter), arguments, meter, &begin);
  return AnyOf(arguments, meter, [&](const std::string& part) {
    return text.has_value() && text->starts_with(part);
  });
}
Value EndsWith(const Value& self, const Bound& arguments, Meter& meter) {
  int64_t begin = 0;
  const auto text = Range(Text(self, "endswith", meter), arguments, meter, &begin);
  return AnyOf(arguments, meter,
               [&](const std::string& part) { return text.has_value() && text->ends_with(part); });
}

Value UpperMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Upper(Text(self, "upper", meter)), self, meter);
}
Value LowerMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Lower(Text(self, "lower", meter)), self, meter);
}
Value CapitalizeMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Capitalize(Text(self, "capitalize", meter)), self, meter);
}
Value TitleMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(Title(Text(self, "title", meter)), self, meter);
}
Value SwapCaseMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeString(SwapCase(Text(self, "swapcase", meter)), self, meter);
}

// Whether all characters of a text that is not empty fit.
template <typename F>
Value AllCharacters(const std::string& text, Meter& meter, F&& fits) {
  meter.Steps(text.size() / 16);
  for (std::string_view rest = text; !rest.empty();) {
    const size_t length = Utf8UnitLength(rest);
    if (!fits(DecodeUtf8Unit(rest.substr(0, length)))) return Value::Of(false);
    rest.remove_prefix(length);
  }
  return Value::Of(!text.empty());
}
Value IsAlpha(const Value& self, const Bound&, Meter& meter) {
  return AllCharacters(Text(self, "isalpha", meter), meter,
                       [](uint32_t c) { return InUnicodeClass(c, UnicodeClass::kLetter); });
}
Value IsAlnum(const Value& self, const Bound&, Meter& meter) {
  return AllCharacters(Text(self, "isalnum", meter), meter,
                       [](uint32_t c) { return InUnicodeClass(c, UnicodeClass::kAlphanumeric); });
}
Value IsNumeric(const Value& self, const Bound&, Meter& meter) {
  return AllCharacters(Text(self, "isnumeric", meter), meter, [](uint32_t c) {
    return InUnicodeClass(c, UnicodeClass::kAlphanumeric) &&
           !InUnicodeClass(c, UnicodeClass::kLetter);
  });
}
Value IsSpace(const Value& self, const Bound&, Meter& meter) {
  return AllCharacters(Text(self, "isspace", meter), meter, IsUnicodeSpace);
}
Value IsUpperMethod(const Value& self, const Bound&, Meter& meter) {
  return Value::Of(IsUpper(Text(self, "isupper", meter)));
}
Value IsLowerMethod(const Value& self, const Bound&, Meter& meter) {
  return Value::Of(IsLower(Text(self, "islower", meter)));
}

// The one character that ljust and its like fill with.
std::string Fill(const Bound& arguments, Meter& meter) {
  const std::string* fill = arguments.Text(1, meter);
  if (fill != nullptr && CountUnits(*fill) != 1) meter.Refuse("one character to fill with");
  return fill == nullptr ? " " : *fill;
}
Value Justified(const Value& self, const Bound& arguments, bool left, Meter& meter) {
  const std::string& text = Text(self, left ? "ljust" : "rjust", meter);
  const std::string fill = Fill(arguments, meter);
  const int64_t width = arguments.Int(0, 0, meter);
  const int64_t missing = width - std::min(width, static_cast<int64_t>(CountUnits(text)));
  meter.Bytes(static_cast<uint64_t>(missing));
  meter.Bytes(static_cast<uint64_t>(missing) * (fill.size() - 1));
  std::string padding;
  for (int64_t i = 0; i < missing; ++i) padding += fill;
  return MakeString(left ? text + padding : padding + text, self, meter);
}
Value LeftJustify(const Value& self, const Bound& arguments, Meter& meter) {
  return Justified(self, arguments, /*left=*/true, meter);
}
Value RightJustify(const Value& self, const Bound& arguments, Meter& meter) {
  return Justified(self, arguments, /*left=*/false, meter);
}
Value CenterMethod(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "center", meter);
  return MakeString(Center(text, arguments.Int(0, 0, meter), Fill(arguments, meter), meter), self,
                    meter);
}
Value ZeroFill(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "zfill", meter);
  const int64_t width = arguments.Int(0, 0, meter);
  const int64_t missing = width - std::min(width, static_cast<int64_t>(CountUnits(text)));
  meter.Bytes(static_cast<uint64_t>(missing));
  const size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  return MakeString(
      text.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') + text.substr(sign),
      self, meter);
}

Value FormatMethod(const Value& self, const Bound& bound, Meter& meter) {
  const std::string& format = Text(self, "format", meter);
  return MakeString(FormatBraces(format, bound.all(), self.Is<Markup>(), meter), self, meter);
}

// The text before the separator, the separator, and the text behind it.
Value Parted(const Value& self, const Bound& arguments, bool first, Meter& meter) {
  const std::string& text = Text(self, "partition", meter);
  const std::string* separator = arguments.Text(0, meter);
  if (separator == nullptr || separator->empty()) meter.Refuse("a text is parted by a text");
  const size_t hit = first ? Find(text, *separator, 0, meter) : FindLast(text, *separator, meter);
  std::vector<Value> parts;
  if (hit != std::string::npos) {
    parts = {MakeString(text.substr(0, hit), self, meter), MakeString(*separator, self, meter),
             MakeString(text.substr(hit + separator->size()), self, meter)};
  } else if (first) {
    parts = {self, MakeString("", self, meter), MakeString("", self, meter)};
  } else {
    parts = {MakeString("", self, meter), MakeString("", self, meter), self};
  }
  return MakeList(std::move(parts), meter, List::Kind::kTuple);
}
Value Partition(const Value& self, const Bound& arguments, Meter& meter) {
  return Parted(self, arguments, /*first=*/true, meter);
}
Value RightPartition(const Value& self, const Bound& arguments, Meter& meter) {
  return Parted(self, arguments, /*first=*/false, meter);
}
Value IsDigits(const Value& self, const Bound&, Meter& meter) {
  const std::string& text = Text(self, "isdigit", meter);
  return Value::Of(!text.empty() &&
                   std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }));
}

Value ReplaceMethod(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string* from = arguments.Text(0, meter);
  const std::string* to = arguments.Text(1, meter);
  if (from == nullptr || to == nullptr) meter.Refuse("replace wants two strings");
  const std::string escaped = JoinedText(self, arguments[1], meter);
  return MakeString(
      Replace(Text(self, "replace", meter), *from, escaped, arguments.Int(2, -1, meter), meter),
      self, meter);
}
// The place of a part, in characters; -1 when it is not there.
int64_t PlaceOf(const Value& self, const Bound& arguments, bool first, Meter& meter) {
  const std::string& text = Text(self, "find", meter);
  const std::string* part = arguments.Text(0, meter);
  if (part == nullptr) meter.Refuse("find wants a string");
  int64_t begin = 0;
  const auto range = Range(text, arguments, meter, &begin);
  if (!range.has_value()) return -1;
  const size_t hit = first ? Find(*range, *part, 0, meter) : FindLast(*range, *part, meter);
  if (hit == std::string::npos) return -1;
  meter.Steps(hit / 64);
  return begin + static_cast<int64_t>(CountUnits(range->substr(0, hit)));
}
Value FindMethodOfText(const Value& self, const Bound& arguments, Meter& meter) {
  return Value::Of(PlaceOf(self, arguments, /*first=*/true, meter));
}
Value RightFind(const Value& self, const Bound& arguments, Meter& meter) {
  return Value::Of(PlaceOf(self, arguments, /*first=*/false, meter));
}
Value Found(int64_t place, Meter& meter) {
  if (place < 0) meter.Refuse("what is looked for is not there");
  return Value::Of(place);
}
Value Index(const Value& self, const Bound& arguments, Meter& meter) {
  const List* list = self.list();
  if (list == nullptr) return Found(PlaceOf(self, arguments, /*first=*/true, meter), meter);
  if (!list->has_subscripts()) meter.Refuse("{} has no method \"index\"", TypeName(self));
  for (size_t i = 0; i < list->items.size(); ++i) {
    if (Equal(list->items[i], arguments[0], meter)) return Value::Of(static_cast<int64_t>(i));
  }
  return Found(-1, meter);
}
Value RightIndex(const Value& self, const Bound& arguments, Meter& meter) {
  return Found(PlaceOf(self, arguments, /*first=*/false, meter), meter);
}
Value Count(const Value& self, const Bound& arguments, Meter& meter) {
  int64_t count = 0;
  if (const List* list = self.list()) {
    for (const Value& item : list->items) count += Equal(item, arguments[0], meter) ? 1 : 0;
    return Value::Of(count);
  }
  const std::string& text = Text(self, "count", meter);
  const std::string* part = arguments.Text(0, meter);
  if (part == nullptr) meter.Refuse("count wants a string");
  int64_t begin = 0;
  const auto range = Range(text, arguments, meter, &begin);
  if (!range.has_value()) return Value::Of(int64_t{0});
  if (part->empty()) return Value::Of(static_cast<int64_t>(CountUnits(*range)) + 1);
  size_t at = 0;
  for (size_t hit; (hit = Find(*range, *part, at, meter)) != std::string::npos; ++count) {
    at = hit + part->size();
  }
  return Value::Of(count);
}
Value JoinMethod(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& separator = Text(self, "join", meter);
  std::string result;
  bool first = true;
  for (const Value& element : Elements(arguments[0], meter)) {
    const bool markup = self.Is<Markup>();
    if (element.string() == nullptr && !markup) {
      meter.Refuse("join wants strings, not {}", TypeName(element));
    }
    const std::string text = JoinedText(self, element, meter);
    meter.Bytes(separator.size() + text.size());
    if (!first) result += separator;
    result += text;
    first = false;
  }
  return MakeString(std::move(result), self, meter);
}
Value RemovePrefix(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "removeprefix", meter);
  const std::string* part = arguments.Text(0, meter);
  return part != nullptr && text.starts_with(*part)
             ? MakeString(text.substr(part->size()), self, meter)
             : self;
}
Value RemoveSuffix(const Value& self, const Bound& arguments, Meter& meter) {
  const std::string& text = Text(self, "removesuffix", meter);
  const std::string* part = arguments.Text(0, meter);
  return part != nullptr && text.ends_with(*part)
             ? MakeString(text.substr(0, text.size() - part->size()), self, meter)
             : self;
}

Value Get(const Value& self, const Bound& arguments, Meter& meter) {
  const Dict& dict = DictOf(self, "get", meter);
  const std::string* key = arguments[0].string();
  if (arguments[0].list() != nullptr || arguments[0].dict() != nullptr) {
    meter.Refuse("{} cannot be a key", TypeName(arguments[0]));
  }
  const Value* found = key == nullptr ? nullptr : dict.Find(*key);
  if (found != nullptr) return *found;
  return arguments.Has(1) ? arguments[1] : Value::NoneValue();
}
Value ItemsMethod(const Value& self, const Bound&, Meter& meter) {
  return MakeList(Pairs(DictOf(self, "items", meter), meter), meter, List::Kind::kView);
}
// Values never change, so that one that is copied is as good as its copy.
Value Copy(const Value& self, const Bound&, Meter& meter) {
  const bool is_list = self.list() != nullptr && self.list()->kind == List::Kind::kList;
  if (!is_list) DictOf(self, "copy", meter);
  return self;
}
Value Keys(const Value& self, const Bound&, Meter& meter) {
  DictOf(self, "keys", meter);
  return MakeList(Elements(self, meter), meter, List::Kind::kView);
}
Value Values(const Value& self, const Bound&, Meter& meter) {
  std::vector<Value> values;
  for (const auto& [key, value] : DictOf(self, "values", meter).items) values.push_back(value);
  return MakeList(std::move(values), meter, List::Kind::kView);
}

const Loop& LoopOf(const Value& self, std::string_view method, const Meter& meter) {
  if (self.loop() == nullptr) meter.Refuse("{} has no method \"{}\"", TypeName(self), method);
  return *self.loop();
}
Value Cycle(const Value& self, const Bound& bound, Meter& meter) {
  const Loop& loop = LoopOf(self, "cycle", meter);
  const Arguments& all = bound.all();
  if (all.positional.empty() || !all.named.empty()) meter.Refuse("loop.cycle wants some values");
  return all.positional[loop.index % all.positional.size()];
}
// Whether the values are others than at the last call.
Value Changed(const Value& self, const Bound& bound, Meter& meter) {
  const Loop& loop = LoopOf(self, "changed", meter);
  if (!bound.all().named.empty()) meter.Refuse("loop.changed wants values without names");
  if (loop.stmt == nullptr) meter.Refuse("the loop is over");
  Value now = MakeList(bound.all().positional, meter, List::Kind::kTuple);
  const bool same = !loop.changed.empty() && Equal(loop.changed[0], now, meter);
  if (!same) loop.changed.assign(1, std::move(now));
  return Value::Of(!same);
}

// Known so that a template that never gets there can be used; jinja2's sandbox stops there too.
Value Forbidden(const Value& self, const Bound&, Meter& meter) {
  meter.Refuse("templates may not change a {}", TypeName(self));
}

constexpr Callable kMethods[] = {
    {"append", "*", Forbidden},
    {"capitalize", "", CapitalizeMethod},
    {"center", "width fillchar?", CenterMethod},
    {"changed", "*", Changed},
    {"clear", "*", Forbidden},
    {"copy", "", Copy},
    {"count", "sub start? end?", Count},
    {"cycle", "*", Cycle},
    {"endswith", "suffix start? end?", EndsWith},
    {"extend", "*", Forbidden},
    {"find", "sub start? end?", FindMethodOfText},
    {"format", "*", FormatMethod},
    {"get", "key default?", Get},
    {"index", "sub start? end?", Index},
    {"insert", "*", Forbidden},
    {"isalnum", "", IsAlnum},
    {"isalpha", "", IsAlpha},
    {"isdecimal", "", IsDigits},
    {"isdigit", "", IsDigits},
    {"islower", "", IsLowerMethod},
    {"isnumeric", "", IsNumeric},
    {"isspace", "", IsSpace},
    {"isupper", "", IsUpperMethod},
    {"items", "", ItemsMethod},
    {"join", "iterable", JoinMethod},
    {"keys", "", Keys},
    {"ljust", "width fillchar?", LeftJustify},
    {"lower", "", LowerMethod},
    {"lstrip", "chars?", LeftStrip},
    {"partition", "sep", Partition},
    {"pop", "*", Forbidden},
    {"popitem", "*", Forbidden},
    {"remove", "*", Forbidden},
    {"removeprefix", "prefix", RemovePrefix},
    {"removesuffix", "suffix", RemoveSuffix},
    {"replace", "old new count?", ReplaceMethod},
    {"reverse", "*", Forbidden},
    {"rfind", "sub start? end?", RightFind},
    {"rindex", "sub start? end?", RightIndex},
    {"rjust", "width fillchar?", RightJustify},
    {"rpartition", "sep", RightPartition},
    {"rsplit", "sep? maxsplit?", RightSplit},
    {"rstrip", "chars?", RightStrip},
    {"setdefault", "*", Forbidden},
    {"sort", "*", Forbidden},
    {"split", "sep? maxsplit?", SplitMethod},
    {"splitlines", "keepends?", SplitLinesMethod},
    {"startswith", "prefix start? end?", StartsWith},
    {"strip", "chars?", StripMethod},
    {"swapcase", "", SwapCaseMethod},
    {"title", "", TitleMethod},
    {"update", "*", Forbidden},
    {"upper", "", UpperMethod},
    {"values", "", Values},
    {"zfill", "width", ZeroFill},
};

constexpr std::array<std::string_view, 11> kDictMethods = {
    "clear", "copy",    "fromkeys",   "get",    "items", "keys",
    "pop",   "popitem", "setdefault", "update", "values"};
constexpr std::array<std::string_view, 11> kListMethods = {"append", "clear",   "copy",   "count",
                                                           "extend", "index",   "insert", "pop",
                                                           "remove", "reverse", "sort"};
// Of the names above those that a string does not have.
constexpr std::array<std::string_view, 18> kNoTextMethods = {
    "append", "changed", "clear",   "copy",   "cycle",   "extend",     "get",  "insert", "items",
    "keys",   "pop",     "popitem", "remove", "reverse", "setdefault", "sort", "update", "values"};

}  // namespace

const Callable* FindMethod(std::string_view name) {
  const auto* found = std::ranges::find(kMethods, name, &Callable::name);
  return found == std::end(kMethods) ? nullptr : found;
}

bool IsMethodOf(const Value& value, std::string_view name) {
  if (value.dict() != nullptr) return std::ranges::find(kDictMethods, name) != kDictMethods.end();
  if (value.list() != nullptr) return std::ranges::find(kListMethods, name) != kListMethods.end();
  if (value.loop() != nullptr) return name == "cycle" || name == "changed";
  return value.string() != nullptr && FindMethod(name) != nullptr &&
         std::ranges::find(kNoTextMethods, name) == kNoTextMethods.end();
}

}  // namespace kvasir::jinja
