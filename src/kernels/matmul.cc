#include "kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "base/error.h"

namespace kvasir {

namespace {

// ---- packing: an output's blocks, as ggml lays them out, into column c of its group ----

inline uint32_t FourBytes(
    const uint8_t* p) {  // byte-parallel work only, so the byte order is no matter
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void PutFourBytes(uint8_t* p, uint32_t v) { std::memcpy(p, &v, sizeof(v)); }
inline void PutHalf(uint8_t* p, size_t c, const uint8_t* half) { std::memcpy(p + 2 * c, half, 2); }

constexpr uint32_t kLowNibbles = 0x0f0f0f0f;

static_assert(std::equal(std::begin(kIQ4Table), std::end(kIQ4Table), std::begin(kIQ4Values)));

// Where bytes 4c.. of block s of a record lie.
inline uint8_t* Slot(uint8_t* part, size_t s, size_t c) { return part + 64 * s + 4 * c; }

// 16 bytes of ggml's nibbles (low: steps 0..15, high: 16..31) have the record's order already.
void PutNibbles(const uint8_t* q, size_t c, uint8_t* part) {
  for (size_t s = 0; s < 4; ++s) std::memcpy(Slot(part, s, c), q + 4 * s, 4);
}

void PackQ4_0(const uint8_t* block, size_t c, uint8_t* record) {
  PutHalf(record + record::kQ4Scales, c, block);
  PutNibbles(block + 2, c, record);
}

void PackQ4_1(const uint8_t* block, size_t c, uint8_t* record) {
  PutHalf(record + record::kQ4Scales, c, block);
  PutHalf(record + record::kQ4Minima, c, block + 2);
  PutNibbles(block + 4, c, record);
}

void PackQ8_0(const uint8_t* block, size_t c, uint8_t* record) {
  PutHalf(record + record::kQ8Scales, c, block);
  for (size_t s = 0; s < 8; ++s) {
    PutFourBytes(Slot(record, s, c), FourBytes(block + 2 + 4 * s) ^ 0x80808080);
  }
}

uint32_t LittleWord(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 |
         static_cast<uint32_t>(p[2]) << 16 | static_cast<uint32_t>(p[3]) << 24;
}

// Bytes w + 128 = q - 16 + 128.
void PackQ5_0(const uint8_t* block, size_t c, uint8_t* record) {
  const uint32_t fifth = LittleWord(block + 2);
  PutHalf(record + record::kQ8Scales, c, block);
  for (size_t k = 0; k < 32; ++k) {
    const int low = block[6 + k % 16] >> (k / 16 * 4) & 15;
    const int q = low | static_cast<int>(fifth >> k & 1) << 4;
    Slot(record, k / 4, c)[k % 4] = static_cast<uint8_t>(q + 112);
  }
}

float HalfAt(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, sizeof(half));
  return F16ToF32(half);
}
void PutFloat(uint8_t* p, size_t c, float value) { std::memcpy(p + 4 * c, &value, sizeof(value)); }

// Scale and minimum of part b of Q4_K or Q5_K: eight of each, six bits, in twelve bytes.
struct SixBits {
  uint8_t scale, min;
};
SixBits SixBitsOf(const uint8_t* packed, size_t b) {
  if (b < 4) {
    return {static_cast<uint8_t>(packed[b] & 63), static_cast<uint8_t>(packed[b + 4] & 63)};
  }
  return {static_cast<uint8_t>((packed[b + 4] & 15) | (packed[b - 4] >> 6) << 4),
          static_cast<uint8_t>((packed[b + 4] >> 4) | (packed[b] >> 6) << 4)};
}

void PackQ5_1(const uint8_t* block, size_t c, uint8_t* record) {
  PutFloat(record + record::kQ5Scales, c, HalfAt(block));
  PutFloat(record + record::kQ5Minima, c, HalfAt(block + 2));
  PutNibbles(block + 8, c, record);
  const uint32_t fifth = LittleWord(block + 4);
  uint8_t* high = record + record::kQ5High + 4 * c;
  for (size_t k = 0; k < 32; ++k) {
    high[k % 4] = static_cast<uint8_t>(high[k % 4] | (fifth >> k & 1) << (k / 4));
  }
}

void PackIQ4_NL(const uint8_t* block, size_t c, uint8_t* record) {
  PutFloat(record + record::kIQ4Scales, c, HalfAt(block));
  PutNibbles(block + 2, c, record);
}

// Becomes eight records.
void PackIQ4_XS(const uint8_t* block, size_t c, uint8_t* record) {
  const uint32_t high = static_cast<uint32_t>(block[2]) | static_cast<uint32_t>(block[3]) << 8;
  for (size_t b = 0; b < 8; ++b, record += Record(PackedKind::kIQ4).bytes) {
    const int scale =
        static_cast<int>((block[4 + b / 2] >> (b % 2 * 4) & 15) | (high >> (2 * b) & 3) << 4);
    PutFloat(record + record::kIQ4Scales, c, HalfAt(block) * static_cast<float>(scale - 32));
    PutNibbles(block + 8 + 16 * b, c, record);
  }
}

// Nibbles of part b of Q4_K or Q5_K: two parts share 32 bytes, low nibbles first.
void PutHalfNibbles(const uint8_t* q, size_t b, size_t c, uint8_t* part) {
  const uint8_t* in = q + b / 2 * 32;
  const int shift = b % 2 == 0 ? 0 : 4;
  for (size_t s = 0; s < 4; ++s) {
    const uint32_t low = FourBytes(in + 4 * s) >> shift & kLowNibbles;
    const uint32_t high = FourBytes(in + 16 + 4 * s) >> shift & kLowNibbles;
    PutFourBytes(Slot(part, s, c), low | high << 4);
  }
}

// Becomes eight records.
void PackQ5_K(const uint8_t* block, size_t c, uint8_t* record) {
  const uint8_t* fifth = block + 16;
  for (size_t b = 0; b < 8; ++b, record += Record(PackedKind::kQ5).bytes) {
    const SixBits factors = SixBitsOf(block + 4, b);
    PutFloat(record + record::kQ5Scales, c, HalfAt(block) * factors.scale);
    PutFloat(record + record::kQ5Minima, c, -(HalfAt(block + 2) * factors.min));
    PutHalfNibbles(block + 48, b, c, record);
    uint32_t high = 0;
    for (size_t s = 0; s < 8; ++s) high |= (FourBytes(fifth + 4 * s) >> b & 0x01010101) << s;
    PutFourBytes(record + record::kQ5High + 4 * c, high);
  }
}

// Runs of 32 steps of Q2_K and Q3_K: each half has 32 bytes, run i of it at bits 2i.
uint32_t FourPairs(const uint8_t* q, size_t run, size_t s) {
  return FourBytes(q + run / 4 * 32 + 4 * s) >> (run % 4 * 2) & 0x03030303;
}

void PackQ2_K(const uint8_t* block, size_t c, uint8_t* record) {
  PutHalf(record, c, block + 80);
  PutHalf(record + record::kQ2KMinimum, c, block + 82);
  for (size_t b = 0; b < 8; ++b) {
    uint8_t* part = record + record::kQ2KParts + b * record::kQ2KPartBytes;
    for (size_t half = 0; half < 2; ++half) {
      part[record::kQ2KFactors + kGroup * half + c] = block[2 * b + half];
      uint32_t pairs = 0;
      for (size_t i = 0; i < 4; ++i) pairs |= FourPairs(block + 16, b, 4 * half + i) << (2 * i);
      PutFourBytes(Slot(part, half, c), pairs);
    }
  }
}

void PackQ4_K(const uint8_t* block, size_t c, uint8_t* record) {
  PutHalf(record, c, block);
  PutHalf(record + record::kQ4KMinimum, c, block + 2);
  for (size_t b = 0; b < 8; ++b) {
    uint8_t* part = record + record::kQ4KParts + b * record::kQ4KPartBytes;
    const SixBits factors = SixBitsOf(block + 4, b);
    part[record::kQ4KScales + c] = factors.scale;
    part[record::kQ4KMinima + c] = factors.min;
    PutHalfNibbles(block + 16, b, c, part);
  }
}

// Four q of block s into a part of kQ6K; both its bytes must be zero before.
void PutSixBits(uint32_t q, size_t s, size_t c, uint8_t* part) {
  uint8_t *slot = Slot(part, s % 4, c), *high = Slot(part + record::kQ6KHigh, s / 4, c);
  PutFourBytes(slot, FourBytes(slot) | (q & kLowNibbles) << (s / 4 * 4));
  PutFourBytes(high, FourBytes(high) | (q >> 4 & 0x03030303) << (2 * (s % 4)));
}

// q - 4 becomes q + 28 - 32.
void PackQ3_K(const uint8_t* block, size_t c, uint8_t* record) {
  const uint8_t *third = block, *scales = block + 96;
  PutHalf(record, c, block + 108);
  for (size_t b = 0; b < 8; ++b) {
    uint8_t* part = record + record::kQ6KParts + b * record::kQ6KPartBytes;
    for (size_t half = 0; half < 2; ++half) {
      const size_t g = 2 * b + half;
      const int scale = (scales[g % 8] >> (g / 8 * 4) & 15) | (scales[8 + g % 4] >> (g / 4 * 2) & 3)
                                                                  << 4;
      part[record::kQ6KScales + kGroup * half + c] = static_cast<uint8_t>(scale - 32);
    }
    for (size_t s = 0; s < 8; ++s) {
      const uint32_t top = FourBytes(third + 4 * s) >> b & 0x01010101;
      PutSixBits((FourPairs(block + 32, b, s) | top << 2) + 0x1c1c1c1c, s, c, part);
    }
  }
}

void PackQ6_K(const uint8_t* block, size_t c, uint8_t* record) {
  const uint8_t *low = block, *high = block + 128, *scales = block + 192;
  PutHalf(record, c, block + 208);
  for (size_t b = 0; b < 8; ++b) {
    uint8_t* part = record + record::kQ6KParts + b * record::kQ6KPartBytes;
    part[record::kQ6KScales + c] = scales[2 * b];
    part[record::kQ6KScales + kGroup + c] = scales[2 * b + 1];
    // Each half of 128 steps: parts 0, 1 are the low nibbles of 64 bytes, parts 2, 3 the high ones,
    // and part i has bits 2i, 2i + 1 of 32 bytes on top.
    const size_t i = b % 4;
    const uint8_t* nibbles = low + b / 4 * 64 + i % 2 * 32;
    const uint8_t* pairs = high + b / 4 * 32;
    const size_t shift = i / 2 * 4;
    for (size_t s = 0; s < 8; ++s) {
      const uint32_t q = FourBytes(nibbles + 4 * s) >> shift & kLowNibbles;
      const uint32_t top = FourBytes(pairs + 4 * s) >> (2 * i) & 0x03030303;
      PutSixBits(q | top << 4, s, c, part);
    }
  }
}

void PackPairs(const uint8_t* row, size_t k, size_t c, uint8_t* group) {
  for (size_t i = 0; i < k; ++i) {
    std::memcpy(group + (i / 2 * kGroup + c) * 4 + (i % 2 == 0 ? 2 : 0), row + 2 * i, 2);
  }
}

template <typename T>
void PackElements(const uint8_t* row, size_t k, size_t c, uint8_t* group) {
  for (size_t i = 0; i < k; ++i) {
    std::memcpy(group + (i * kGroup + c) * sizeof(T), row + i * sizeof(T), sizeof(T));
  }
}

// `block_bytes`: of the records that a block becomes.
template <typename F>
void PackBlocks(const uint8_t* row, size_t k, const DTypeInfo& info, size_t block_bytes,
                uint8_t* group, F pack) {
  for (size_t b = 0; b < k / info.block; ++b) pack(row + b * info.bytes, group + b * block_bytes);
}

PackedKind KindOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PackedKind::kF32;
    case DType::kF16:
      return PackedKind::kF16;
    case DType::kBF16:
      return PackedKind::kBF16;
    case DType::kQ4_0:
      return PackedKind::kQ4S;
    case DType::kQ4_1:
      return PackedKind::kQ4;
    case DType::kQ5_0:
    case DType::kQ8_0:
      return PackedKind::kQ8;
    case DType::kQ5_1:
    case DType::kQ5_K:
      return PackedKind::kQ5;
    case DType::kQ2_K:
      return PackedKind::kQ2K;
    case DType::kQ4_K:
      return PackedKind::kQ4K;
    case DType::kIQ4_NL:
    case DType::kIQ4_XS:
      return PackedKind::kIQ4;
    case DType::kQ3_K:
    case DType::kQ6_K:
      break;
  }
  return PackedKind::kQ6K;
}

