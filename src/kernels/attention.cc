#include "kernels/attention.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/lane_cursor.h"

namespace kvasir {

namespace {

constexpr uint32_t kRecordHead = 8;  // floats of a record before its channels
constexpr uint32_t kMaxLanes = 16;   // PlaneKernels::mask_max
constexpr uint32_t kSumLanes = 8;    // PairKernels::weights
constexpr uint32_t kMinShift = 9;    // parts of 512 positions and more
constexpr size_t kMaxParts = 65;     // p / w <= 64
constexpr uint32_t kMaxGroup = 256;
constexpr uint32_t kTileRows = 48;    // query rows of a tile: a multiple of the kernels' six
constexpr uint32_t kPairedRows = 96;  // the same with dot products of pairs: expanding costs more
constexpr uint32_t kExpandFrom = 12;  // rows from which a page is first expanded
constexpr uint32_t kPartTaskEntries = 512;
constexpr size_t kScoreFloats = 72 * 1024;  // 288 KiB: scores and a page stay in a 512 KiB L2
constexpr float kEmpty = -std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.44269504088896340736f;

// Softmax record of a row: maximum, sum, six unused, channels (PlaneKernels::merge).
size_t RecordFloats(size_t dim) { return kRecordHead + PaddedDim(dim); }
size_t TileRows(uint32_t group) { return std::max<size_t>(kPairedRows, group); }
// Operands of attention over such planes are rounded to bf16.
bool UsesPairs(const PairKernels* pairs, PlaneForm form) {
  return pairs != nullptr && form.codec != Codec::kF32;
}

// Consecutive rows of one job that sum by the same part width.
struct Tile {
  const AttentionJob* job;
  uint32_t row, n;  // rows of the job
  uint32_t shift;

  uint32_t first() const { return job->first_position + row; }
  uint32_t last() const { return first() + (n - 1); }
  // The lowest position that row r sees.
  uint32_t lowest(uint32_t r) const {
    const uint64_t end = uint64_t{first()} + r + 1;
    return job->window == 0 || end <= job->window ? 0 : static_cast<uint32_t>(end - job->window);
  }
  LaneCursor Entries() const { return {job->lane, shift, lowest(0), last()}; }
  // Rows with their heads; head g of row r is at r * group + g.
  size_t heads() const { return size_t{n} * job->group; }
};

// A worker's memory.
struct Arena {
  float* q;
  uint32_t* q_pairs;
  int16_t* q_int;  // QuantizedQueries, for q8 and q4 keys
  float* q_scale;
  float* q_sums;
  float* page;      // one plane as f32
  uint32_t* pairs;  // or as pairs
  float* scores;    // then weights, in place
  float* state;     // running records
  float* part;      // records of the part at hand
  float* lanes;     // running maxima, kMaxLanes a row
  float* max;
  float* sum;           // of f32 weights
  uint64_t* pair_sums;  // of rounded ones, kSumLanes a row
  uint64_t* visible;

  // `memory` 0 only counts the bytes.
  static Arena At(uintptr_t memory, size_t rows, size_t dim, size_t* bytes) {
    uintptr_t next = memory;
    const auto take = [&](size_t n) {
      float* at = reinterpret_cast<float*>(next);
      next += RoundUp<size_t>(n * sizeof(float), 64);
      return at;
    };
    const auto take_pairs = [&](size_t n) { return reinterpret_cast<uint32_t*>(take(n)); };
    Arena a;
    a.q = take(rows * PaddedDim(dim));
    a.q_pairs = take_pairs(rows * PairedDim(dim));
    a.q_int = reinterpret_cast<int16_t*>(take(rows * CodecBlocks(dim) * kCodecBlock / 2));
    a.q_scale = take(rows);
    a.q_sums = take(rows * CodecBlocks(dim));
    a.page = take(kPageEntries * dim + kPairLanes);  // the last row of V is read past its end
    a.pairs = take_pairs(kPageEntries / 2 * PaddedDim(dim));
    a.scores = take(kScoreFloats);
    a.state = take(rows * RecordFloats(dim));
    a.part = take(rows * RecordFloats(dim));
    a.lanes = take(rows * kMaxLanes);
    a.max = take(rows);
    a.sum = take(rows);
    a.pair_sums = reinterpret_cast<uint64_t*>(take(rows * kSumLanes * 2));
    a.visible = reinterpret_cast<uint64_t*>(take(rows * 2));
    *bytes = next - memory;
    return a;
  }
};

// The computation of one tile on one worker.
class TilePass {
 public:
  // `pairs`: null where nothing is rounded to bf16.
  TilePass(const PlaneKernels& kernels, const PairKernels* pairs, Compute compute, const Tile& tile,
           const Arena& arena)
      : kernels_(kernels),
        pairs_(pairs),
        compute_(compute),
        tile_(tile),
        a_(arena),
        dim_(tile.job->lane.head_dim),
        rows_(tile.heads()),
        record_(RecordFloats(dim_)),
        segments_(kScoreFloats / rows_ / kPageEntries),
        stride_(segments_ * kPageEntries) {
    // An odd number of cache lines between rows: a power of two would put them into the same sets.
    if ((stride_ + 16) * rows_ > kScoreFloats) stride_ = --segments_ * kPageEntries;
    stride_ += 16;
  }

