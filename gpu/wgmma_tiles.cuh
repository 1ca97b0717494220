// How the Hopper grouped products cut their work: tile sizes, shared memory, the walk over tiles and how blocks get their next one.
#pragma once

#include <cstdint>

#include "gpu/kernels.h"
#include "gpu/ptx_sm90a.cuh"
#include "gpu/tensor_map.h"

namespace assay::gpu::wgmma {

enum class Product { GateUp, Down };

inline constexpr int kConsumers = 2;
inline constexpr int kConsumerRows = 64;  // of one wgmma
inline constexpr int kColumns = 256;      // widest wgmma: the fewest bytes of shared memory per operation
inline constexpr int kThreads = (1 + kConsumers) * 128;
inline constexpr int kBytesA = kTileRows * 128;
inline constexpr int kBytesA64 = kConsumerRows * 128;
inline constexpr int kBytesB = kColumns * 128;
inline constexpr int kStageBytes = kBytesA + kBytesB;
inline constexpr int kMaxStages = 4;
inline constexpr int kOutColumns = 128;   // per part: two boxes of 64 x 64
inline constexpr int kPartBytes = kConsumerRows * kOutColumns * 2;
inline constexpr int kAlignment = 1024;   // of the 128-byte swizzle
static_assert(kTileRows == kConsumers * kConsumerRows, "each consumer owns one wgmma's rows");

/// Parts of 128 columns in which a consumer's results leave: SwiGLU halves the columns.
template <Product kProduct>
inline constexpr int kParts = kProduct == Product::GateUp ? 1 : 2;

struct Arguments {
  Routing routing;
  std::int32_t* tickets;  // [2]: next tile, finished blocks
  const bf16* x;          // gathered rows
  bf16* out;              // [S, columns]
  bf16* first_gemm;       // or null
  std::int64_t rows;      // S
  int depth;              // K: length of the sums
  int columns;            // of out
  int column_tiles;
  int top_k;
  int stages;
  int raster_rows;
  int cluster;            // blocks that share weights: 1 or 2
};

/// Tile t: `raster` row tiles run side by side before the next column tile, so that weights and rows are shared in L2.
struct Walk {
  int row_tiles;
  int column_tiles;
  int raster;
  __device__ int total() const { return row_tiles * column_tiles; }
  __device__ void at(int t, int& row_tile, int& column_tile) const {
    const int first = t / (raster * column_tiles) * raster;
    const int rows = min(raster, row_tiles - first);
    const int local = t - first * column_tiles;
    row_tile = first + local % rows;
    column_tile = local / rows;
  }
};

/// Position in the ring of stages; the parity flips with every turn.
struct Ring {
  int stages;
  int stage = 0;
  int parity = 0;
  __device__ void advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// One block's current tile; `rows` is 0 behind the last one.
struct Tile {
  int expert;
  int first;
  int rows;
  int column_tile;
  bool paired;  // the cluster's other block has other rows of the same expert and the same columns
};

inline constexpr int kPaired = 1 << 30;

/// What a block keeps in shared memory behind its stages and staging areas.
struct Control {
  std::uint64_t full[kMaxStages];
  std::uint64_t empty[kMaxStages];
  std::uint64_t tile_ready[2];
  std::uint64_t tile_taken[2];
  int4 tiles[2];  // Tile's members in their order, `paired` as kPaired in the last
};

template <Product kProduct>
constexpr int shared_bytes(int stages) {
  return stages * kStageBytes + kConsumers * kParts<kProduct> * kPartBytes + static_cast<int>(sizeof(Control)) + kAlignment;
}
static_assert(shared_bytes<Product::GateUp>(4) <= 232448 && shared_bytes<Product::Down>(3) <= 232448, "a block of sm_90 has 227 KiB");

/// A warp's way through the tiles of its block.
struct TileReader {
  Control* control;
  int cluster;
  int number = 0;

