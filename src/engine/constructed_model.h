// A model whose answers are known: two layers of attention alone, weights set by hand.
//
// Tokens 0..31 are keys, 32..63 values, the others mean nothing. Layer 0, head 0 looks at the token
// before (by position alone); layer 1, head 0 at the entry whose token before is the one at hand,
// and says that entry's token: behind "key value ... key" the answer is the value. So an answer is
// right iff the entry of the value is alive in lane (1, 0) of whoever asks; if it is not, nothing
// brings its value back. The second heads see nothing and say nothing.
//
// How      The residual has four blocks: the token, a constant, the token before, the answer.
//          Rotation by positions is used where it is fast (the first 24 pairs, theta 10^10):
//          queries are turned back by one position, so the sum of cosines is largest one position
//          away. Keys are compared in channels that turn by less than 10^-6 a position. Scores that
//          should win win by 60 and more, so that what loses weighs nothing in f32.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "format/test_files.h"

namespace kvasir::test {

inline constexpr uint32_t kKeys = 32, kValues = 32, kConstructedVocabulary = 96;
inline constexpr uint32_t kRetrievalLayer = 1, kRetrievalHead = 0;

inline GgufBuilder ConstructedModel(uint32_t context_length) {
  constexpr uint32_t kVocabulary = kConstructedVocabulary, kDim = 128, kPairs = kDim / 2;
  constexpr uint32_t kConstant = kVocabulary, kBefore = kConstant + 32,
                     kAnswer = kBefore + kVocabulary;
  ModelConfig c = TinyConfig("qwen2");
  c.hidden = kAnswer + kVocabulary;
  c.n_heads = c.n_kv_heads = 2;
  c.head_dim = kDim;
  c.intermediate = 32;
  c.vocab_size = kVocabulary;
  c.context_length = context_length;
  c.tied_embeddings = false;
  c.rope.theta = 1e10f;
  GgufBuilder file = RandomGguf(c, 0);
  std::vector<std::vector<float>> values;
  for (const Shape& shape : ShapesOf(c)) {
    values.emplace_back(shape.elements(), shape.name.find("norm") != shape.name.npos ? 1.0f : 0.0f);
  }
  const auto set = [&](const std::string& name, uint32_t row, uint32_t column, double value) {
    for (size_t i = 0; i < file.tensors.size(); ++i) {
      if (file.tensors[i].name != name) continue;
      values[i].at(row * file.tensors[i].shape[0] + column) = static_cast<float>(value);
    }
  };
  // What a one in the residual is behind the norm: the blocks that are there hold one each.
  const double one_0 = std::sqrt(c.hidden / 2.0), one_1 = std::sqrt(c.hidden / 3.0);
  const double root = std::sqrt(static_cast<double>(kDim));
  for (uint32_t i = 0; i < 24; ++i) {
    const double f = std::pow(1e10, -static_cast<double>(i) / kPairs);
    const double size = std::sqrt(70 * root) / one_0;
    set("blk.0.attn_k.weight", i, kConstant, size);
    set("blk.0.attn_q.weight", i, kConstant, size * std::cos(f));
    set("blk.0.attn_q.weight", i + kPairs, kConstant, -size * std::sin(f));
  }
  for (uint32_t key = 0; key < kKeys; ++key) {
    const uint32_t channel = key < 24 ? 40 + key : kPairs + 40 + (key - 24);
    set("blk.1.attn_q.weight", channel, key, std::sqrt(60 * root) / one_1);
    set("blk.1.attn_k.weight", channel, kBefore + key, std::sqrt(60 * root) / one_1);
  }
  for (uint32_t token = 0; token < kVocabulary; ++token) {
    set("token_embd.weight", token, token, 1);
    set("token_embd.weight", token, kConstant, 1);
    set("blk.0.attn_v.weight", token, token, 1 / one_0);
    set("blk.0.attn_output.weight", kBefore + token, token, 1);
    set("blk.1.attn_v.weight", token, token, 1 / one_1);
    set("blk.1.attn_output.weight", kAnswer + token, token, 1);
    set("output.weight", token, kAnswer + token, 1);
  }
  for (size_t i = 0; i < file.tensors.size(); ++i) file.tensors[i].data = ToBytes(values[i]);
  return file;
}

}  // namespace kvasir::test
