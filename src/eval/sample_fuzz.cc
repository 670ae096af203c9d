// Files of samples: what is read is written and read again as the same.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "eval/sample.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  std::vector<Sample> samples;
  try {
    samples = ParseSamples({reinterpret_cast<const char*>(data), size}, "qa/validation.jsonl");
  } catch (const Error&) {
    return 0;  // a refusal is a right answer
  }
  for (const Sample& sample : samples) {
    CHECK(!sample.questions.empty());
    CHECK(ParseSamples(SampleJson(sample), "again") == std::vector<Sample>{sample});
  }
  return 0;
}
