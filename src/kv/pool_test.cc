#include "kv/pool.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>

namespace kvasir {
namespace {

constexpr uint64_t kMiB = 1 << 20;

Demand Planes(size_t plane_bytes, uint64_t n) {
  Demand demand;
  demand.Add(plane_bytes, n);
  return demand;
}

// Bytes of [begin, begin + bytes) that are backed by memory.
uint64_t ResidentBytes(const uint8_t* begin, uint64_t bytes) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((bytes + page - 1) / page);
  EXPECT_EQ(::mincore(const_cast<uint8_t*>(begin), bytes, pages.data()), 0);
  uint64_t n = 0;
  for (const unsigned char p : pages) n += p & 1;
  return n * page;
}

TEST(Demand, AddsAndMultipliesBySize) {
  Demand demand = Planes(1024, 2);
  demand.Add(1024, 1);
  demand.Add(512, 0);
  demand.AddPositions(4);
  EXPECT_EQ(demand.planes(), (std::map<size_t, uint64_t>{{256, 4}, {1024, 3}}));
  const Demand twice = demand.Times(2);
  EXPECT_EQ(twice.planes(), (std::map<size_t, uint64_t>{{256, 8}, {1024, 6}}));
  EXPECT_EQ(twice.positions(), 8u);
  EXPECT_EQ(demand.bytes(), 4u * 256 + 3 * 1024);
  Demand sum = demand;
  sum.Add(twice);
  EXPECT_EQ(sum.planes(), (std::map<size_t, uint64_t>{{256, 12}, {1024, 9}}));
  EXPECT_EQ(sum.positions(), 12u);
}

TEST(Pool, CutsSmallerSlabsUnderSmallBudgets) {
  EXPECT_EQ(Pool(1024 * kMiB).slab_bytes(), 2 * kMiB);
  EXPECT_EQ(Pool(64 * kMiB).slab_bytes(), 1 * kMiB);
  EXPECT_EQ(Pool(3 * kMiB).slab_bytes(), 32u << 10);
  // At least a page, and a plane with its slack.
  Pool pool(256 << 10);
  EXPECT_EQ(pool.slab_bytes(), 4096u);
  const ReservationId id = pool.Grant(Planes(8192, 1));
  ASSERT_NE(id, kNoReservation);
  EXPECT_EQ(pool.slab_bytes(), 16384u);
  pool.End(id);
  ASSERT_NE(pool.Grant(Planes(256, 1)), kNoReservation);
  EXPECT_EQ(pool.slab_bytes(), 4096u);
}

TEST(Pool, FillsSlabsLowestFirst) {
  Pool pool(256 << 10);  // slabs of 4 KiB hold 3 planes of 1 KiB
  const ReservationId id = pool.Grant(Planes(1024, 7));
  std::vector<PlaneId> planes;
  for (int i = 0; i < 7; ++i) planes.push_back(pool.Take(id, 1024, PlaneUse::kF16));
  const uint8_t* first = pool.Address(planes[0]);
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(pool.Address(planes[i]), first + (i / 3) * 4096 + (i % 3) * 1024);
  }
  EXPECT_EQ(pool.committed_bytes(), 3u * 4096);
  pool.Drop(planes[4], id);
  pool.Drop(planes[1], id);
  EXPECT_EQ(pool.Address(pool.Take(id, 1024, PlaneUse::kF16)), first + 1024);
  EXPECT_EQ(pool.Address(pool.Take(id, 1024, PlaneUse::kF16)), first + 4096 + 1024);
  pool.CheckIntegrity();
}