  // Records of the part in which `cursor` stands; moves the cursor behind it. False at the end of
  // the lane.
  bool Part(LaneCursor* cursor, float* records) {
    EntryRun segment;
    LaneCursor ahead = *cursor;
    if (!ahead.Next(&segment)) return false;
    const uint64_t part = segment.part;
    const PageView* first_page = segment.page;
    const LaneCursor begin = *cursor;
    std::fill_n(a_.lanes, rows_ * kMaxLanes, kEmpty);
    size_t n = 0;
    for (bool more = true; more && segment.part == part; ++n) {
      const EntryRun now = segment;
      *cursor = ahead;
      more = ahead.Next(&segment);
      const uint8_t* next = more && segment.part == part ? segment.page->k : first_page->v;
      Score(now, next, a_.scores + n % segments_ * kPageEntries);
    }

    for (size_t r = 0; r < rows_; ++r) {
      const float* lanes = a_.lanes + r * kMaxLanes;
      a_.max[r] = *std::max_element(lanes, lanes + kMaxLanes);
      a_.sum[r] = 0;
      std::fill_n(records + r * record_, record_, 0.0f);
    }
    std::fill_n(a_.pair_sums, rows_ * kSumLanes, 0);
    const bool kept = n <= segments_;
    LaneCursor again = begin;
    again.Next(&segment);
    for (size_t i = 0; i < n; ++i) {
      const EntryRun now = segment;
      const bool more = again.Next(&segment);
      float* scores = a_.scores;
      if (kept) {
        scores += i * kPageEntries;
      } else {  // more segments than the scratch holds: the same scores once more
        Score(now, nullptr, scores);
      }
      const uint8_t* next = !more ? nullptr : i + 1 < n ? segment.page->v : segment.page->k;
      if (next != nullptr && rows_ < kExpandFrom) PrefetchStart(next);
      Weigh(now, scores);
      Sum(now, next, scores, records);
    }
    for (size_t r = 0; r < rows_; ++r) {
      records[r * record_] = a_.max[r];
      const uint64_t* units = a_.pair_sums + r * kSumLanes;
      const uint64_t total = std::accumulate(units, units + kSumLanes, uint64_t{0});
      records[r * record_ + 1] = a_.sum[r] + static_cast<float>(total) * kPairSumUnit;
    }
    return true;
  }

  void Clear(float* state) const {
    for (size_t r = 0; r < rows_; ++r) state[r * record_] = kEmpty;
  }

  void Merge(float* state, const float* part) const {
    kernels_.merge(state, part, rows_, record_, PaddedDim(dim_));
  }

  void Finish(const float* state) const {
    const AttentionJob& job = *tile_.job;
    for (size_t i = 0; i < rows_; ++i, state += record_) {
      const size_t r = i / job.group, g = i % job.group;
      float* out = job.out + (tile_.row + r) * job.row_stride + g * dim_;
      if (state[0] == kEmpty) {
        std::fill_n(out, dim_, 0.0f);
        continue;
      }
      const float inverse = 1.0f / state[1];
      // Sums of underflows may be zeros of either sign, which depends on how entries were paired.
      for (size_t c = 0; c < dim_; ++c) out[c] = state[kRecordHead + c] * inverse + 0.0f;
    }
  }

