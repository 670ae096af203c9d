// From logits to the next token: penalties, temperature, top-k, top-p, min-p, in this order.
//
// A sampler belongs to one sequence and depends on nothing but its parameters, its seed and what
// the sequence holds, so a request gives the same tokens alone and in a batch.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kvasir {

struct SamplingParams {
  float temperature = 0.8f;  // 0: the most likely token, ties to the lower id
  uint32_t top_k = 40;       // 0: all
  float top_p = 0.95f;
  float min_p = 0.05f;
  float repeat_penalty =
      1.0f;  // divides positive and multiplies negative logits of seen tokens, prompt included
  float presence_penalty = 0.0f;   // subtracted once for generated tokens
  float frequency_penalty = 0.0f;  // subtracted per occurrence among generated tokens
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logits of these tokens
  std::optional<uint64_t> seed;                       // none: a random one
};

// Natural logarithm of a token's probability by the model itself, before penalties, bias and
// temperature, and the most likely tokens at its place, best first.
struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;
};
TokenLogprob LogprobOf(std::span<const float> logits, int32_t id, uint32_t n_top);

class Sampler {
 public:
  // `prompt`: the tokens before generation, for the repeat penalty. `seed` must be decided by then.
  Sampler(const SamplingParams& params, std::span<const int32_t> prompt);
  // Errors: kInvalid when a logit is NaN.
  int32_t Sample(std::span<const float> logits);
  uint64_t seed() const { return *params_.seed; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  void Penalize();
  void KeepTop(size_t k);
  int32_t Draw();

  SamplingParams params_;
  std::mt19937_64 rng_;
  std::unordered_map<int32_t, uint32_t> prompt_seen_, generated_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

uint64_t RandomSeed();

}  // namespace kvasir
