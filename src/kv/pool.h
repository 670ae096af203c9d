// Memory of KV planes: one fixed budget, cut into slabs of one plane size each.
//
// Invariants  [contract: pool.budget, pool.grant]
//   - Slabs in use never exceed the budget: planes of one size fill whole slabs, and the sum of
//     granted planes per size, rounded up to slabs, fits. So a granted plane can always be taken:
//     when no slab is free although one was granted, planes of a sparse size are moved together
//     (ids stay valid, addresses do not) until a slab is free.
//   - A plane belongs to the reservation it was taken under, or it is shared. It becomes shared
//     together with its place in the grant, which needs no room; only Share, after which the grant
//     is whole again, may be refused.
//   - A slab is committed when its first plane is taken, slabs are filled lowest first, and an
//     empty slab goes back to the system: resident memory follows the ledger.
//
// Cost     About 32 bytes of table per plane. Take and Drop touch a few bitmap words, except when
//          planes must move; Share and End are O(sizes).
// Threads  Engine thread only, but Address may be called from anywhere while nobody changes the
//          pool. Addresses are valid until the pool's epoch changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernels/plane.h"

namespace kvasir {

enum class Tier : uint8_t { kMemory };

struct PlaneId {
  static constexpr uint32_t kNone = UINT32_MAX;
  uint32_t index = kNone;
  uint32_t generation = 0;  // raised when the index is used again: a stale id is a CHECK
  Tier tier = Tier::kMemory;
  bool valid() const { return index != kNone; }
  bool operator==(const PlaneId&) const = default;
};

// What a plane's bytes count as in the ledger.
enum class PlaneUse : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8,
  kQ4,
  kSparseBF16,
  kSparseF16,
  kSparseI8,
  kPositions
};
inline constexpr int kPlaneUses = kCodecs + 1;
constexpr PlaneUse UseOf(Codec codec) { return static_cast<PlaneUse>(codec); }
std::string_view Name(PlaneUse use);  // "f16", "positions"
inline constexpr size_t kPositionBytes = kPageEntries * sizeof(uint32_t);

// Planes per size: what a reservation asks for. Sums and multiples are component-wise.
class Demand {
 public:
  void Add(size_t plane_bytes, uint64_t n);
  void AddPositions(uint64_t n);  // planes of positions, which only packed lanes have
  // Bytes outside of planes that count against the budget all the same: what a policy records.
  void AddSide(uint64_t bytes) { side_bytes_ += bytes; }
  void Add(const Demand& other);
  Demand Times(uint64_t n) const;
  const std::map<size_t, uint64_t>& planes() const { return planes_; }
  uint64_t positions() const { return positions_; }  // of planes()
  uint64_t side_bytes() const { return side_bytes_; }
  bool empty() const { return planes_.empty() && side_bytes_ == 0; }
  uint64_t bytes() const;

 private:
  std::map<size_t, uint64_t> planes_;  // plane bytes -> count, never 0
  uint64_t positions_ = 0;
  uint64_t side_bytes_ = 0;
};

// Who may take planes: granted counts per size, and how many of them are taken.
using ReservationId = uint32_t;
inline constexpr ReservationId kNoReservation = 0;

class Pool {
 public:
  // Slabs are 2 MiB; under small budgets the largest power of two up to a 64th of the budget, and
  // large enough for the planes of the first grant. Errors: kIo when the system refuses the address
  // range.
  explicit Pool(uint64_t budget_bytes);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Whether `demand` could be granted on top of everything granted now, if `less` of that were
  // given back; on an empty pool.
  bool Fits(const Demand& demand, const Demand& less = {}) const;
  bool FitsEmpty(const Demand& demand) const;
  // Bytes of the slabs that an empty pool would need for it.
  uint64_t InWholeSlabs(const Demand& demand) const;
  // kNoReservation when it does not fit now.
  ReservationId Grant(const Demand& demand);
  bool Extend(ReservationId id, const Demand& demand);
  // Ends the reservation: what is granted and not taken is given back, planes that were taken stay
  // until their last reference goes, as shared ones.
  void End(ReservationId id);
  // Planes taken under `id` become shared: they no longer count against its grant. False (and no
  // change) when the budget has no room for the grant to be whole again.
  bool Share(ReservationId id);
  // The same, but the planes take their place in the grant with them: it needs no room, and the
  // reservation is left with what it has not taken.
  void ShareInPlace(ReservationId id);
  // The same for one plane; nothing happens to one that is shared already.
  void ShareInPlace(PlaneId id);
  // Grants less: no fewer planes than are taken, and nothing that was not granted before. Side
  // bytes are not touched.
  void Shrink(ReservationId id, const Demand& demand);
  Demand Taken(ReservationId id) const;
  // Planes of this size that can still be taken.
  uint64_t Left(ReservationId id, size_t plane_bytes) const;