// One output.
void PackRow(const TensorView& source, uint64_t output, PackedKind kind, uint8_t* group) {
  const uint8_t* row = source.row(output);
  const size_t k = source.cols, c = output % kGroup;
  const DTypeInfo& info = Info(source.dtype);
  const auto blocks = [&](auto pack) {
    PackBlocks(row, k, info, info.block / Record(kind).steps * Record(kind).bytes, group,
               [&](const uint8_t* block, uint8_t* record) { pack(block, c, record); });
  };
  switch (source.dtype) {
    case DType::kF32:
      PackElements<uint32_t>(row, k, c, group);
      break;
    case DType::kF16:
      PackElements<uint16_t>(row, k, c, group);
      break;
    case DType::kBF16:
      PackPairs(row, k, c, group);
      break;
    case DType::kQ4_0:
      blocks(PackQ4_0);
      break;
    case DType::kQ4_1:
      blocks(PackQ4_1);
      break;
    case DType::kQ5_0:
      blocks(PackQ5_0);
      break;
    case DType::kQ5_1:
      blocks(PackQ5_1);
      break;
    case DType::kQ8_0:
      blocks(PackQ8_0);
      break;
    case DType::kQ2_K:
      blocks(PackQ2_K);
      break;
    case DType::kQ3_K:
      blocks(PackQ3_K);
      break;
    case DType::kQ4_K:
      blocks(PackQ4_K);
      break;
    case DType::kQ5_K:
      blocks(PackQ5_K);
      break;
    case DType::kQ6_K:
      blocks(PackQ6_K);
      break;
    case DType::kIQ4_NL:
      blocks(PackIQ4_NL);
      break;
    case DType::kIQ4_XS:
      blocks(PackIQ4_XS);
      break;
  }
}

}  // namespace

