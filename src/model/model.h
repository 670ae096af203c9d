// The forward pass of the Llama and Qwen families (config().architecture names them) over rows of
// many sequences at once.
//
// A pass is a list of segments, one per sequence: consecutive tokens whose K and V go through the
// store's append cursor. All rows share the matrix products; attention runs per segment. Prefill
// blocks and decode rows are the same code, and a row's result has the same bits whoever shares its
// pass [contract: rows.equal].
//
// Memory   Packed weights, and scratch for `max_rows` rows that scratch_bytes() states; a pass
// allocates no KV. Threads  One Forward at a time; it uses the workers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/workers.h"
#include "format/model_file.h"
#include "kernels/matmul.h"
#include "kv/store.h"

namespace kvasir {

enum class WantLogits : uint8_t { kNone, kLast, kAll };

struct Segment {
  std::span<const int32_t> tokens;  // ids below vocab_size; as many as the cursor's rows
  AppendCursor* cursor = nullptr;   // row i sits at cursor->first_position() + i
  WantLogits logits = WantLogits::kLast;
  uint32_t query_rows = 0;  // the last rows whose queries the pass hands over
  bool chooses = false;     // one row, which reads what a ViewSink leaves of its lanes
};

// Called on the thread that runs Forward, segments in order, rows ascending. `row` counts within
// the segment. The logits are valid during the call.
using LogitsSink = std::function<void(size_t segment, uint32_t row, std::span<const float> logits)>;
// Called on the same thread for each layer in order and each segment that has query_rows, before
// attention: the queries of those rows as attention uses them (after RoPE, not scaled), n_heads *
// head_dim floats each. Valid during the call.
using QuerySink = std::function<void(size_t segment, uint32_t layer, Rows queries)>;
// Called on the same thread for each layer without a window and each segment that chooses, after
// the appends of the layer: the row's queries, and its lanes by KV head. Views put in their place
// are read instead; they must stay valid during the layer's attention.
using ViewSink =
    std::function<void(size_t segment, uint32_t layer, Rows queries, std::span<LaneView> lanes)>;
// Fraction done, in [0, 1].
using LoadProgress = std::function<void(double)>;

struct ModelOptions {
  Compute compute = Compute::kFast;
  uint32_t max_rows = 512;  // most rows of a pass
};

// The main lanes of a model. Errors: kUsage, those of ResolveEncoding.
LaneShape LanesOf(const ModelConfig& config, const Encoding& encoding);

class Model {
 public:
  // Repacks the weights; the file's mapped pages are released, except what embedding lookups touch.
  // `file` must outlive the model (the embedding is read from it row by row).
  static std::unique_ptr<Model> Load(const ModelFile& file, const Kernels& kernels,
                                     Workers& workers, const ModelOptions& options,
                                     const LoadProgress& progress = {});
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual uint32_t max_rows() const = 0;
  virtual uint64_t weight_bytes() const = 0;
  virtual uint64_t scratch_bytes() const = 0;
  LaneShape MainLanes(const Encoding& encoding) const { return LanesOf(config(), encoding); }
  // Of the key projection of a layer, n_kv_heads * head_dim floats; empty where there is none.
  virtual std::span<const float> key_bias(uint32_t layer) const = 0;

  // Runs all segments; their rows together are at most max_rows. Calls Finish on every cursor.
  virtual void Forward(std::span<const Segment> segments, const LogitsSink& sink,
                       const QuerySink& query_sink = {}, const ViewSink& view_sink = {}) = 0;
};

}  // namespace kvasir
