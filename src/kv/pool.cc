#include "kv/pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace kvasir {

namespace {

constexpr uint64_t kLargestSlab = uint64_t{2} << 20;  // a huge page
constexpr uint64_t kSlack = 64;                       // kernels may read this far behind a plane
constexpr uint32_t kNoPlane = UINT32_MAX;

uint64_t PlanesPerSlab(uint64_t slab_bytes, size_t plane_bytes) {
  return (slab_bytes - kSlack) / plane_bytes;
}

}  // namespace

std::string_view Name(PlaneUse use) {
  constexpr std::string_view kNames[kPlaneUses] = {
      "f32", "f16", "bf16", "q8", "q4", "sparse-bf16", "sparse-f16", "sparse-i8", "positions"};
  return kNames[static_cast<int>(use)];
}

// A set of indices below a limit that gives its lowest member.
class Pool::IndexSet {
 public:
  IndexSet() = default;
  IndexSet(size_t limit, bool full) : words_(DivideUp<size_t>(limit, 64)) {
    if (!full) return;
    for (size_t i = 0; i < limit; ++i) Insert(i);
  }
  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  size_t bytes() const { return words_.capacity() * sizeof(uint64_t); }
  bool Contains(size_t i) const { return (words_[i / 64] >> i % 64 & 1) != 0; }
  void Insert(size_t i) {
    CHECK(!Contains(i));
    words_[i / 64] |= uint64_t{1} << i % 64;
    first_ = std::min(first_, i / 64);
    ++count_;
  }
  void Erase(size_t i) {
    CHECK(Contains(i));
    words_[i / 64] &= ~(uint64_t{1} << i % 64);
    --count_;
  }
  uint32_t Lowest() {
    CHECK(count_ > 0);
    while (words_[first_] == 0) ++first_;
    return static_cast<uint32_t>(first_ * 64 +
                                 static_cast<size_t>(std::countr_zero(words_[first_])));
  }

 private:
  std::vector<uint64_t> words_;
  size_t first_ = 0;  // no member lies in an earlier word
  size_t count_ = 0;
};

struct Pool::Plane {
  uint32_t slab = 0, slot = 0;
  uint32_t references = 0;  // 0: not in use
  uint32_t resting = 0;     // of these
  uint32_t generation = 0;
  uint32_t tag = 0;  // of the owner
  PlaneUse use = PlaneUse::kF32;
};

struct Pool::Slab {
  size_t plane_bytes = 0;        // 0: not committed
  std::vector<uint32_t> planes;  // by slot
  IndexSet free;                 // slots
  size_t used() const { return planes.size() - free.count(); }
};

struct Pool::SizeClass {
  uint64_t per_slab = 0;
  uint64_t granted = 0;  // to reservations, and shared planes
  uint64_t shared = 0;   // planes without an owner
  uint64_t taken = 0;
  uint64_t resting = 0;  // planes with resting references alone
  uint64_t slabs = 0;
  IndexSet open;  // slabs with a free slot
  bool CanFreeSlab() const { return slabs > DivideUp(taken, per_slab); }
};

struct Pool::Reservation {
  struct Count {
    uint64_t granted = 0, taken = 0;
  };
  uint32_t tag = 0;
  std::map<size_t, Count> counts;
};

void Demand::Add(size_t plane_bytes, uint64_t n) {
  CHECK(plane_bytes > 0);
  if (n > 0) planes_[plane_bytes] += n;
}

void Demand::AddPositions(uint64_t n) {
  Add(kPositionBytes, n);
  positions_ += n;
}

void Demand::Add(const Demand& other) {
  for (const auto& [bytes, n] : other.planes_) Add(bytes, n);
  positions_ += other.positions_;
  side_bytes_ += other.side_bytes_;
}

Demand Demand::Times(uint64_t n) const {
  Demand product;
  for (const auto& [bytes, count] : planes_) product.Add(bytes, count * n);
  product.positions_ = positions_ * n;
  product.side_bytes_ = side_bytes_ * n;
  return product;
}