PackedMatrix PackedMatrix::Pack(const TensorView& source, Workers& workers) {
  const DTypeInfo& info = Info(source.dtype);
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  if (source.rows == 0 || source.cols == 0 || source.rows > kMost || source.cols > kMost) {
    Fail(Code::kCorrupt, "matrix of {} x {} {}: both sizes must be in 1..{}", source.rows,
         source.cols, info.name, kMost);
  }
  if (source.cols % info.block != 0) {
    Fail(Code::kCorrupt, "matrix of {} x {} {}: rows must be a multiple of {} elements",
         source.rows, source.cols, info.name, info.block);
  }
  PackedMatrix m;
  m.outputs_ = static_cast<uint32_t>(source.rows);
  m.k_ = static_cast<uint32_t>(source.cols);
  m.kind_ = KindOf(source.dtype);
  const RecordLayout layout = Record(m.kind_);
  m.group_bytes_ = DivideUp<size_t>(source.cols, layout.steps) * layout.bytes;
  m.data_ = AlignedBuffer(MulOrThrow(m.n_groups(), m.group_bytes_, "packed matrix"));
  workers.Run(m.n_groups(), [&](size_t g, size_t) {
    uint8_t* group = m.data_.data() + g * m.group_bytes_;
    const uint64_t end = std::min<uint64_t>(source.rows, (g + 1) * kGroup);
    for (uint64_t output = g * kGroup; output < end; ++output) {
      PackRow(source, output, m.kind_, group);
    }
  });
  return m;
}

