// The forward pass: which operation on which rows, in which order. The arithmetic is in kernels/.
//
// Rows of all segments lie one after another in the scratch; a `Span` says which of them belong to
// which segment. Work that treats every row alike runs over all of them; a row never looks at
// another one except through the lanes of its own segment.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "format/dequantize.h"
#include "kernels/attention.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/weights.h"

namespace kvasir {

namespace {

// Below this many floats a step over rows is done by the calling thread: a fork-join costs as much.
constexpr size_t kParallelFloats = 16 * 1024;
constexpr size_t kRowsPerTask = 8;
// Logits are made for as many rows at a time as fit into this.
constexpr uint64_t kLogitsBytes = 8 << 20;
constexpr uint32_t kMinLogitRows = 8;

// `count` rows of `dim` floats; kernels may touch whole vectors and groups of outputs at the end of
// a row.
class RowBuffer {
 public:
  RowBuffer(uint64_t count, uint64_t dim)
      : dim_(dim),
        stride_(RoundUp<uint64_t>(dim, kGroup)),
        buffer_((count * stride_ + kGroup) * sizeof(float)) {}

  Rows First(size_t n) const { return {buffer_.as<float>(), n, dim_, stride_}; }
  float* row(size_t i) const { return buffer_.as<float>() + i * stride_; }
  size_t bytes() const { return buffer_.size(); }

 private:
  size_t dim_, stride_;
  AlignedBuffer buffer_;
};

// Rows of one segment that are in the pass: scratch rows [row, row + n), the segment's rows from
// `first` on.
struct Span {
  size_t segment = 0;
  uint32_t row = 0, n = 0, first = 0;
};

// The last rows of a span whose logits somebody wants.
uint32_t Wanted(const Segment& segment, const Span& span) {
  switch (segment.logits) {
    case WantLogits::kAll:
      return span.n;
    case WantLogits::kLast:
      return 1;
    case WantLogits::kNone:
      break;
  }
  return 0;
}

class Transformer final : public Model {
 public:
  Transformer(const ModelFile& file, const Kernels& kernels, Workers& workers,
              const ModelOptions& options, const LoadProgress& progress);

  const ModelConfig& config() const override { return config_; }
  uint32_t max_rows() const override { return options_.max_rows; }
  uint64_t weight_bytes() const override { return weights_.bytes(); }
  uint64_t scratch_bytes() const override;
  std::span<const float> key_bias(uint32_t layer) const override {
    return weights_.layers[layer].k.bias;
  }
  void Forward(std::span<const Segment> segments, const LogitsSink& sink,
               const QuerySink& query_sink, const ViewSink& view_sink) override;

 private:
  void LayOut(std::span<const Segment> segments);
  void Embed(std::span<const Segment> segments);
  void TurnRows(uint32_t layer);
  void AppendAndAttend(std::span<const Segment> segments, uint32_t layer,
                       const ViewSink& view_sink);
  void AddJobs(const Segment& segment, const Span& span, uint32_t begin, uint32_t end,
               uint32_t layer, const ViewSink& view_sink);
  void AttentionBlock(std::span<const Segment> segments, uint32_t layer,
                      const QuerySink& query_sink, const ViewSink& view_sink);
  void ShowQueries(std::span<const Segment> segments, uint32_t layer, const QuerySink& query_sink);
  void MlpBlock(const LayerWeights& layer);
  void KeepWanted(std::span<const Segment> segments);
  void MakeLogits(const LogitsSink& sink);

  void Norm(size_t first, size_t n, const std::vector<float>& weight);
  void Multiply(const RowBuffer& x, size_t n, std::span<const MatMulJob> jobs);
  MatMulJob Job(const Linear& linear, const RowBuffer& out, size_t n,
                bool accumulate = false) const;
  // f(row) for rows [0, n), each a work of `floats`.
  template <typename F>
  void ForRows(size_t n, size_t floats, const F& f);

  const ModelConfig config_;
  const Kernels& kernels_;
  Workers& workers_;
  const ModelOptions options_;
  const uint32_t q_width_, kv_width_;
  const uint32_t logit_rows_;
  const Weights weights_;
  const Rope rope_;