TEST(Pool, CountsBytesByUseAndTheirPeak) {
  Pool pool(kMiB);
  Demand demand = Planes(1024, 2);
  demand.AddPositions(1);
  const ReservationId id = pool.Grant(demand);
  EXPECT_EQ(pool.granted_bytes(), 2u * 1024 + 256);
  EXPECT_EQ(pool.bytes(), 0u);
  const PlaneId k = pool.Take(id, 1024, PlaneUse::kQ8);
  const PlaneId positions = pool.Take(id, 256, PlaneUse::kPositions);
  EXPECT_EQ(pool.bytes(PlaneUse::kQ8), 1024u);
  EXPECT_EQ(pool.bytes(PlaneUse::kPositions), 256u);
  pool.Drop(k, id);
  EXPECT_EQ(pool.bytes(), 256u);
  EXPECT_EQ(pool.bytes_peak(), 1024u + 256);
  pool.ResetPeaks();
  EXPECT_EQ(pool.bytes_peak(), 256u);
  pool.Drop(positions, id);
  pool.End(id);
  EXPECT_EQ(pool.granted_bytes(), 0u);
  EXPECT_EQ(pool.granted_bytes_peak(), 2u * 1024 + 256);
  pool.CheckIntegrity();
}

TEST(Pool, GrantsOnlyWhatFitsInWholeSlabs) {
  Pool pool(256 << 10);  // 64 slabs of 4 KiB
  EXPECT_TRUE(pool.FitsEmpty(Planes(1024, 3 * 64)));
  EXPECT_FALSE(pool.FitsEmpty(Planes(1024, 3 * 64 + 1)));
  const ReservationId many = pool.Grant(Planes(1024, 3 * 63 - 1));
  ASSERT_NE(many, kNoReservation);
  EXPECT_EQ(pool.Grant(Planes(1024, 3 + 2)), kNoReservation);
  // The sum is rounded, not each grant: a third plane of the last slab is still there.
  const ReservationId one = pool.Grant(Planes(1024, 1));
  ASSERT_NE(one, kNoReservation);
  EXPECT_FALSE(pool.Extend(one, Planes(512, 8)));  // 7 fit into a slab
  EXPECT_TRUE(pool.Extend(one, Planes(512, 7)));
  EXPECT_FALSE(pool.Fits(Planes(1024, 1)));
  EXPECT_EQ(pool.Left(one, 512), 7u);
  pool.End(many);
  EXPECT_TRUE(pool.Fits(Planes(1024, 3 * 62)));
  pool.CheckIntegrity();
}

TEST(Pool, MovesPlanesWhenNoSlabIsFreeForAGrantedOne) {
  Pool pool(256 << 10);  // 64 slabs of 4 KiB, 3 planes each
  const ReservationId big = pool.Grant(Planes(1024, 3 * 64));
  std::vector<PlaneId> planes;
  for (int i = 0; i < 3 * 64; ++i) {
    planes.push_back(pool.Take(big, 1024, PlaneUse::kF16));
    std::memset(pool.Address(planes.back()), i, 1024);
  }
  // One plane of each slab stays, held by nobody's grant but its own.
  for (int i = 0; i < 3 * 64; ++i) {
    if (i % 3 != 1) pool.Drop(planes[i], big);
  }
  pool.End(big);
  EXPECT_EQ(pool.committed_bytes(), 64u * 4096);
  const uint64_t epoch = pool.epoch();

  const ReservationId small = pool.Grant(Planes(512, 7 * 42));  // 64 shared planes keep 22 slabs
  ASSERT_NE(small, kNoReservation);
  EXPECT_FALSE(pool.Fits(Planes(512, 1)));
  for (int i = 0; i < 7 * 42; ++i) {
    std::memset(pool.Address(pool.Take(small, 512, PlaneUse::kQ8)), 0xee, 512);
  }
  pool.CheckIntegrity();
  EXPECT_NE(pool.epoch(), epoch);
  EXPECT_EQ(pool.committed_bytes(), pool.budget_bytes());
  for (int i = 1; i < 3 * 64; i += 3) {
    EXPECT_EQ(pool.Address(planes[i])[0], i);
    EXPECT_EQ(pool.Address(planes[i])[1023], i);
  }
}

