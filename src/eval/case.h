// A case: one way of keeping the cache, measured beside others on the same samples.
//
// Case 0 of every run is `dense`: same weights, nothing dropped. Cases are plain data; who runs
// them makes an engine of each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace kvasir {

struct EvalCase {
  std::string label;
  std::string flags;            // as typed, with the sweep's values in place
  std::string policy = "none";  // for MakePolicy; canonical once the engine is there
  Encoding encoding;
  std::string codec = "f16";          // the encoding, as people write it
  std::optional<uint64_t> kv_memory;  // named by its flags: a policy's budget may follow from it
  bool reference = false;

  // Whether entries are stored in another form than the reference's.
  bool Encodes(const EvalCase& dense) const { return !(encoding == dense.encoding); }
};

// The options of a case's engine: `common` with what the case names. A policy that has blocks and
// names none gets `block`; 0 leaves it alone.
EngineOptions OptionsFor(const EvalCase& c, const EngineOptions& common, uint32_t block);
// "keydiff:budget=9" with block=32 at its end; unchanged if it names one or its method has none.
std::string WithBlock(const std::string& policy, uint32_t block);

// A canonical spec as name and pairs; "none" has no pairs. Empty: the key is not there.
std::string PolicyName(std::string_view spec);
std::string PolicyValue(std::string_view spec, std::string_view key);
// How many times fewer entries than tokens the spec promises after `tokens`: tokens / budget,
// 1 / keep, ratio. None: it promises nothing.
std::optional<double> NominalRatio(std::string_view spec, uint64_t tokens);

// "budget=512,1024": a name and its values. Errors: kUsage.
struct Sweep {
  std::string name;
  std::vector<std::string> values;
};
Sweep ParseSweep(std::string_view text);
// "LABEL=FLAGS" as a pair, once for every value of the sweep with {name} replaced in both; a label
// without {name} gets "@value". Texts without {name} stay one case. Errors: kUsage (no label,
// `dense`, a label twice, a sweep that no case takes).
std::vector<std::pair<std::string, std::string>> ExpandCases(const std::vector<std::string>& texts,
                                                             const std::optional<Sweep>& sweep);

}  // namespace kvasir