  RowBuffer x_;       // residual stream
  RowBuffer normed_;  // input of the next products
  RowBuffer q_, k_, v_, heads_;
  RowBuffer gate_, up_;
  RowBuffer cos_, sin_;
  RowBuffer logits_;
  Activations activations_;
  AttentionScratch attention_;
  std::vector<Span> spans_;
  std::vector<LaneView> views_;                        // that a segment's rows read
  std::vector<std::pair<uint32_t, uint32_t>> blocks_;  // rows of each span that are appended
  std::vector<AttentionJob> jobs_;
  uint32_t n_rows_ = 0;  // in the spans
};

Transformer::Transformer(const ModelFile& file, const Kernels& kernels, Workers& workers,
                         const ModelOptions& options, const LoadProgress& progress)
    : config_(file.config()),
      kernels_(kernels),
      workers_(workers),
      options_(options),
      q_width_(config_.n_heads * config_.head_dim),
      kv_width_(config_.n_kv_heads * config_.head_dim),
      logit_rows_(static_cast<uint32_t>(
          std::clamp<uint64_t>(kLogitsBytes / (uint64_t{config_.vocab_size} * sizeof(float)),
                               std::min(kMinLogitRows, options.max_rows), options.max_rows))),
      weights_(Weights::Load(file, workers, progress)),
      rope_(config_.head_dim, config_.rope),
      x_(options.max_rows, config_.hidden),
      normed_(options.max_rows, config_.hidden),
      q_(options.max_rows, q_width_),
      k_(options.max_rows, kv_width_),
      v_(options.max_rows, kv_width_),
      heads_(options.max_rows, q_width_),
      gate_(options.max_rows, config_.intermediate),
      up_(options.max_rows, config_.intermediate),
      cos_(options.max_rows, rope_.n_angles()),
      sin_(options.max_rows, rope_.n_angles()),
      logits_(logit_rows_, config_.vocab_size),
      activations_(options.max_rows, std::max({config_.hidden, q_width_, config_.intermediate})),
      attention_(workers.size(), config_.n_heads / config_.n_kv_heads, config_.head_dim,
                 options.compute) {
  CHECK(options.max_rows > 0);
}

uint64_t Transformer::scratch_bytes() const {
  uint64_t bytes = activations_.bytes() + attention_.bytes();
  for (const RowBuffer* buffer :
       {&x_, &normed_, &q_, &k_, &v_, &heads_, &gate_, &up_, &cos_, &sin_, &logits_}) {
    bytes += buffer->bytes();
  }
  return bytes;
}

template <typename F>
void Transformer::ForRows(size_t n, size_t floats, const F& f) {
  if (n * floats < kParallelFloats) {
    for (size_t r = 0; r < n; ++r) f(r);
    return;
  }
  workers_.Run(DivideUp(n, kRowsPerTask), [&](size_t task, size_t) {
    const size_t end = std::min(n, (task + 1) * kRowsPerTask);
    for (size_t r = task * kRowsPerTask; r < end; ++r) f(r);
  });
}

MatMulJob Transformer::Job(const Linear& linear, const RowBuffer& out, size_t n,
                           bool accumulate) const {
  return {&linear.w, linear.bias.empty() ? nullptr : linear.bias.data(), out.First(n), accumulate};
}

void Transformer::Multiply(const RowBuffer& x, size_t n, std::span<const MatMulJob> jobs) {
  activations_.Set(kernels_, workers_, options_.compute, x.First(n));
  MatMul(kernels_, workers_, activations_, jobs);
}

// normed row i = norm of residual row first + i.
void Transformer::Norm(size_t first, size_t n, const std::vector<float>& weight) {
  ForRows(n, config_.hidden, [&](size_t i) {
    kernels_.rows.rms_norm(x_.row(first + i), weight.data(), config_.hidden, config_.norm_eps,
                           normed_.row(i));
  });
}

void Transformer::LayOut(std::span<const Segment> segments) {
  spans_.clear();
  uint64_t n_rows = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const size_t n = segment.tokens.size();
    CHECK(n > 0 && segment.cursor != nullptr && segment.cursor->n_rows() == n);
    CHECK_MSG(n_rows + n <= options_.max_rows, "a pass of more than {} rows", options_.max_rows);
    spans_.push_back({i, static_cast<uint32_t>(n_rows), static_cast<uint32_t>(n), 0});
    n_rows += n;
  }
  n_rows_ = static_cast<uint32_t>(n_rows);
}

// Residual rows from the embedding, and the angles of the rows' positions.
void Transformer::Embed(std::span<const Segment> segments) {
  for (const Span& span : spans_) {
    const Segment& segment = segments[span.segment];
    ForRows(span.n, config_.hidden, [&](size_t i) {
      const int32_t id = segment.tokens[i];
      CHECK_MSG(id >= 0 && static_cast<uint32_t>(id) < config_.vocab_size, "token id {}", id);
      DequantizeRow(weights_.embedding.dtype, weights_.embedding.row(static_cast<uint64_t>(id)),
                    x_.row(span.row + i), config_.hidden);
      const uint32_t position = segment.cursor->first_position() + static_cast<uint32_t>(i);
      rope_.Fill(position, cos_.row(span.row + i), sin_.row(span.row + i));
    });
  }
}

// Norms and turns q and k.
void Transformer::TurnRows(uint32_t layer) {
  const LayerWeights& w = weights_.layers[layer];
  const uint32_t d = config_.head_dim;
  ForRows(n_rows_, q_width_ + kv_width_, [&](size_t r) {
    const auto turn = [&](float* heads, uint32_t n, const std::vector<float>& norm) {
      for (float* head = heads; head != heads + size_t{n} * d; head += d) {
        if (!norm.empty()) kernels_.rows.rms_norm(head, norm.data(), d, config_.norm_eps, head);
        kernels_.rows.rope(head, cos_.row(r), sin_.row(r), d, config_.rope.interleaved);
      }
    };
    turn(q_.row(r), config_.n_heads, w.q_norm);
    turn(k_.row(r), config_.n_kv_heads, w.k_norm);
  });
}

void Transformer::ShowQueries(std::span<const Segment> segments, uint32_t layer,
                              const QuerySink& query_sink) {
  for (const Span& span : spans_) {
    const uint32_t n = segments[span.segment].query_rows;
    if (n == 0) continue;
    CHECK(n <= span.n);
    query_sink(span.segment, layer, q_.First(n_rows_).Slice(span.row + span.n - n, n));
  }
}

// Rows [begin, end) of a span against the lanes as they are now.
void Transformer::AddJobs(const Segment& segment, const Span& span, uint32_t begin, uint32_t end,
                          uint32_t layer, const ViewSink& view_sink) {
  const AppendCursor& cursor = *segment.cursor;
  const uint32_t group = config_.n_heads / config_.n_kv_heads;
  views_.clear();
  for (uint32_t h = 0; h < config_.n_kv_heads; ++h) views_.push_back(cursor.View(layer, h));
  if (segment.chooses && config_.Window(layer) == 0) {
    CHECK(view_sink && span.n == 1);
    view_sink(span.segment, layer, q_.First(n_rows_).Slice(span.row, 1), views_);
  }
  for (uint32_t h = 0; h < config_.n_kv_heads; ++h) {
    const size_t offset = size_t{h} * group * config_.head_dim;
    jobs_.push_back({.lane = views_[h],
                     .q = q_.row(span.row + begin) + offset,
                     .out = heads_.row(span.row + begin) + offset,
                     .row_stride = q_.First(n_rows_).stride,
                     .rows = end - begin,
                     .group = group,
                     .first_position = cursor.first_position() + begin,
                     .window = config_.Window(layer),
                     .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim))});
  }
}