 private:
  // 64 scores of each row, -infinity where the row does not see; updates the running maxima.
  void Score(const EntryRun& segment, const uint8_t* next, float* scores) {
    if (compute_ == Compute::kFast && kernels_.integer_scores[segment.page->k_form.index()]) {
      IntegerScores(*segment.page, next, scores);
    } else if (UsesPairs(pairs_, segment.page->k_form)) {
      PairScores(*segment.page, next, scores);
    } else {
      FloatScores(*segment.page, next, scores);
    }
    const uint64_t* visible = a_.visible;
    if (SeenByAll(segment)) {
      if (segment.bits == ~uint64_t{0}) {
        visible = nullptr;
      } else {
        std::fill_n(a_.visible, rows_, segment.bits);
      }
    } else {
      for (uint32_t r = 0; r < tile_.n; ++r) {
        std::fill_n(a_.visible + r * tile_.job->group, tile_.job->group, Visible(segment, r));
      }
    }
    kernels_.mask_max(scores, stride_, rows_, visible, a_.lanes);
  }

  // A plane as a kernel is to read it: where it lies, or as f32 in a_.page, where nothing is worth
  // prefetching on the way.
  struct Source {
    PlaneForm form;
    const uint8_t* plane;
    const uint8_t* next;
  };
  Source Keys(const PageView& page, const uint8_t* next, bool in_place) const {
    if (in_place) return {page.k_form, page.k, next};
    kernels_.expand_k[page.k_form.index()](page.k, page.k_form.Shape(dim_), a_.page);
    return {Codec::kF32, reinterpret_cast<const uint8_t*>(a_.page), nullptr};
  }
  Source Values(const PageView& page, const uint8_t* next, bool in_place) const {
    if (in_place) return {page.v_form, page.v, next};
    kernels_.expand_v[page.v_form.index()](page.v, page.v_form.Shape(dim_), a_.page);
    return {Codec::kF32, reinterpret_cast<const uint8_t*>(a_.page), nullptr};
  }
  // Whether many rows pay for expanding a plane to f32 once.
  bool PaysToExpand(PlaneForm form) const {
    return rows_ >= kExpandFrom && form.codec != Codec::kF32;
  }

  void FloatScores(const PageView& page, const uint8_t* next, float* scores) {
    const bool in_place = !PaysToExpand(page.k_form) && kernels_.scores[page.k_form.index()];
    const Source k = Keys(page, next, in_place);
    kernels_.scores[k.form.index()](Scaled(), PaddedDim(dim_), rows_, k.plane, k.form.Shape(dim_),
                                    k.next, scores, stride_);
  }

  void IntegerScores(const PageView& page, const uint8_t* next, float* scores) {
    const PlaneForm form = page.k_form;
    kernels_.integer_scores[form.index()](Quantized(), rows_, page.k, form.Shape(dim_), next,
                                          scores, stride_);
  }

  // f(i, q) for query i of the tile, where it lies.
  template <typename F>
  void ForQueries(F f) const {
    const AttentionJob& job = *tile_.job;
    for (uint32_t r = 0; r < tile_.n; ++r) {
      for (uint32_t g = 0; g < job.group; ++g) {
        f(size_t{r} * job.group + g, job.q + (tile_.row + r) * job.row_stride + size_t{g} * dim_);
      }
    }
  }
  float Scale() const { return tile_.job->scale * kLog2E; }

  // The tile's queries times Scale(), in the forms that scores need: each is made when the first
  // page needs it.
  const float* Scaled() {
    if (scaled_) return a_.q;
    ForQueries([&](size_t i, const float* from) {
      float* to = a_.q + i * PaddedDim(dim_);
      for (size_t c = 0; c < dim_; ++c) to[c] = from[c] * Scale();
    });
    scaled_ = true;
    return a_.q;
  }