  // Side bytes belong to nobody in the pool: who was granted some gives them back by hand.
  void ReturnSide(uint64_t bytes);
  uint64_t side_bytes() const { return side_bytes_; }

  // A plane with one reference. CHECKs that the reservation has one left.
  PlaneId Take(ReservationId id, size_t plane_bytes, PlaneUse use);
  void AddReference(PlaneId id);
  // Turns one reference into a resting one: of somebody who has no reservation any more.
  void Rest(PlaneId id);
  // Drops one reference; the last one frees the plane. `by`: the reservation of the lane set that
  // lets go; a plane it took that others still refer to becomes shared. None: a resting reference.
  void Drop(PlaneId id, ReservationId by);
  uint32_t References(PlaneId id) const;
  ReservationId Owner(PlaneId id) const;  // kNoReservation: shared
  size_t Bytes(PlaneId id) const;
  PlaneUse Use(PlaneId id) const;

  uint8_t* Address(PlaneId id);
  const uint8_t* Address(PlaneId id) const;
  uint64_t epoch() const { return epoch_; }  // changes when planes moved
  // Moves planes together if that empties slabs, and returns those to the system.
  void Compact();

  uint64_t budget_bytes() const { return budget_bytes_; }
  uint64_t slab_bytes() const { return slab_bytes_; }
  uint64_t n_planes() const;                               // taken
  Demand resting() const;                                  // planes with resting references alone
  uint64_t bytes() const { return bytes_ + side_bytes_; }  // planes taken, and side bytes
  uint64_t bytes_peak() const { return bytes_peak_; }
  uint64_t bytes(PlaneUse use) const { return bytes_by_use_[static_cast<size_t>(use)]; }
  uint64_t granted_bytes() const {
    return granted_bytes_;
  }  // planes granted, taken or not, and shared
  uint64_t granted_bytes_peak() const { return granted_bytes_peak_; }
  uint64_t committed_bytes() const;  // slabs in use
  uint64_t table_bytes() const;
  void ResetPeaks();
  // Recounts everything; aborts on the first contradiction. For tests.
  void CheckIntegrity() const;

 private:
  struct Plane;
  struct Slab;
  struct SizeClass;
  struct Reservation;
  class IndexSet;

  uint64_t SlabBytesFor(const Demand& demand) const;
  bool Empty() const { return reservations_.empty() && granted_bytes_ == 0; }
  void CutIntoSlabs(uint64_t slab_bytes);
  void AddGranted(size_t plane_bytes, int64_t n);
  void Retag(ReservationId id);
  void OpenSlab(size_t plane_bytes, SizeClass& size);
  void CloseSlab(uint32_t slab, SizeClass& size);
  void EmptySparsestSlab(size_t plane_bytes, SizeClass& size);
  void Place(uint32_t plane, SizeClass& size);
  const Plane& Get(PlaneId id) const;
  void CheckSlabs() const;
  void CheckGrants() const;

  uint64_t budget_bytes_ = 0, slab_bytes_ = 0, epoch_ = 0;
  uint64_t bytes_ = 0, bytes_peak_ = 0, granted_bytes_ = 0, granted_bytes_peak_ = 0;
  uint64_t bytes_by_use_[kPlaneUses] = {};
  uint64_t side_bytes_ = 0;
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
  uint8_t* memory_ =
      nullptr;  // address range of the whole budget; slabs are committed on first use
  std::vector<Plane> planes_;
  std::vector<uint32_t> free_planes_;  // indices of planes_ that are not in use
  std::vector<Slab> slabs_;
  std::unique_ptr<IndexSet> free_slabs_;
  std::map<size_t, SizeClass> sizes_;
  std::map<ReservationId, Reservation> reservations_;
  // A plane names its owner by a tag, so that Share and End change one tag and no plane. A tag
  // without an entry here means shared.
  std::unordered_map<uint32_t, ReservationId> owner_of_tag_;
  ReservationId last_reservation_ = kNoReservation;
  uint32_t last_tag_ = 0;
};

}  // namespace kvasir
