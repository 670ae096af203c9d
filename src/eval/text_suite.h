// The suite `ppl`: a text, and how it is read:
// "ppl:file=wiki.txt,mode=stream,tokens=8192,block=32".
#pragma once

#include <cstdint>
#include <string>

#include "base/options.h"
#include "eval/stream.h"

namespace kvasir {

struct TextSuite {
  std::string file;
  uint32_t tokens = 0;  // 0: all of the text
  TextProtocol protocol;

  // "ppl:file=...,mode=...": all keys, as ParseTextSuite reads them.
  std::string Spec() const;
};

// Errors: kUsage (no file, unknown keys, a key that the mode has no use for or lacks).
TextSuite ParseTextSuite(const NamedSpec& spec);

// The row of a case, from what became of it. `dense`: the case 0 of the run.
EvalResult TextResult(const TextSuite& suite, const EvalCase& c, const EvalCase& dense,
                      const TextRun& run, uint64_t tokens_read);

}  // namespace kvasir
