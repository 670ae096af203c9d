// Memory of KV planes: one fixed budget, cut into slabs of one plane size each.
//
// Invariants  [contract: pool.budget, pool.grant]
//   Slabs in use never exceed the budget: planes of one size fill whole slabs, and the sum of granted planes
//   per size, rounded up to slabs, fits. So a granted plane can always be taken: when no slab is
//   free although one was granted, planes of a sparse size are moved together (ids stay valid, addresses
//   do not) until a slab is free.
//   A slab is committed when its first plane is taken, slabs are filled lowest first, and an empty slab goes
//   back to the system: resident memory follows the ledger.
// Cost     32 bytes per plane of table. Take and Drop are O(1) except when planes must move.
// Threads  Engine thread only. Addresses are valid until the pool's epoch changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
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
enum class PlaneUse : uint8_t { kF32, kF16, kBF16, kQ8, kPositions };
inline constexpr int kPlaneUses = 5;

// Planes per size: what a reservation asks for. Sums and multiples are component-wise.
class Demand {
 public:
  void Add(size_t plane_bytes, uint64_t n);
  void Add(const Demand& other);
  Demand Times(uint64_t n) const;
  const std::map<size_t, uint64_t>& planes() const { return planes_; }
  uint64_t bytes() const;

 private:
  std::map<size_t, uint64_t> planes_;  // plane bytes -> count
};

// Who may take planes: granted counts per size, and how many of them are taken.
using ReservationId = uint32_t;
inline constexpr ReservationId kNoReservation = 0;

class Pool {
 public:
  // Slabs are 2 MiB, smaller when the budget is small.
  explicit Pool(uint64_t budget_bytes);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Whether `demand` could be granted on top of everything granted now; on an empty pool.
  bool Fits(const Demand& demand) const;
  bool FitsEmpty(const Demand& demand) const;
  // kNoReservation when it does not fit now.
  ReservationId Grant(const Demand& demand);
  bool Extend(ReservationId id, const Demand& demand);
  // Gives back what is granted and not taken.
  void Trim(ReservationId id);
  // Ends the reservation. Planes that are still referenced elsewhere stay, counted as shared.
  void End(ReservationId id);
  // Planes taken under `id` become shared: they no longer count against its grant. False (and no change)
  // when the budget has no room for the grant to be whole again.
  bool Share(ReservationId id);

  // A plane with one reference. CHECKs that the reservation has one left.
  PlaneId Take(ReservationId id, size_t plane_bytes, PlaneUse use);
  void AddReference(PlaneId id);
  // Drops one reference; the last one frees the plane. `by`: the reservation of the lane set that lets go; a
  // plane it took that others still refer to becomes shared.
  void Drop(PlaneId id, ReservationId by);
  uint32_t References(PlaneId id) const;
  ReservationId Owner(PlaneId id) const;  // kNoReservation: shared

  uint8_t* Address(PlaneId id);
  const uint8_t* Address(PlaneId id) const;
  uint64_t epoch() const { return epoch_; }  // changes when planes moved
  // Moves planes together when that empties slabs, and returns those to the system.
  void Compact();

  uint64_t budget_bytes() const { return budget_bytes_; }
  uint64_t slab_bytes() const { return slab_bytes_; }
  uint64_t bytes() const { return bytes_; }            // planes taken
  uint64_t bytes(PlaneUse use) const { return bytes_by_use_[static_cast<size_t>(use)]; }
  uint64_t granted_bytes() const;                      // planes granted
  uint64_t committed_bytes() const;                    // slabs in use
  uint64_t table_bytes() const;
  void CheckIntegrity() const;

 private:
  struct Plane;
  struct SizeClass;
  struct Slab;
  struct Reservation;
  uint64_t SlabsFor(size_t plane_bytes, uint64_t planes) const;

  uint64_t budget_bytes_ = 0, slab_bytes_ = 0, bytes_ = 0, epoch_ = 0;
  uint64_t bytes_by_use_[kPlaneUses] = {};
  uint8_t* memory_ = nullptr;  // address range of the whole budget; slabs are committed on first use
  std::vector<Plane> planes_;
  std::vector<Slab> slabs_;
  std::map<size_t, SizeClass> classes_;
  std::map<ReservationId, Reservation> reservations_;
};

}  // namespace kvasir
