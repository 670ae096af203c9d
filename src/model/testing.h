// What the tests of this room share: a model with a store behind it, fed in pieces.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace kvasir::testing {

using Logits = std::vector<std::vector<float>>;  // a row per token

// What the arithmetic keeps lanes in unless asked for something else.
inline Encoding DenseFor(Compute compute) {
  const Codec codec = compute == Compute::kExact ? Codec::kF32 : Codec::kF16;
  return {.k = codec, .v = codec};
}

struct RunnerOptions {
  const Kernels* kernels = &BestKernels();
  size_t threads = 2;
  Compute compute = Compute::kExact;
  Encoding encoding = {.k = Codec::kF32, .v = Codec::kF32};
  uint32_t max_rows = 512;
};

class Runner {
 public:
  Runner(const std::string& path, const RunnerOptions& options)
      : file_(ModelFile::Open(path)),
        workers_(options.threads),
        model_(Model::Load(file_, *options.kernels, workers_,
                           {.compute = options.compute, .max_rows = options.max_rows})),
        shape_(model_->MainLanes(options.encoding)),
        store_(256 << 20, *options.kernels, &workers_) {}

  Model& model() { return *model_; }
  Store& store() { return store_; }

  LaneSetHandle Sequence(uint64_t tokens) {
    return store_.Create(shape_, LaneRole::kMain, MaxDemand(shape_, {.tokens = tokens}));
  }

  struct Piece {
    LaneSetHandle* lanes;
    std::span<const int32_t> tokens;
    Logits* logits;  // rows are appended
    WantLogits want = WantLogits::kAll;
  };
  // All pieces in one pass.
  void Pass(const std::vector<Piece>& pieces) {
    std::vector<AppendCursor> cursors;
    for (const Piece& piece : pieces) {
      cursors.push_back(store_.Append(*piece.lanes, static_cast<uint32_t>(piece.tokens.size())));
    }
    std::vector<Segment> segments;
    for (size_t i = 0; i < pieces.size(); ++i) {
      segments.push_back({pieces[i].tokens, &cursors[i], pieces[i].want});
    }
    model_->Forward(segments, [&](size_t segment, uint32_t, std::span<const float> logits) {
      pieces[segment].logits->emplace_back(logits.begin(), logits.end());
    });
  }

  // A fresh sequence fed in blocks.
  Logits Feed(std::span<const int32_t> tokens, size_t block) {
    LaneSetHandle lanes = Sequence(tokens.size());
    Logits logits;
    for (size_t i = 0; i < tokens.size(); i += block) {
      Pass({{&lanes, tokens.subspan(i, std::min(block, tokens.size() - i)), &logits}});
    }
    return logits;
  }

 private:
  ModelFile file_;
  Workers workers_;
  std::unique_ptr<Model> model_;
  LaneShape shape_;
  Store store_;
};

inline std::string TestData(const std::string& name) {
  return std::string(KVASIR_SOURCE_DIR) + "/src/model/testdata/" + name;
}

inline std::vector<int32_t> ReadIds(const std::string& path) {
  std::ifstream file(path);
  std::vector<int32_t> ids;
  for (int32_t id = 0; file >> id;) ids.push_back(id);
  return ids;
}

// The file of a real model, or empty when it is not on this machine.
inline std::string RealModel(const std::string& file) {
  const char* dir = std::getenv("KVASIR_MODELS");
  const char* home = std::getenv("HOME");
  const std::string path =
      (dir ? std::string(dir) : std::string(home ? home : "") + "/.cache/kvasir/models") + "/" +
      file;
  return std::filesystem::exists(path) ? path : std::string();
}

}  // namespace kvasir::testing