  const uint32_t* Paired() {
    if (paired_) return a_.q_pairs;
    ForQueries([&](size_t i, const float* from) {
      pairs_->pair_queries(from, Scale(), dim_, a_.q_pairs + i * PairedDim(dim_));
    });
    paired_ = true;
    return a_.q_pairs;
  }

  const QuantizedQueries& Quantized() {
    if (quantized_.q != nullptr) return quantized_;
    const size_t blocks = CodecBlocks(dim_), stride = blocks * kCodecBlock;
    const float* q = Scaled();
    for (size_t r = 0; r < rows_; ++r) {
      kernels_.quantize_query(q + r * PaddedDim(dim_), dim_, a_.q_int + r * stride,
                              a_.q_sums + r * blocks, a_.q_scale + r);
    }
    quantized_ = {a_.q_int, a_.q_scale, a_.q_sums, stride, blocks};
    return quantized_;
  }

  void PairScores(const PageView& page, const uint8_t* next, float* scores) {
    const PlaneForm form = page.k_form;
    if (pairs_->scores_in_place[form.index()] != nullptr && rows_ < kExpandFrom) {
      pairs_->scores_in_place[form.index()](Paired(), PairedDim(dim_), rows_, page.k,
                                            form.Shape(dim_), next, scores, stride_);
      return;
    }
    const Source k = Keys(page, next, pairs_->expand_k[form.index()] != nullptr);
    pairs_->expand_k[k.form.index()](k.plane, k.form.Shape(dim_), k.next, a_.pairs);
    pairs_->scores(Paired(), PairedDim(dim_), rows_, a_.pairs, dim_, scores, stride_);
  }

  bool SeenByAll(const EntryRun& segment) const {
    return segment.last() <= tile_.first() && segment.first() >= tile_.lowest(tile_.n - 1);
  }

  uint64_t Visible(const EntryRun& segment, uint32_t row) const {
    const uint64_t bits =
        SlotsBelow(*segment.page, segment.bits, uint64_t{tile_.first()} + row + 1);
    return bits & ~SlotsBelow(*segment.page, bits, tile_.lowest(row));
  }

  // Memory is not to rest while weights are made: as much as a core has in flight.
  static void PrefetchStart(const uint8_t* plane) {
    for (size_t b = 0; b < 1024; b += 64) __builtin_prefetch(plane + b);
  }

  void Weigh(const EntryRun& segment, float* scores) {
    if (UsesPairs(pairs_, segment.page->v_form)) {
      pairs_->weights(scores, stride_, rows_, segment.bits, a_.max, a_.pair_sums);
    } else {
      kernels_.exp_weights(scores, stride_, rows_, kPageEntries, a_.max, a_.sum);
    }
  }

  // Adds the weighted rows of V.
  void Sum(const EntryRun& segment, const uint8_t* next, const float* weights, float* records) {
    CHECK(segment.page->v != nullptr);
    if (UsesPairs(pairs_, segment.page->v_form)) {
      PairSum(segment, next, weights, records);
    } else {
      FloatSum(segment, next, weights, records);
    }
  }

  // Entries that a row does not see have weight 0, which does no harm as long as their V is finite.
  // Where it is not, and in place where nobody looks, every row gets the entries that it sees.
  void PairSum(const EntryRun& segment, const uint8_t* next, const float* weights, float* records) {
    const PlaneForm form = segment.page->v_form;
    const auto* p = reinterpret_cast<const uint32_t*>(weights);
    const size_t group = tile_.job->group;
    const bool seen_by_all = SeenByAll(segment);
    if (pairs_->sums_in_place[form.index()] != nullptr && rows_ < kExpandFrom) {
      const size_t step = seen_by_all ? tile_.n : 1;
      for (uint32_t r = 0; r < tile_.n; r += static_cast<uint32_t>(step)) {
        const uint64_t seen = seen_by_all ? segment.bits : Visible(segment, r);
        pairs_->sums_in_place[form.index()](
            p + r * group * stride_, stride_, step * group, segment.page->v, form.Shape(dim_),
            segment.bits, seen, next, records + r * group * record_ + kRecordHead, record_);
      }
      return;
    }
    const Source v = Values(*segment.page, next, pairs_->expand_v[form.index()] != nullptr);
    const auto expand = [&](uint64_t seen) {
      return pairs_->expand_v[v.form.index()](v.plane, v.form.Shape(dim_), segment.bits, seen,
                                              v.next, a_.pairs);
    };
    const auto add = [&](uint32_t row, size_t n) {
      const size_t n_pairs = (static_cast<size_t>(std::popcount(segment.bits)) + 1) / 2;
      pairs_->sums(p + row * group * stride_, stride_, n * group, a_.pairs, n_pairs, dim_,
                   records + row * group * record_ + kRecordHead, record_);
    };
    if (expand(segment.bits) || seen_by_all) return add(0, tile_.n);
    for (uint32_t r = 0; r < tile_.n; ++r) {
      expand(Visible(segment, r));
      add(r, 1);
    }
  }