// Hands k and v to the lanes and attends, in the blocks of rows that each cursor asks for: between
// two of them pages may be sealed. All segments go in step, so that a pass has as few fork-joins as
// its longest segment needs.
void Transformer::AppendAndAttend(std::span<const Segment> segments, uint32_t layer,
                                  const ViewSink& view_sink) {
  const bool last = layer + 1 == config_.n_layers;
  for (bool more = true; more;) {
    more = false;
    blocks_.clear();
    for (const Span& span : spans_) {
      AppendCursor& cursor = *segments[span.segment].cursor;
      const uint32_t begin = cursor.n_appended(layer);
      const uint32_t n = cursor.BlockRows(layer);
      blocks_.emplace_back(begin, begin + n);
      if (n == 0) continue;
      cursor.Append(layer, k_.First(n_rows_).Slice(span.row + begin, n),
                    v_.First(n_rows_).Slice(span.row + begin, n),
                    q_.First(n_rows_).Slice(span.row + begin, n));
      more |= begin + n < span.n;
    }
    // Views are taken after all appends: an append may move the planes of another sequence.
    jobs_.clear();
    for (size_t i = 0; i < spans_.size(); ++i) {
      // Behind the last layer's lanes only the rows that want logits go on.
      const Segment& segment = segments[spans_[i].segment];
      const auto [begin, end] = blocks_[i];
      const uint32_t first = last ? spans_[i].n - Wanted(segment, spans_[i]) : 0;
      if (std::max(first, begin) < end) {
        AddJobs(segment, spans_[i], std::max(first, begin), end, layer, view_sink);
      }
    }
    if (!jobs_.empty()) Attention(kernels_, workers_, jobs_, attention_);
  }
}