PackedGroups PackedMatrix::Groups(size_t first, size_t n) const {
  DCHECK(first + n <= n_groups());
  return {data_.data() + first * group_bytes_, group_bytes_, n, k_};
}

namespace {

// Lays the arrays of `rows` quantized rows out from `memory` on; 0 only counts the bytes.
QuantizedRows LayOut(uintptr_t memory, size_t rows, size_t blocks, size_t* bytes) {
  uintptr_t next = memory;
  const auto take = [&]<typename T>(size_t n, T** at) {
    *at = reinterpret_cast<T*>(next);
    next += RoundUp<size_t>(n * sizeof(T), 64);
  };
  const size_t n = rows * blocks;
  QuantizedRows x = {};
  x.blocks = blocks;
  take(n * kActBlock, &x.q);
  take(n, &x.scale);
  take(n, &x.scaled_sum);
  take(n, &x.half_sums);
  take(n, &x.starts);
  take(rows, &x.n_rests);
  take(n, &x.rest_block);
  take(n * kActBlock, &x.rest_q);
  take(n, &x.rest_scale);
  take(n, &x.rest_scaled_sum);
  take(n, &x.rest_half_sums);
  take(n, &x.rest_starts);
  *bytes = next - memory;
  return x;
}

size_t BytesOf(size_t rows, size_t blocks) {
  size_t bytes = 0;
  LayOut(0, rows, blocks, &bytes);
  return bytes;
}

}  // namespace