TEST(Pool, GivesEmptySlabsBackToTheSystem) {
  Pool pool(16 * kMiB);  // slabs of 256 KiB
  const size_t plane = 32 << 10;
  const ReservationId id = pool.Grant(Planes(plane, 7 * 16));
  std::vector<PlaneId> planes;
  for (int i = 0; i < 7 * 16; ++i) {
    planes.push_back(pool.Take(id, plane, PlaneUse::kF32));
    std::memset(pool.Address(planes.back()), i, plane);
  }
  const uint8_t* first = pool.Address(planes[0]);
  const uint64_t all = 16 * pool.slab_bytes();
  EXPECT_EQ(pool.committed_bytes(), all);
  EXPECT_GE(ResidentBytes(first, all), 7 * 16 * plane);

  for (int i = 7 * 4; i < 7 * 16; ++i) pool.Drop(planes[i], id);
  EXPECT_EQ(pool.committed_bytes(), all / 4);
  EXPECT_LE(ResidentBytes(first, all), all / 4);

  // Two planes of seven stay in each slab: only moving them frees slabs.
  for (int i = 0; i < 7 * 4; ++i) {
    if (i % 7 > 1) pool.Drop(planes[i], id);
  }
  EXPECT_EQ(pool.committed_bytes(), all / 4);
  pool.Compact();
  EXPECT_EQ(pool.committed_bytes(), all / 8);
  EXPECT_LE(ResidentBytes(first, all), all / 8);
  for (int i = 0; i < 7 * 4; ++i) {
    if (i % 7 > 1) continue;
    EXPECT_EQ(pool.Address(planes[i])[plane - 1], i);
  }
  const uint64_t epoch = pool.epoch();
  pool.Compact();
  EXPECT_EQ(pool.epoch(), epoch) << "nothing to gain, so nothing may move";
  pool.CheckIntegrity();
}

TEST(Pool, ReadsBehindTheLastPlaneOfASlabStayInTheSlab) {
  Pool pool(256 << 10);
  const ReservationId id = pool.Grant(Planes(1024, 3 * 64));
  PlaneId last;
  for (int i = 0; i < 3 * 64; ++i) last = pool.Take(id, 1024, PlaneUse::kF16);
  uint8_t behind[64];
  std::memcpy(behind, pool.Address(last) + 1024, sizeof(behind));
  EXPECT_EQ(behind[63], 0);
}

TEST(Pool, ShareKeepsTheGrantWholeOrIsRefused) {
  Pool pool(256 << 10);  // 192 planes of 1 KiB
  const ReservationId id = pool.Grant(Planes(1024, 100));
  std::vector<PlaneId> planes;
  for (int i = 0; i < 93; ++i) planes.push_back(pool.Take(id, 1024, PlaneUse::kF16));
  ASSERT_FALSE(pool.Share(id)) << "93 shared and 100 granted are more than 192";
  EXPECT_EQ(pool.Owner(planes[0]), id);
  EXPECT_EQ(pool.Left(id, 1024), 7u);
  pool.Drop(planes[92], id);
  ASSERT_TRUE(pool.Share(id));
  EXPECT_EQ(pool.Owner(planes[0]), kNoReservation);
  EXPECT_EQ(pool.Left(id, 1024), 100u);
  EXPECT_EQ(pool.granted_bytes(), 192u * 1024);
  for (int i = 0; i < 100; ++i) pool.Take(id, 1024, PlaneUse::kF16);
  pool.CheckIntegrity();
  pool.Drop(planes[0], id);
  EXPECT_EQ(pool.granted_bytes(), 191u * 1024) << "a shared plane's place goes with it";
  pool.CheckIntegrity();
}

TEST(Pool, PlanesThatOthersReferToOutliveTheReservation) {
  Pool pool(256 << 10);
  const ReservationId a = pool.Grant(Planes(1024, 10));
  const ReservationId b = pool.Grant(Planes(1024, 1));
  const PlaneId left = pool.Take(a, 1024, PlaneUse::kF16);
  const PlaneId ended = pool.Take(a, 1024, PlaneUse::kF16);
  pool.AddReference(left);
  EXPECT_EQ(pool.References(left), 2u);
  pool.Drop(left, a);  // the owner lets go: shared, and its place goes along
  EXPECT_EQ(pool.Owner(left), kNoReservation);
  EXPECT_EQ(pool.Left(a, 1024), 8u);
  EXPECT_EQ(pool.granted_bytes(), 11u * 1024);
  pool.End(a);
  EXPECT_EQ(pool.Owner(ended), kNoReservation);
  EXPECT_EQ(pool.granted_bytes(), 3u * 1024);
  pool.CheckIntegrity();
  pool.Drop(left, b);
  pool.Drop(ended, b);
  EXPECT_EQ(pool.granted_bytes(), 1024u);
  EXPECT_EQ(pool.bytes(), 0u);
  EXPECT_EQ(pool.committed_bytes(), 0u);
  pool.CheckIntegrity();
}