  /// All lanes of the warp. The next tile. One lane reads it and says so: what it read, nobody else can still be reading.
  __device__ Tile take() {
    const int slot = number % 2;
    const std::uint32_t taken = ptx::shared_address(&control->tile_taken[slot]);
    int4 tile{};
    if (threadIdx.x % 32 == 0) {
      ptx::mbarrier_wait(ptx::shared_address(&control->tile_ready[slot]), number / 2 % 2);
      tile = control->tiles[slot];
      if (cluster == 1)
        ptx::mbarrier_arrive(taken);
      else
        ptx::mbarrier_arrive_cluster(ptx::in_block(taken, 0));
    }
    ++number;
    constexpr unsigned kAllLanes = 0xffffffffu;
    const int column = __shfl_sync(kAllLanes, tile.w, 0);
    return {__shfl_sync(kAllLanes, tile.x, 0), __shfl_sync(kAllLanes, tile.y, 0), __shfl_sync(kAllLanes, tile.z, 0), column & ~kPaired, (column & kPaired) != 0};
  }
};

/// One thread per cluster hands out tiles: the first ticket is the cluster's own number, later ones are drawn from a counter in
/// device memory, so that short tiles even out. Drawing takes two round trips to memory; `step` spreads them over the steps of a tile.
/// A ticket is a row tile and as many column tiles as the cluster has blocks. Two row tiles that are partners divide their two
/// tickets otherwise: each block keeps its row tile and both walk the columns together, so that each fetches half of the weights.
struct TileFeeder {
  Control* control;
  Walk walk;  // column_tiles: those of tickets
  const Arguments* arguments;
  int number = 0;
  int ticket = 0;
  int4 tile{};          // of the cluster's first block; rows 0 behind the last ticket
  int second_rows = 0;  // of a pair: those of the second block

  __device__ int cluster_number() const { return static_cast<int>(blockIdx.x) / arguments->cluster; }
  __device__ int clusters() const { return static_cast<int>(gridDim.x) / arguments->cluster; }
  __device__ bool leads() const { return arguments->cluster == 1 || ptx::cluster_rank() == 0; }

  __device__ void draw() { ticket = number == 0 ? cluster_number() : atomicAdd(arguments->tickets, 1) + clusters(); }

  __device__ void look_up() {
    tile = {0, 0, 0, 0};
    if (ticket >= walk.total()) return;
    int row_tile = 0;
    int column = 0;
    walk.at(ticket, row_tile, column);
    const RowTile rows = arguments->routing.tiles[row_tile];
    tile = {rows.expert, rows.first, rows.rows, arguments->cluster * column};
    if (arguments->cluster == 1 || rows.partner == 0) return;
    // The first of a pair is full, and the second begins right behind it. Each of their tickets is one column of both.
    const bool first = rows.partner > 0;
    second_rows = first ? arguments->routing.tiles[row_tile + 1].rows : rows.rows;
    tile = {rows.expert, first ? rows.first : rows.first - kTileRows, kTileRows, (first ? tile.w : tile.w + 1) | kPaired};
  }

  /// The tile of the cluster's second block: the rows behind the first's, or the columns.
  __device__ int4 second() const {
    if (tile.w & kPaired) return {tile.x, tile.y + kTileRows, second_rows, tile.w};
    return {tile.x, tile.y, tile.z, tile.w + 1};
  }

  __device__ void publish() {
    const int slot = number % 2;
    const std::uint32_t place = ptx::shared_address(&control->tiles[slot]);
    const std::uint32_t ready = ptx::shared_address(&control->tile_ready[slot]);
    const std::uint32_t taken = ptx::shared_address(&control->tile_taken[slot]);
    const int parity = number / 2 % 2 ^ 1;
    ptx::mbarrier_wait(taken, parity);
    if (arguments->cluster == 1) {
      control->tiles[slot] = tile;
      ptx::mbarrier_arrive(ready);
    } else {
      ptx::send_to_block(ptx::in_block(place, 0), tile, ptx::in_block(ready, 0));
      ptx::send_to_block(ptx::in_block(place, 1), second(), ptx::in_block(ready, 1));
    }
    ++number;
  }

  /// Steps 0, 1, 2 of a tile draw, look up and publish the next one.
  __device__ void step(int step_of_tile) {
    if (step_of_tile > 2 || !leads()) return;
    if (step_of_tile == 0) draw();
    if (step_of_tile == 1) look_up();
    if (step_of_tile == 2) publish();
  }

  /// The last cluster to finish winds the counter back, so that the kernel can run again.
  __device__ void finish() const {
    if (!leads()) return;
    __threadfence();
    if (atomicAdd(arguments->tickets + 1, 1) != clusters() - 1) return;
    arguments->tickets[0] = 0;
    arguments->tickets[1] = 0;
  }
};

/// Byte of 16-byte chunk `chunk` of row `row` in a tile of 128-byte rows, swizzled as wgmma and the copy engine expect.
__device__ inline std::uint32_t swizzled(int row, int chunk) { return static_cast<std::uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4)); }

}  // namespace assay::gpu::wgmma