  // Rows that see less than the whole segment go in small blocks: what
  // all of a block see at once, before and after it what each row sees alone; never an entry with
  // weight 0, whose V might not be finite.
  void FloatSum(const EntryRun& segment, const uint8_t* next, const float* weights,
                float* records) {
    const PlaneForm form = segment.page->v_form;
    const bool in_place = !PaysToExpand(form) && kernels_.weighted_sum[form.index()];
    const Source v = Values(*segment.page, next, in_place);
    const uint32_t group = tile_.job->group;
    const auto add = [&](uint32_t row, uint32_t n, size_t begin, size_t end) {
      kernels_.weighted_sum[v.form.index()](
          weights + row * group * stride_, stride_, size_t{n} * group, v.plane, v.form.Shape(dim_),
          begin, end, segment.bits, v.next, records + row * group * record_ + kRecordHead, record_);
    };
    if (SeenByAll(segment)) return add(0, tile_.n, 0, kPageEntries);
    const uint32_t block = std::max(1u, kExpandFrom / group);
    for (uint32_t first = 0; first < tile_.n; first += block) {
      const uint32_t n = std::min(block, tile_.n - first);
      const auto begin = [&](uint32_t row) {
        return static_cast<uint32_t>(std::countr_zero(Visible(segment, row)));
      };
      const auto end = [&](uint32_t row) {
        return 64u - static_cast<uint32_t>(std::countl_zero(Visible(segment, row)));
      };
      const uint32_t common_end = end(first);
      const uint32_t common = std::min(begin(first + n - 1), common_end);
      for (uint32_t r = first; r < first + n; ++r) add(r, 1, begin(r), std::min(common, end(r)));
      add(first, n, common, common_end);
      for (uint32_t r = first; r < first + n; ++r)
        add(r, 1, std::max(begin(r), common_end), end(r));
    }
  }

  const PlaneKernels& kernels_;
  const PairKernels* pairs_;
  const Compute compute_;
  const Tile& tile_;
  const Arena& a_;
  const size_t dim_, rows_, record_;
  size_t segments_;  // that fit into the scores
  size_t stride_;    // floats between rows of scores
  bool scaled_ = false, paired_ = false;
  QuantizedQueries quantized_ = {};
};

}  // namespace

uint32_t PartShift(uint32_t position) {
  uint32_t shift = kMinShift;
  while ((position >> shift) > kMaxParts - 1) ++shift;
  return shift;
}

// A tile whose parts are computed by several tasks.
struct SplitTile {
  size_t first_part = 0, n_parts = 0;
  float* records = nullptr;  // one set of records per part
};

struct PartStart {
  LaneCursor cursor;
  uint32_t entries;
};

struct Task {
  uint32_t tile;
  uint32_t first_part = 0, n_parts = 0;  // of a split tile; n_parts == 0: the whole tile
};

struct AttentionScratch::Plan {
  explicit Plan(size_t max_split) : open_parts(new std::atomic<uint32_t>[max_split]) {}

  std::vector<Tile> tiles;
  std::vector<uint64_t> work;  // rows x entries of each tile
  std::vector<SplitTile> splits;
  std::vector<int32_t> split_of;  // tile -> index into splits, or -1
  std::vector<PartStart> parts;
  std::vector<Task> tasks;
  std::unique_ptr<std::atomic<uint32_t>[]> open_parts;  // of each split tile