void Transformer::AttentionBlock(std::span<const Segment> segments, uint32_t layer,
                                 const QuerySink& query_sink, const ViewSink& view_sink) {
  const LayerWeights& w = weights_.layers[layer];
  Norm(0, n_rows_, w.attn_norm);
  const MatMulJob qkv[] = {Job(w.q, q_, n_rows_), Job(w.k, k_, n_rows_), Job(w.v, v_, n_rows_)};
  Multiply(normed_, n_rows_, qkv);
  TurnRows(layer);
  if (query_sink) ShowQueries(segments, layer, query_sink);
  AppendAndAttend(segments, layer, view_sink);
  if (layer + 1 == config_.n_layers) KeepWanted(segments);
  if (n_rows_ == 0) return;
  const MatMulJob output[] = {Job(w.attn_output, x_, n_rows_, true)};
  Multiply(heads_, n_rows_, output);
}

void Transformer::MlpBlock(const LayerWeights& w) {
  Norm(0, n_rows_, w.ffn_norm);
  const MatMulJob inner[] = {Job(w.gate, gate_, n_rows_), Job(w.up, up_, n_rows_)};
  Multiply(normed_, n_rows_, inner);
  ForRows(n_rows_, config_.intermediate, [&](size_t r) {
    kernels_.rows.silu_mul(gate_.row(r), up_.row(r), config_.intermediate);
  });
  const MatMulJob down[] = {Job(w.down, x_, n_rows_, true)};
  Multiply(gate_, n_rows_, down);
}

// Drops the rows whose logits nobody wants and moves the others (residual and attention's) to the
// front.
void Transformer::KeepWanted(std::span<const Segment> segments) {
  uint32_t kept = 0;
  for (Span& span : spans_) {
    const uint32_t n = Wanted(segments[span.segment], span);
    const uint32_t from = span.row + span.n - n;
    if (from != kept) {
      for (uint32_t i = 0; i < n; ++i) {
        std::copy_n(x_.row(from + i), config_.hidden, x_.row(kept + i));
        std::copy_n(heads_.row(from + i), q_width_, heads_.row(kept + i));
      }
    }
    span = {span.segment, kept, n, span.first + span.n - n};
    kept += n;
  }
  std::erase_if(spans_, [](const Span& span) { return span.n == 0; });
  n_rows_ = kept;
}

void Transformer::MakeLogits(const LogitsSink& sink) {
  const Span* span = spans_.data();
  for (uint32_t begin = 0; begin < n_rows_; begin += logit_rows_) {
    const uint32_t n = std::min(logit_rows_, n_rows_ - begin);
    Norm(begin, n, weights_.output_norm);
    const MatMulJob job[] = {Job(weights_.output, logits_, n)};
    Multiply(normed_, n, job);
    for (uint32_t i = 0; i < n; ++i) {
      if (begin + i == span->row + span->n) ++span;
      sink(span->segment, span->first + begin + i - span->row,
           {logits_.row(i), config_.vocab_size});
    }
  }
}

void Transformer::Forward(std::span<const Segment> segments, const LogitsSink& sink,
                          const QuerySink& query_sink, const ViewSink& view_sink) {
  LayOut(segments);
  if (n_rows_ == 0) return;
  Embed(segments);
  for (uint32_t layer = 0; layer < config_.n_layers; ++layer) {
    AttentionBlock(segments, layer, query_sink, view_sink);
    if (n_rows_ > 0) MlpBlock(weights_.layers[layer]);
  }
  for (const Segment& segment : segments) segment.cursor->Finish();
  MakeLogits(sink);
}

}  // namespace

LaneShape LanesOf(const ModelConfig& config, const Encoding& encoding) {
  LaneShape shape = {.n_layers = config.n_layers,
                     .n_kv_heads = config.n_kv_heads,
                     .head_dim = config.head_dim,
                     .k_form = encoding.k,
                     .v_form = encoding.v};
  if (encoding.rules.empty()) return shape;
  LayerEncodings resolved = ResolveEncoding(encoding, config.n_layers, config.head_dim,
                                            [&](uint32_t layer) { return config.Window(layer); });
  shape.layers = std::move(resolved.layers);
  shape.seals = resolved.seals;
  return shape;
}

std::unique_ptr<Model> Model::Load(const ModelFile& file, const Kernels& kernels, Workers& workers,
                                   const ModelOptions& options, const LoadProgress& progress) {
  return std::make_unique<Transformer>(file, kernels, workers, options, progress);
}

}  // namespace kvasir
