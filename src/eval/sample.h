// One generated question with its context, and files of them.
//
// A file holds one sample per line, JSON with the keys of Sample in a fixed order and the SHA-256
// of that text (without itself) as `sha256`: equal samples have equal digests on every machine.
// RULER's own files are read too: `input` is cut before its last line, which asks; what is counted
// and how long may be generated follow from the task's name, taken from the file's path.
//
// Invariant  A sample has at least one question. `context` ends where a cache may be reused: it
// does
//            not depend on which question follows. Generated ones end with one end of line, where
//            tokenizers cut in any case.
// Errors     kCorrupt naming file and line: no JSON, nested deeper than 64, more values or bytes in
//            a line than allowed, bad UTF-8, a key that is missing, of another type or out of
//            range, a digest that belongs to other content. kInvalid: no samples in the file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/scoring.h"

namespace kvasir {

struct Question {
  std::string text;           // follows the context, in the user's turn
  std::string answer_prefix;  // opens the assistant's turn
  std::vector<std::string> refs;
  bool operator==(const Question&) const = default;
};

// What has to be found.
struct Needle {
  std::string text;
  uint64_t token_begin = 0;  // tokens of the context before it
  double depth = 0;          // per cent of the haystack's bytes before it, to one decimal
  bool operator==(const Needle&) const = default;
};

struct Sample {
  std::string suite, task;
  uint32_t version = 1;
  uint64_t seed = 0;
  uint64_t length = 0;  // tokens of the whole, at most; of traces: steps
  uint64_t index = 0;
  std::string context;
  std::vector<Question> questions;
  Metric metric = Metric::kAll;
  uint64_t max_new = 0;  // tokens to generate per question, at most
  std::vector<Needle> needles;
  uint64_t distractors = 0;  // needles beside those asked for
  std::string gold;          // a trace's reference solution, its final-answer line included

  bool operator==(const Sample&) const = default;
};

// One line without its end, digest included.
std::string SampleJson(const Sample& sample);
std::string SampleDigest(const Sample& sample);  // SHA-256, hexadecimal
// Of the digests of all, in order: what a report names its samples by.
std::string SamplesDigest(std::span<const Sample> samples);

void WriteSamples(std::span<const Sample> samples, const std::string& path);
std::vector<Sample> ReadSamples(const std::string& path);
// `where` opens error messages and gives the task's name for RULER's files.
std::vector<Sample> ParseSamples(std::string_view text, const std::string& where);

}  // namespace kvasir