Activations::Activations(size_t max_rows, size_t max_k)
    : max_rows_(max_rows),
      max_blocks_(DivideUp<size_t>(max_k, kActBlock)),
      buffer_(BytesOf(max_rows_, max_blocks_)) {}

void Activations::Set(const Kernels& kernels, Workers& workers, Compute compute, Rows x) {
  x_ = x;
  compute_ = compute;
  is_quantized_ = compute == Compute::kFast && x.dim % kActBlock == 0;
  if (!is_quantized_) return;
  const size_t blocks = x.dim / kActBlock;
  CHECK(x.count <= max_rows_ && blocks <= max_blocks_);
  size_t bytes = 0;
  quantized_ = LayOut(reinterpret_cast<uintptr_t>(buffer_.data()), x.count, blocks, &bytes);
  constexpr size_t kFloatsOfTask = 16384;  // about 4 us
  const size_t rows_of_task = std::max<size_t>(1, kFloatsOfTask / x.dim);
  workers.Run(DivideUp(x.count, rows_of_task), [&](size_t task, size_t) {
    const size_t end = std::min(x.count, (task + 1) * rows_of_task);
    for (size_t r = task * rows_of_task; r < end; ++r) {
      kernels.matmul.quantize_row(x.row(r), quantized_.From(r));
    }
  });
}

namespace {

// Rows of a task: a multiple of the kernels' tiles of 3 and 6 rows.
constexpr size_t kTaskRows = 66;
// A task's product waits here when it must be added to what is in `out`: four groups, in L1.
constexpr size_t kSumFloats = 4 * kGroup * kTaskRows;

// Cost of a group with `rows` rows, in bytes of a weight read for one row: reading a byte takes
// about as long as eight rows' arithmetic on it.
size_t CostOfGroup(size_t group_bytes, size_t rows) { return group_bytes * (8 + rows) / 9; }

// How the products of a job are cut into tasks: tiles of groups, and inside a tile blocks of rows,
// so that consecutive tasks share weights.
struct Cut {
  size_t groups = 0, row_blocks = 0, tasks = 0;
};

class Tasks {
 public:
  Tasks(std::span<const MatMulJob> jobs, size_t rows, size_t n_workers) : jobs_(jobs) {
    row_blocks_ = DivideUp(rows, kTaskRows);
    block_rows_ = std::min(rows, kTaskRows);
    size_t cost = 0;
    for (const MatMulJob& job : jobs) {
      cost += job.w->n_groups() * CostOfGroup(GroupBytes(job), block_rows_) * row_blocks_;
    }
    // Eight tasks per thread even out their ends. Below 16 KiB (1 us) handing out costs too much;
    // above 512 KiB (50 us) the last task is waited for. Many rows profit from many groups to a
    // task: what a kernel prepares of the activations serves all of them.
    const size_t most = rows > 8 ? 8 << 20 : 512 << 10;
    cost_of_task_ = std::clamp<size_t>(cost / (8 * n_workers), 16 << 10, most);
  }