uint64_t Demand::bytes() const {
  uint64_t sum = side_bytes_;
  for (const auto& [bytes, n] : planes_) sum += bytes * n;
  return sum;
}

Pool::Pool(uint64_t budget_bytes) : budget_bytes_(budget_bytes) {
  // Room to align the start, and slack behind the last slab.
  map_bytes_ = AddOrThrow(budget_bytes, 2 * kLargestSlab, "KV budget");
  map_ = ::mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    Fail(Code::kIo, "KV budget: cannot reserve an address range of {} bytes: {}", map_bytes_,
         std::strerror(errno));
  }
  memory_ = reinterpret_cast<uint8_t*>(RoundUp(reinterpret_cast<uintptr_t>(map_), kLargestSlab));
  CutIntoSlabs(SlabBytesFor({}));
}

Pool::~Pool() {
  if (map_ != nullptr) ::munmap(map_, map_bytes_);
}

uint64_t Pool::SlabBytesFor(const Demand& demand) const {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  uint64_t slab = std::clamp(std::bit_floor(budget_bytes_ / 64), page, kLargestSlab);
  // A plane of the largest head in f32 is 128 KiB, so slabs of 2 MiB hold every plane.
  if (!demand.planes().empty()) {
    slab = std::max(slab, std::bit_ceil(uint64_t{demand.planes().rbegin()->first} + kSlack));
  }
  return slab;
}

