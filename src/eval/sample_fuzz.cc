// Files of samples: what is read is written and read again as the same; and any text has a score.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "eval/sample.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kvasir;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<Sample> samples;
  try {
    samples = ParseSamples(text, "qa/validation.jsonl");
  } catch (const Error&) {
    return 0;  // a refusal is a right answer
  }
  for (const Sample& sample : samples) {
    CHECK(!sample.questions.empty());
    CHECK(ParseSamples(SampleJson(sample), "again") == std::vector<Sample>{sample});
    for (const std::string_view output : {text, std::string_view(sample.gold)}) {
      const double score = Score(sample.metric, sample.questions[0].refs, output);
      CHECK(score >= 0 && score <= 1);
    }
  }
  return 0;
}