  Cut Of(const MatMulJob& job) const {
    size_t groups = cost_of_task_ / CostOfGroup(GroupBytes(job), block_rows_);
    if (job.accumulate) groups = std::min(groups, kSumFloats / (block_rows_ * kGroup));
    groups = std::clamp<size_t>(groups, 1, job.w->n_groups());
    return {groups, row_blocks_, DivideUp(job.w->n_groups(), groups) * row_blocks_};
  }

  size_t Count() const {
    size_t n = 0;
    for (const MatMulJob& job : jobs_) n += Of(job).tasks;
    return n;
  }

 private:
  static size_t GroupBytes(const MatMulJob& job) { return job.w->Groups(0, 0).group_bytes; }

  std::span<const MatMulJob> jobs_;
  size_t row_blocks_ = 0, block_rows_ = 0, cost_of_task_ = 0;
};

// Products of rows [row, row + n).
void Product(const Kernels& kernels, const Activations& x, const PackedMatrix& w,
             const PackedGroups& groups, size_t row, size_t n, float* out, size_t stride) {
  const auto kind = static_cast<size_t>(w.kind());
  const QuantizedRows* q = x.quantized();
  if (q != nullptr && kernels.matmul.fast[kind] != nullptr) {
    return kernels.matmul.fast[kind](groups, q->From(row), n, out, stride);
  }
  const bool fast = x.compute() == Compute::kFast && kernels.matmul.fast_float[kind] != nullptr;
  const auto product = fast ? kernels.matmul.fast_float[kind] : kernels.matmul.exact[kind];
  product(groups, x.rows().row(row), x.rows().stride, n, out, stride);
}

void RunTask(const Kernels& kernels, const Activations& x, const MatMulJob& job, const Cut& cut,
             size_t task) {
  const size_t group = task / cut.row_blocks * cut.groups;
  const size_t row = task % cut.row_blocks * kTaskRows;
  const size_t groups = std::min(cut.groups, job.w->n_groups() - group);
  const size_t rows = std::min(kTaskRows, x.rows().count - row);
  const size_t column = group * kGroup;
  const size_t columns = std::min<size_t>(groups * kGroup, job.w->outputs() - column);
  float* out = job.out.row(row) + column;

  // Results are far behind the caches when there are many rows.
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; c += kGroup) {
      __builtin_prefetch(out + r * job.out.stride + c, 1);
    }
  }
  alignas(64) float sums[kSumFloats];
  float* product = job.accumulate ? sums : out;
  const size_t stride = job.accumulate ? groups * kGroup : job.out.stride;
  Product(kernels, x, *job.w, job.w->Groups(group, groups), row, rows, product, stride);
  if (!job.accumulate && job.bias == nullptr) return;
  for (size_t r = 0; r < rows; ++r) {
    float* p = product + r * stride;
    float* o = out + r * job.out.stride;
    if (job.bias != nullptr) {
      for (size_t c = 0; c < columns; ++c) p[c] += job.bias[column + c];
    }
    if (job.accumulate) {
      for (size_t c = 0; c < columns; ++c) o[c] += p[c];
    }
  }
}

}  // namespace

void MatMul(const Kernels& kernels, Workers& workers, const Activations& x,
            std::span<const MatMulJob> jobs) {
  const size_t rows = x.rows().count;
  if (rows == 0) return;
  for (const MatMulJob& job : jobs) {
    CHECK(job.w->k() == x.rows().dim && job.out.count >= rows &&
          job.out.stride >= job.w->n_groups() * kGroup);
  }
  const Tasks tasks(jobs, rows, workers.size());
  workers.RunInStretches(tasks.Count(), [&](size_t task, size_t) {
    for (const MatMulJob& job : jobs) {
      const Cut cut = tasks.Of(job);
      if (task < cut.tasks) return RunTask(kernels, x, job, cut, task);
      task -= cut.tasks;
    }
  });
}

}  // namespace kvasir