TEST(PoolDeathTest, StaleIdsAndPlanesBeyondTheGrantAreBugs) {
  Pool pool(256 << 10);
  const ReservationId id = pool.Grant(Planes(1024, 1));
  const PlaneId plane = pool.Take(id, 1024, PlaneUse::kF16);
  EXPECT_DEATH(pool.Take(id, 1024, PlaneUse::kF16), "1 planes of 1024 bytes were granted");
  EXPECT_DEATH(pool.Take(id, 512, PlaneUse::kF16), "were granted");
  pool.Drop(plane, id);
  EXPECT_DEATH(pool.Address(plane), "generation");
  const PlaneId again = pool.Take(id, 1024, PlaneUse::kF16);
  EXPECT_EQ(again.index, plane.index);
  EXPECT_DEATH(pool.Drop(plane, id), "generation");
}

// Any grants that fit, taken and given back in any order: no take fails, no byte changes.
TEST(Pool, RandomUseNeverFailsWithinGrants) {
  constexpr size_t kSizes[] = {256, 384, 1024, 2048, 3000};
  for (uint32_t seed = 0; seed < 4; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 rng(seed);
    const auto below = [&](size_t n) { return static_cast<size_t>(rng() % n); };
    Pool pool(512 << 10);
    struct Taken {
      PlaneId id;
      ReservationId by;
      size_t bytes;
      uint8_t value;
    };
    std::vector<Taken> taken;
    std::vector<ReservationId> reservations;
    for (int step = 0; step < 4000; ++step) {
      const size_t bytes = kSizes[below(5)];
      const size_t what = below(100);
      if (what < 4) {
        const ReservationId id = pool.Grant(Planes(bytes, 1 + below(60)));
        if (id != kNoReservation) reservations.push_back(id);
      } else if (what < 8 && !reservations.empty()) {
        pool.Extend(reservations[below(reservations.size())], Planes(bytes, 1 + below(40)));
      } else if (what < 10 && !reservations.empty()) {
        pool.Share(reservations[below(reservations.size())]);
      } else if (what < 12 && !reservations.empty()) {
        const size_t i = below(reservations.size());
        pool.End(reservations[i]);
        reservations.erase(reservations.begin() + static_cast<ptrdiff_t>(i));
      } else if (what < 60 && !reservations.empty()) {
        const ReservationId id = reservations[below(reservations.size())];
        if (pool.Left(id, bytes) == 0) continue;
        const auto value = static_cast<uint8_t>(rng());
        taken.push_back({pool.Take(id, bytes, PlaneUse::kF32), id, bytes, value});
        std::memset(pool.Address(taken.back().id), value, bytes);
      } else if (what < 62) {
        pool.Compact();
      } else if (!taken.empty()) {
        const size_t i = below(taken.size());
        pool.Drop(taken[i].id, taken[i].by);
        taken[i] = taken.back();
        taken.pop_back();
      }
      pool.CheckIntegrity();
      for (const Taken& t : taken) {
        const uint8_t* bytes_of = pool.Address(t.id);
        ASSERT_TRUE(bytes_of[0] == t.value && bytes_of[t.bytes - 1] == t.value) << step;
      }
    }
    for (const Taken& t : taken) pool.Drop(t.id, t.by);
    for (const ReservationId id : reservations) pool.End(id);
    EXPECT_EQ(pool.bytes() + pool.granted_bytes() + pool.committed_bytes(), 0u);
  }
}

}  // namespace
}  // namespace kvasir