  void CutTiles(std::span<const AttentionJob> jobs, uint32_t max_group, uint32_t max_dim,
                uint32_t tile_rows);
  void CutTasks(size_t n_workers, float* records, size_t record_floats);
  void Split(uint32_t tile, float* records);
};

namespace {
// Tiles with more than one of this many equal shares of the work are split; there are fewer of them
// than shares.
size_t MaxSplit(size_t n_workers) { return n_workers > 1 ? 4 * n_workers : 0; }
size_t SplitFloats(size_t n_workers, uint32_t max_group, uint32_t dim) {
  return MaxSplit(n_workers) * kMaxParts * max_group * RecordFloats(dim);
}
size_t ArenaBytes(uint32_t max_group, uint32_t dim) {
  size_t bytes = 0;
  Arena::At(0, TileRows(max_group), dim, &bytes);
  return bytes;
}
}  // namespace

AttentionScratch::AttentionScratch(size_t n_workers, uint32_t max_group, uint32_t head_dim,
                                   Compute compute)
    : plan_(std::make_unique<Plan>(MaxSplit(n_workers))),
      buffer_(n_workers * ArenaBytes(max_group, head_dim) +
              SplitFloats(n_workers, max_group, head_dim) * sizeof(float)),
      n_workers_(n_workers),
      max_group_(max_group),
      head_dim_(head_dim),
      compute_(compute) {
  CHECK(n_workers > 0 && max_group > 0 && max_group <= kMaxGroup);
  CHECK(head_dim > 0 && head_dim <= kMaxHeadDim);
}
AttentionScratch::~AttentionScratch() = default;
AttentionScratch::AttentionScratch(AttentionScratch&&) noexcept = default;
AttentionScratch& AttentionScratch::operator=(AttentionScratch&&) noexcept = default;
size_t AttentionScratch::bytes() const { return buffer_.size(); }

void AttentionScratch::Plan::CutTiles(std::span<const AttentionJob> jobs, uint32_t max_group,
                                      uint32_t max_dim, uint32_t tile_rows) {
  tiles.clear();
  work.clear();
  for (const AttentionJob& job : jobs) {
    CHECK(job.group > 0 && job.group <= max_group && job.lane.head_dim <= max_dim);
    for (uint32_t row = 0; row < job.rows;) {
      const uint32_t position = job.first_position + row;
      const uint32_t shift = PartShift(position);
      const uint64_t same_width = (uint64_t{kMaxParts} << shift) - position;
      uint64_t rows = std::min<uint64_t>(job.rows - row, same_width);
      // Wide parts: fewer rows, so that a part's scores fit; at least what expanded pages pay for.
      const uint64_t entries = std::min<uint64_t>(uint64_t{1} << shift, job.lane.n_entries);
      const uint64_t fitting = kScoreFloats / (entries + 3 * kPageEntries);
      const uint64_t heads = std::clamp<uint64_t>(fitting, kExpandFrom, tile_rows);
      rows = std::min(rows, std::max<uint64_t>(1, heads / job.group));
      tiles.push_back({&job, row, static_cast<uint32_t>(rows), shift});
      const uint64_t seen = job.window == 0
                                ? job.lane.n_entries
                                : std::min<uint64_t>(job.lane.n_entries, job.window + rows - 1);
      work.push_back(rows * job.group * (seen + kPageEntries));
      row += static_cast<uint32_t>(rows);
    }
  }
}

// Lists the parts of a tile and makes tasks of them.
void AttentionScratch::Plan::Split(uint32_t tile, float* records) {
  const Tile& t = tiles[tile];
  SplitTile split = {parts.size(), 0, records};
  LaneCursor cursor = t.Entries();
  LaneCursor ahead = cursor;
  uint64_t part = std::numeric_limits<uint64_t>::max();
  for (EntryRun segment; ahead.Next(&segment); cursor = ahead) {
    if (segment.part != part) parts.push_back({cursor, 0});
    part = segment.part;
    parts.back().entries += static_cast<uint32_t>(std::popcount(segment.bits));
  }
  split.n_parts = parts.size() - split.first_part;
  const auto n_parts = static_cast<uint32_t>(split.n_parts);
  if (n_parts < 2) {
    parts.resize(split.first_part, {cursor, 0});
    tasks.push_back({tile});
    return;
  }
  split_of[tile] = static_cast<int32_t>(splits.size());
  open_parts[splits.size()].store(n_parts, std::memory_order_relaxed);
  splits.push_back(split);
  for (uint32_t i = 0; i < n_parts;) {
    Task task = {tile, i, 0};
    for (uint64_t entries = 0; i < n_parts && entries < kPartTaskEntries; ++i, ++task.n_parts) {
      entries += parts[split.first_part + i].entries;
    }
    tasks.push_back(task);
  }
}

void AttentionScratch::Plan::CutTasks(size_t n_workers, float* records, size_t record_floats) {
  tasks.clear();
  splits.clear();
  parts.clear();
  split_of.assign(tiles.size(), -1);
  uint64_t total = 0;
  for (const uint64_t w : work) total += w;
  const float* end = records + record_floats;
  const auto n_tiles = static_cast<uint32_t>(tiles.size());
  // The last rows of a block have most work: from the end, so that the small ones fill the gaps.
  for (uint32_t i = n_tiles; i-- > 0;) {
    const Tile& tile = tiles[i];
    const size_t floats = kMaxParts * tile.heads() * RecordFloats(tile.job->lane.head_dim);
    const bool large = work[i] * MaxSplit(n_workers) > total;
    if (large && floats <= static_cast<size_t>(end - records)) {
      Split(i, records);
      records += floats;
    } else {
      tasks.push_back({i});
    }
  }
}

void Attention(const Kernels& kernels, Workers& workers, std::span<const AttentionJob> jobs,
               AttentionScratch& scratch) {
  CHECK(workers.size() <= scratch.n_workers_);
  const size_t arena_bytes = ArenaBytes(scratch.max_group_, scratch.head_dim_);
  AttentionScratch::Plan& plan = *scratch.plan_;
  const PairKernels* pairs =
      kernels.planes.pairs && scratch.compute_ == Compute::kFast ? &kernels.planes.pairs : nullptr;
  plan.CutTiles(jobs, scratch.max_group_, scratch.head_dim_, pairs ? kPairedRows : kTileRows);
  plan.CutTasks(workers.size(),
                reinterpret_cast<float*>(scratch.buffer_.data() + scratch.n_workers_ * arena_bytes),
                SplitFloats(scratch.n_workers_, scratch.max_group_, scratch.head_dim_));

  workers.RunInStretches(plan.tasks.size(), [&](size_t i, size_t worker) {
    const Task& task = plan.tasks[i];
    const Tile& tile = plan.tiles[task.tile];
    size_t bytes = 0;
    const Arena arena =
        Arena::At(reinterpret_cast<uintptr_t>(scratch.buffer_.data()) + worker * arena_bytes,
                  TileRows(scratch.max_group_), scratch.head_dim_, &bytes);
    TilePass pass(kernels.planes, pairs, scratch.compute_, tile, arena);
    if (task.n_parts == 0) {
      pass.Clear(arena.state);
      LaneCursor cursor = tile.Entries();
      while (pass.Part(&cursor, arena.part)) pass.Merge(arena.state, arena.part);
      pass.Finish(arena.state);
      return;
    }
    const int32_t index = plan.split_of[task.tile];
    const SplitTile& split = plan.splits[static_cast<size_t>(index)];
    const size_t part_floats = tile.heads() * RecordFloats(tile.job->lane.head_dim);
    for (uint32_t p = task.first_part; p < task.first_part + task.n_parts; ++p) {
      LaneCursor cursor = plan.parts[split.first_part + p].cursor;
      pass.Part(&cursor, split.records + p * part_floats);
    }
    // Whoever finishes a tile's last part merges all of them, in the order of the parts.
    if (plan.open_parts[static_cast<size_t>(index)].fetch_sub(task.n_parts) != task.n_parts) return;
    pass.Clear(arena.state);
    for (size_t p = 0; p < split.n_parts; ++p) {
      pass.Merge(arena.state, split.records + p * part_floats);
    }
    pass.Finish(arena.state);
  });
}

}  // namespace kvasir
