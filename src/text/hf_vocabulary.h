// What the files of a Hugging Face tokenizer say, before a tokenizer or another file is made of it.
#pragma once

#include <memory>
#include <string>

#include "text/byte_bpe.h"
#include "text/hf_pipeline.h"
#include "text/hf_tokenizer.h"
#include "text/vocabulary.h"

namespace kvasir {

struct HfVocabulary {
  Vocabulary vocabulary;
  HfPipeline pipeline;
  MergeList merges;             // views of `texts`, or of the files
  std::string merges_place;     // for messages about them
  bool ignores_merges = false;  // a piece that is a token stays whole
  std::shared_ptr<const void> texts;

  // Where the pipeline is byte-level.
  ByteBpeTokenizer::Rules byte_rules() const {
    return {.pre = pipeline.pre, .whole_pieces = ignores_merges, .nfc = pipeline.nfc};
  }
};

// The files must outlive the result. Errors: those of ReadHfTokenizer.
HfVocabulary ReadHfVocabulary(const HfTokenizerFiles& files, const std::string& where);

}  // namespace kvasir