// Only while nothing is granted.
void Pool::CutIntoSlabs(uint64_t slab_bytes) {
  if (slab_bytes == slab_bytes_) return;
  slab_bytes_ = slab_bytes;
  const size_t n = budget_bytes_ / slab_bytes;
  slabs_ = std::vector<Slab>(n);
  free_slabs_ = std::make_unique<IndexSet>(n, true);
  sizes_.clear();
  // A huge page must not make more than a slab resident.
  ::madvise(memory_, n * slab_bytes, slab_bytes < kLargestSlab ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
}

uint64_t Pool::InWholeSlabs(const Demand& demand) const {
  const uint64_t slab_bytes = SlabBytesFor(demand);
  uint64_t slabs = DivideUp(demand.side_bytes(), slab_bytes);
  for (const auto& [bytes, n] : demand.planes()) {
    slabs += DivideUp(n, PlanesPerSlab(slab_bytes, bytes));
  }
  return MulOrThrow(slabs, slab_bytes, "KV demand");
}

bool Pool::FitsEmpty(const Demand& demand) const { return InWholeSlabs(demand) <= budget_bytes_; }

bool Pool::Fits(const Demand& demand, const Demand& less) const {
  if (Empty()) return FitsEmpty(demand);
  uint64_t slabs = DivideUp(side_bytes_ + demand.side_bytes() - less.side_bytes(), slab_bytes_);
  for (const auto& [bytes, size] : sizes_) {
    const auto asked = demand.planes().find(bytes);
    const uint64_t more = asked == demand.planes().end() ? 0 : asked->second;
    const auto given = less.planes().find(bytes);
    const uint64_t fewer = given == less.planes().end() ? 0 : given->second;
    slabs += DivideUp(size.granted + more - fewer, size.per_slab);
  }
  for (const auto& [bytes, n] : demand.planes()) {
    if (sizes_.contains(bytes)) continue;
    const uint64_t per_slab = PlanesPerSlab(slab_bytes_, bytes);
    if (per_slab == 0) return false;  // slabs were cut for smaller planes
    slabs += DivideUp(n, per_slab);
  }
  return slabs <= slabs_.size();
}

void Pool::AddGranted(size_t plane_bytes, int64_t n) {
  const auto [it, is_new] = sizes_.try_emplace(plane_bytes);
  SizeClass& size = it->second;
  if (is_new) {
    size.per_slab = PlanesPerSlab(slab_bytes_, plane_bytes);
    size.open = IndexSet(slabs_.size(), false);
  }
  size.granted += static_cast<uint64_t>(n);
  granted_bytes_ += static_cast<uint64_t>(n) * plane_bytes;
  granted_bytes_peak_ = std::max(granted_bytes_peak_, granted_bytes_);
}

ReservationId Pool::Grant(const Demand& demand) {
  if (!Fits(demand)) return kNoReservation;
  if (Empty()) CutIntoSlabs(SlabBytesFor(demand));
  const ReservationId id = ++last_reservation_;
  Reservation& reservation = reservations_[id];
  reservation.tag = ++last_tag_;
  owner_of_tag_[reservation.tag] = id;
  CHECK(Extend(id, demand));
  return id;
}

bool Pool::Extend(ReservationId id, const Demand& demand) {
  Reservation& reservation = reservations_.at(id);
  if (!Fits(demand)) return false;
  for (const auto& [bytes, n] : demand.planes()) {
    reservation.counts[bytes].granted += n;
    AddGranted(bytes, static_cast<int64_t>(n));
  }
  side_bytes_ += demand.side_bytes();
  granted_bytes_ += demand.side_bytes();
  granted_bytes_peak_ = std::max(granted_bytes_peak_, granted_bytes_);
  bytes_peak_ = std::max(bytes_peak_, bytes());
  return true;
}

void Pool::ReturnSide(uint64_t bytes) {
  CHECK(bytes <= side_bytes_);
  side_bytes_ -= bytes;
  granted_bytes_ -= bytes;
}

void Pool::Shrink(ReservationId id, const Demand& demand) {
  for (auto& [bytes, count] : reservations_.at(id).counts) {
    const auto wanted = demand.planes().find(bytes);
    const uint64_t n = std::max(count.taken, wanted == demand.planes().end() ? 0 : wanted->second);
    if (n >= count.granted) continue;
    AddGranted(bytes, -static_cast<int64_t>(count.granted - n));
    count.granted = n;
  }
}

void Pool::End(ReservationId id) {
  const auto it = reservations_.find(id);
  CHECK(it != reservations_.end());
  for (const auto& [bytes, count] : it->second.counts) {
    AddGranted(bytes, -static_cast<int64_t>(count.granted - count.taken));
    sizes_.at(bytes).shared += count.taken;
  }
  owner_of_tag_.erase(it->second.tag);
  reservations_.erase(it);
}

bool Pool::Share(ReservationId id) {
  Reservation& reservation = reservations_.at(id);
  const Demand taken = Taken(id);
  if (!Fits(taken)) return false;
  for (const auto& [bytes, n] : taken.planes()) {
    AddGranted(bytes, static_cast<int64_t>(n));
    sizes_.at(bytes).shared += n;
    reservation.counts.at(bytes).taken = 0;
  }
  Retag(id);
  return true;
}

void Pool::ShareInPlace(ReservationId id) {
  for (auto& [bytes, count] : reservations_.at(id).counts) {
    sizes_.at(bytes).shared += count.taken;
    count.granted -= count.taken;
    count.taken = 0;
  }
  Retag(id);
}

void Pool::ShareInPlace(PlaneId id) {
  const ReservationId owner = Owner(id);
  if (owner == kNoReservation) return;
  const size_t bytes = Bytes(id);
  Reservation::Count& count = reservations_.at(owner).counts.at(bytes);
  --count.taken;
  --count.granted;
  ++sizes_.at(bytes).shared;
  planes_[id.index].tag = 0;
}

// Planes that name the old tag have no owner any more.
void Pool::Retag(ReservationId id) {
  Reservation& reservation = reservations_.at(id);
  owner_of_tag_.erase(reservation.tag);
  reservation.tag = ++last_tag_;
  owner_of_tag_[reservation.tag] = id;
}

Demand Pool::Taken(ReservationId id) const {
  Demand taken;
  for (const auto& [bytes, count] : reservations_.at(id).counts) taken.Add(bytes, count.taken);
  return taken;
}

uint64_t Pool::Left(ReservationId id, size_t plane_bytes) const {
  const Reservation& reservation = reservations_.at(id);
  const auto it = reservation.counts.find(plane_bytes);
  return it == reservation.counts.end() ? 0 : it->second.granted - it->second.taken;
}

PlaneId Pool::Take(ReservationId id, size_t plane_bytes, PlaneUse use) {
  Reservation& reservation = reservations_.at(id);
  Reservation::Count& count = reservation.counts[plane_bytes];
  CHECK_MSG(count.taken < count.granted, "reservation {}: {} planes of {} bytes were granted", id,
            count.granted, plane_bytes);
  ++count.taken;
  if (free_planes_.empty()) {
    free_planes_.push_back(static_cast<uint32_t>(planes_.size()));
    planes_.emplace_back();
  }
  const uint32_t index = free_planes_.back();
  free_planes_.pop_back();
  Plane& plane = planes_[index];
  plane.references = 1;
  plane.resting = 0;
  plane.tag = reservation.tag;
  plane.use = use;

  SizeClass& size = sizes_.at(plane_bytes);
  if (size.open.empty()) OpenSlab(plane_bytes, size);
  Place(index, size);
  ++size.taken;
  bytes_ += plane_bytes;
  bytes_peak_ = std::max(bytes_peak_, bytes());
  bytes_by_use_[static_cast<size_t>(use)] += plane_bytes;
  return {.index = index, .generation = plane.generation};
}

// Into the lowest free slot.
void Pool::Place(uint32_t plane, SizeClass& size) {
  const uint32_t index = size.open.Lowest();
  Slab& slab = slabs_[index];
  const uint32_t slot = slab.free.Lowest();
  slab.free.Erase(slot);
  slab.planes[slot] = plane;
  if (slab.free.empty()) size.open.Erase(index);
  planes_[plane].slab = index;
  planes_[plane].slot = slot;
}

void Pool::OpenSlab(size_t plane_bytes, SizeClass& size) {
  if (free_slabs_->empty()) {
    // All slabs of this size are full and it was granted more, so it has fewer slabs than its
    // grants come to. The grants of all sizes fit: some other size has more slabs than it needs.
    const auto sparse = std::find_if(sizes_.begin(), sizes_.end(),
                                     [](const auto& s) { return s.second.CanFreeSlab(); });
    CHECK(sparse != sizes_.end());
    EmptySparsestSlab(sparse->first, sparse->second);
  }
  const uint32_t index = free_slabs_->Lowest();
  free_slabs_->Erase(index);
  Slab& slab = slabs_[index];
  slab.plane_bytes = plane_bytes;
  slab.planes.assign(size.per_slab, kNoPlane);
  slab.free = IndexSet(size.per_slab, true);
  size.open.Insert(index);
  ++size.slabs;
}

void Pool::CloseSlab(uint32_t index, SizeClass& size) {
  slabs_[index] = Slab();
  --size.slabs;
  free_slabs_->Insert(index);
  CHECK(::madvise(memory_ + index * slab_bytes_, slab_bytes_, MADV_DONTNEED) == 0);
}

void Pool::EmptySparsestSlab(size_t plane_bytes, SizeClass& size) {
  uint32_t sparsest = 0;
  size_t fewest = SIZE_MAX;
  for (uint32_t i = 0; i < slabs_.size(); ++i) {
    // On a tie the highest: low slabs are filled first.
    if (slabs_[i].plane_bytes == plane_bytes && slabs_[i].used() <= fewest) {
      sparsest = i;
      fewest = slabs_[i].used();
    }
  }
  CHECK(fewest < size.per_slab);
  size.open.Erase(sparsest);
  for (const uint32_t plane : slabs_[sparsest].planes) {
    if (plane == kNoPlane) continue;
    const uint8_t* from = memory_ + sparsest * slab_bytes_ + planes_[plane].slot * plane_bytes;
    Place(plane, size);
    std::memcpy(memory_ + planes_[plane].slab * slab_bytes_ + planes_[plane].slot * plane_bytes,
                from, plane_bytes);
  }
  ++epoch_;
  CloseSlab(sparsest, size);
}

void Pool::Compact() {
  for (auto& [bytes, size] : sizes_) {
    while (size.CanFreeSlab()) EmptySparsestSlab(bytes, size);
  }
}

const Pool::Plane& Pool::Get(PlaneId id) const {
  CHECK(id.index < planes_.size());
  const Plane& plane = planes_[id.index];
  CHECK(plane.generation == id.generation && plane.references > 0);
  return plane;
}

void Pool::AddReference(PlaneId id) {
  Get(id);
  Plane& plane = planes_[id.index];
  if (plane.references == plane.resting) --sizes_.at(Bytes(id)).resting;
  ++plane.references;
}

void Pool::Rest(PlaneId id) {
  Get(id);
  Plane& plane = planes_[id.index];
  CHECK(plane.resting < plane.references);
  if (++plane.resting == plane.references) ++sizes_.at(Bytes(id)).resting;
}

Demand Pool::resting() const {
  Demand demand;
  for (const auto& [bytes, size] : sizes_) demand.Add(bytes, size.resting);
  return demand;
}

void Pool::Drop(PlaneId id, ReservationId by) {
  Get(id);
  Plane& plane = planes_[id.index];
  const size_t bytes = slabs_[plane.slab].plane_bytes;
  const ReservationId owner = Owner(id);
  SizeClass& size = sizes_.at(bytes);
  const bool rested = plane.resting == plane.references;
  if (by == kNoReservation) {
    CHECK(plane.resting > 0);
    --plane.resting;
  }
  --plane.references;
  CHECK(plane.resting <= plane.references);
  const bool rests = plane.references > 0 && plane.resting == plane.references;
  if (rested && !rests) --size.resting;
  if (rests && !rested) ++size.resting;
  if (plane.references > 0) {
    if (owner == by) ShareInPlace(id);
    return;
  }
  if (owner != kNoReservation) {
    --reservations_.at(owner).counts.at(bytes).taken;
  } else {
    --size.shared;
    AddGranted(bytes, -1);
  }
  --size.taken;
  bytes_ -= bytes;
  bytes_by_use_[static_cast<size_t>(plane.use)] -= bytes;
  ++plane.generation;
  free_planes_.push_back(id.index);

  Slab& slab = slabs_[plane.slab];
  slab.planes[plane.slot] = kNoPlane;
  if (slab.free.empty()) size.open.Insert(plane.slab);
  slab.free.Insert(plane.slot);
  if (slab.used() == 0) {
    size.open.Erase(plane.slab);
    CloseSlab(plane.slab, size);
  }
}

uint32_t Pool::References(PlaneId id) const { return Get(id).references; }

ReservationId Pool::Owner(PlaneId id) const {
  const auto it = owner_of_tag_.find(Get(id).tag);
  return it == owner_of_tag_.end() ? kNoReservation : it->second;
}

size_t Pool::Bytes(PlaneId id) const { return slabs_[Get(id).slab].plane_bytes; }
PlaneUse Pool::Use(PlaneId id) const { return Get(id).use; }

const uint8_t* Pool::Address(PlaneId id) const {
  const Plane& plane = Get(id);
  return memory_ + plane.slab * slab_bytes_ + plane.slot * slabs_[plane.slab].plane_bytes;
}

uint8_t* Pool::Address(PlaneId id) {
  return const_cast<uint8_t*>(static_cast<const Pool*>(this)->Address(id));
}

uint64_t Pool::n_planes() const { return planes_.size() - free_planes_.size(); }

uint64_t Pool::committed_bytes() const {
  return (slabs_.size() - free_slabs_->count()) * slab_bytes_;
}

uint64_t Pool::table_bytes() const {
  uint64_t bytes = planes_.capacity() * sizeof(Plane) + free_planes_.capacity() * sizeof(uint32_t) +
                   slabs_.capacity() * sizeof(Slab) + free_slabs_->bytes();
  for (const Slab& slab : slabs_) {
    bytes += slab.planes.capacity() * sizeof(uint32_t) + slab.free.bytes();
  }
  for (const auto& size : sizes_) bytes += sizeof(size) + size.second.open.bytes();
  for (const auto& reservation : reservations_) {
    bytes += sizeof(reservation) +
             reservation.second.counts.size() * (sizeof(size_t) + sizeof(Reservation::Count));
  }
  return bytes;
}

void Pool::ResetPeaks() {
  bytes_peak_ = bytes();
  granted_bytes_peak_ = granted_bytes_;
}

void Pool::CheckIntegrity() const {
  CheckSlabs();
  CheckGrants();
  CHECK(bytes() <= bytes_peak_ && granted_bytes_ <= granted_bytes_peak_);
  CHECK(bytes() <= granted_bytes_ && bytes_ <= committed_bytes());
  CHECK(committed_bytes() <= budget_bytes_);
}

// Every plane sits in the slot that names it, every slot is free or names a plane in use.
void Pool::CheckSlabs() const {
  uint64_t taken = 0;
  std::map<size_t, uint64_t> slabs_of, taken_of, resting_of;
  for (uint32_t i = 0; i < slabs_.size(); ++i) {
    const Slab& slab = slabs_[i];
    CHECK(free_slabs_->Contains(i) == (slab.plane_bytes == 0));
    if (slab.plane_bytes == 0) continue;
    const SizeClass& size = sizes_.at(slab.plane_bytes);
    CHECK(slab.planes.size() == size.per_slab && slab.used() > 0);
    CHECK(slab.planes.size() * slab.plane_bytes + kSlack <= slab_bytes_);
    CHECK(size.open.Contains(i) == !slab.free.empty());
    for (uint32_t slot = 0; slot < slab.planes.size(); ++slot) {
      const uint32_t index = slab.planes[slot];
      CHECK(slab.free.Contains(slot) == (index == kNoPlane));
      if (index == kNoPlane) continue;
      const Plane& plane = planes_[index];
      CHECK(plane.references > 0 && plane.slab == i && plane.slot == slot);
      CHECK(plane.resting <= plane.references);
      resting_of[slab.plane_bytes] += plane.resting == plane.references;
    }
    ++slabs_of[slab.plane_bytes];
    taken_of[slab.plane_bytes] += slab.used();
    taken += slab.used();
  }
  CHECK(taken == n_planes());
  for (const uint32_t index : free_planes_) CHECK(planes_[index].references == 0);
  for (const auto& [bytes, size] : sizes_) {
    CHECK(size.slabs == slabs_of[bytes] && size.taken == taken_of[bytes]);
    CHECK(size.resting == resting_of[bytes]);
  }
}

// Planes by owner add up to what reservations say they took, and grants cover planes.
void Pool::CheckGrants() const {
  std::map<size_t, uint64_t> shared, granted;
  std::map<std::pair<ReservationId, size_t>, uint64_t> taken;
  uint64_t by_use[kPlaneUses] = {};
  for (const Plane& plane : planes_) {
    if (plane.references == 0) continue;
    const size_t bytes = slabs_[plane.slab].plane_bytes;
    by_use[static_cast<size_t>(plane.use)] += bytes;
    const auto owner = owner_of_tag_.find(plane.tag);
    if (owner == owner_of_tag_.end()) {
      ++shared[bytes];
    } else {
      ++taken[{owner->second, bytes}];
    }
  }
  CHECK(owner_of_tag_.size() == reservations_.size());
  for (const auto& [id, reservation] : reservations_) {
    CHECK(owner_of_tag_.at(reservation.tag) == id);
    for (const auto& [bytes, count] : reservation.counts) {
      CHECK(count.taken == (taken[{id, bytes}]) && count.taken <= count.granted);
      granted[bytes] += count.granted;
    }
  }
  uint64_t slabs = DivideUp(side_bytes_, slab_bytes_), bytes_granted = side_bytes_;
  for (const auto& [bytes, size] : sizes_) {
    CHECK(size.shared == shared[bytes] && size.granted == granted[bytes] + size.shared);
    CHECK(size.taken <= size.granted);
    slabs += DivideUp(size.granted, size.per_slab);
    bytes_granted += size.granted * bytes;
  }
  CHECK(slabs <= slabs_.size() && bytes_granted == granted_bytes_);
  uint64_t bytes = 0;
  for (int use = 0; use < kPlaneUses; ++use) {
    CHECK(by_use[use] == bytes_by_use_[use]);
    bytes += by_use[use];
  }
  CHECK(bytes == bytes_);
}

}  // namespace kvasir
