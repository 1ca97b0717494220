// The steps of ordering slots by expert that one warp does: device functions shared by the launches that need
// them.
#pragma once

#include <cstddef>

#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"

namespace assay::gpu {

__device__ inline int inclusive_scan_of_lanes(int value) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int below = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += below;
  }
  return value;
}

// Calls visit(expert, units before it, its units) for every expert, one lane each, and returns the sum of
// units.
template <class Units, class Visit>
__device__ int scan_experts(int experts, Units units, Visit visit) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int first = 0; first < experts; first += 32) {
    const int expert = first + lane;
    const int value = expert < experts ? units(expert) : 0;
    const int inclusive = inclusive_scan_of_lanes(value);
    if (expert < experts) visit(expert, before + inclusive - value, value);
    before += __shfl_sync(kAllLanes, inclusive, 31);
  }
  return before;
}

/// All threads of the block that chose for a chunk's tokens: how often each expert, zeros behind the last
/// one.
__device__ inline void keep_chunk_counts(const DeviceRouting& routing, int chunk, int experts,
                                         const int* histogram) {
  const int stride = static_cast<int>(padded_counts(experts));
  for (int e = threadIdx.x; e < stride; e += blockDim.x)
    routing.chunk_counts[static_cast<std::int64_t>(chunk) * stride + e] = e < experts ? histogram[e] : 0;
}

/// Writes the row tiles, their number, and zeros for all that counts how far they have got. An expert's wide
/// tiles are as few as can be and of equal size to within 8 rows; others are full but for the last.
/// `first_row` and `rows` [E] are in shared memory.
__device__ inline void write_tiles(const DeviceRouting& routing, int experts, const int* first_row,
                                   const int* rows) {
  constexpr int kTogether = 8;  // rows that are not divided
  const int most = routing.wide ? kWideTileRows : kTileRows;
  const auto tiles_of = [&](int expert) { return (rows[expert] + most - 1) / most; };
  const int total = scan_experts(experts, tiles_of, [&](int expert, int first_tile, int tiles) {
    const bool even = routing.wide && tiles > 1;
    const int groups = (rows[expert] + kTogether - 1) / kTogether;
    const int each = even ? groups / tiles : kTileRows / kTogether;
    const int larger = even ? groups % tiles : 0;  // the first ones have a group more
    const auto begin = [&](int i) {
      return i < tiles ? (i * each + min(i, larger)) * kTogether : rows[expert];
    };
    routing.first_rows[expert] = first_row[expert];
    routing.finished[expert] = 0;
    for (int i = 0; i < tiles; ++i) {
      const int other = i ^ 1;
      const bool paired = even ? other < tiles : rows[expert] - (i | 1) * kTileRows > kTileRows / 2;
      const int others = begin(other + 1) - begin(other);
      int partner = 0;
      if (paired) partner = other > i ? others : -others;
      routing.tiles[first_tile + i] = {expert, first_row[expert] + begin(i), begin(i + 1) - begin(i),
                                       partner};
    }
  });
  const int lane = threadIdx.x % 32;
  constexpr int kWords = sizeof(TileCounters) / sizeof(std::int32_t);
  static_assert(kWords <= 32 && offsetof(TileCounters, row_tiles) == 0, "a lane each, the total first");
  if (lane < kWords) reinterpret_cast<std::int32_t*>(routing.counters)[lane] = lane == 0 ? total : 0;
}

/// Gives slots [first, end) their rows, 32 at a time in ascending order; next_row [E] in shared memory is
/// where each expert goes on.
__device__ inline void place_slots(const DeviceRouting& routing, std::int64_t first, std::int64_t end,
                                   int* next_row) {
  const int lane = threadIdx.x % 32;
  for (std::int64_t base = first; base < end; base += 32) {
    const std::int64_t slot = base + lane;
    const bool valid = slot < end;
    const int expert = valid ? routing.selected_experts[slot] : -1;
    // Lanes of the same expert keep their order: rank = how many of them have a lower lane.
    const unsigned peers = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(peers & ((1u << lane) - 1u));
    if (valid) {
      const int row = next_row[expert] + rank;
      routing.gather_indices[row] = static_cast<std::int32_t>(slot);
      routing.row_of_slot[slot] = row;
    }
    __syncwarp();
    if (valid && rank == 0) next_row[expert] += __popc(peers);
    __syncwarp();
  }
}

}  // namespace assay::gpu
