// How the Hopper grouped products cut their work: tile sizes, shared memory, the walk over tiles and how
// blocks get their next one.
#pragma once

#include <cstdint>
#include <type_traits>

#include "gpu/kernels/kernels.h"
#include "gpu/wgmma/ptx_sm90a.cuh"
#include "gpu/wgmma/tensor_map.h"

namespace assay::gpu::wgmma {

inline constexpr int kConsumers = 2;
inline constexpr int kThreads = (1 + kConsumers) * 128;
inline constexpr int kBytes64 = 64 * 128;  // 64 rows of a stage: what one wgmma takes of the weights
inline constexpr int kMaxStages = 5;
inline constexpr int kGranule = 8;       // rows of the copy engine's small boxes: one swizzle pattern
inline constexpr int kAlignment = 1024;  // of the 128-byte swizzle

/// How a tile lies on the tensor core.
/// Tall: the experts' rows are wgmma's rows, which come in 64s, and 256 weights its columns: the widest one
/// reads the fewest bytes of shared memory per operation and is 7 % faster than the others, but an expert's
/// last rows are padded. Wide: the weights are its rows and the experts' rows its columns, which come in 8s:
/// hardly anything is computed in vain. Narrow: the same with half of the weights, for few tokens: work for
/// more multiprocessors, and two blocks fit on one, so that the second product can fetch weights while the
/// first one ends.
enum class TileLayout { Tall, Wide, Narrow };

template <TileLayout kLayout>
struct TileShape {
  static constexpr int kColumns = kLayout == TileLayout::Narrow ? 128 : 256;  // weights
  static constexpr int kRows = [] {
    if (kLayout == TileLayout::Tall) return kTileRows;
    return kLayout == TileLayout::Wide ? kWideTileRows : kNarrowTileRows;
  }();
  static constexpr int kParts =
      kLayout == TileLayout::Wide ? 2 : 1;  // wgmma products side by side, per consumer
  static constexpr int kRegisters =
      kLayout == TileLayout::Tall ? 128 : kRows / 2;  // a thread's results of one part
  static constexpr int kWeightBytes = kColumns * 128;
  static constexpr int kStageBytes = kWeightBytes + kRows * 128;
  static constexpr int kBoxRows =
      kLayout == TileLayout::Tall ? 64 : 48;  // of the large boxes in which the copy engine brings rows
  static constexpr int kOutBoxRows = kLayout == TileLayout::Tall ? 64 : 32;  // and takes results
};

template <TileLayout kLayout>
using Sums = float[TileShape<kLayout>::kParts][TileShape<kLayout>::kRegisters];

/// Forward the weights of a product lie along their columns; for the gradient of its rows they are read as
/// they are, and K runs along their rows.
template <ProductId kProduct>
inline constexpr Lies kWeightsLie =
    kProduct == ProductId::gate_up || kProduct == ProductId::down ? Lies::AlongColumns : Lies::AlongRows;

/// How a consumer's results leave through shared memory: in passes of rows, through buffers that take turns,
/// each of boxes of 64 columns.
template <ProductId kProduct, TileLayout kLayout, bool kHalves = false>
struct Staging {
  static constexpr bool kGateUp = kProduct == ProductId::gate_up;
  static constexpr bool kTall = kLayout == TileLayout::Tall;
  static constexpr bool kForward = kWeightsLie<kProduct> == Lies::AlongColumns;
  // Tall tiles that store first_gemm, too, leave box by box: while one is read, the next is written.
  static constexpr int kColumnPasses = kTall && kHalves ? 2 : 1;
  static constexpr int kColumns = TileShape<kLayout>::kColumns / (kTall ? 1 : kConsumers) /
                                  (kGateUp ? 2 : 1) /
                                  kColumnPasses;  // of one consumer and pass: SwiGLU halves them
  static constexpr int kBoxes = (kColumns + 63) / 64;
  static constexpr int kRows = [] {  // of one pass
    if (kTall) return 64;
    return kLayout == TileLayout::Wide && (kGateUp || !kForward) ? 48 : TileShape<kLayout>::kRows;
  }();
  static constexpr int kPasses = kTall ? 1 : TileShape<kLayout>::kRows / kRows;
  static constexpr int kBuffers = kColumnPasses > 1 || (kPasses > 1 && kForward)
                                      ? 2
                                      : 1;  // else the room is a stage's
  static constexpr int kBoxBytes = kRows * 128;
  static constexpr int kBytes = kBuffers * kBoxes * kBoxBytes;
};

struct Arguments {
  DeviceRouting routing;
  TileCounter* counter;  // of this product
  const bf16* x;         // gathered rows
  bf16* out;             // [S, columns]
  float* sums;           // [S, columns], where they leave as they are
  bf16* first_gemm;      // or null
  std::int64_t rows;     // S
  int depth;             // K: length of the sums
  int columns;           // of out
  int column_tiles;
  int top_k;
  int stages;
  int raster_rows;
  int cluster;                                // blocks that share weights: 1 or 2
  std::uint64_t weights_policy = ptx::kKept;  // of the L2, for weights that one block reads
  bool overlaps = false;                      // the first two products do (finished.cuh)
};

/// The copy engine's views of the tensors: large and small boxes.
struct Maps {
  // of x
  CUtensorMap rows;
  CUtensorMap few_rows;
  // all a tile has, and what blocks of a pair fetch for one another
  CUtensorMap weights;
  CUtensorMap half_weights;
  CUtensorMap out;
  CUtensorMap few_out;
};
/// Where the first product stores first_gemm, too. Others do without: a launch takes longer with them.
struct MapsWithHalves : Maps {
  // of first_gemm
  CUtensorMap halves;
  CUtensorMap few_halves;
};
template <bool kHalves>
using MapsFor = std::conditional_t<kHalves, MapsWithHalves, Maps>;

/// Tile t: `raster` row tiles run side by side before the next column tile, so that weights and rows are
/// shared in L2.
struct TileWalk {
  unsigned row_tiles;  // without signs, for divisions by them are shorter
  unsigned column_tiles;
  unsigned raster;
  __device__ unsigned total() const { return row_tiles * column_tiles; }
  __device__ void at(unsigned t, unsigned& row_tile, unsigned& column_tile) const {
    const unsigned first = t / (raster * column_tiles) * raster;
    const unsigned rows = min(raster, row_tiles - first);
    const unsigned local = t - first * column_tiles;
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

/// Elements of an expert's rows that a consumer has stored.
struct StoredTile {
  std::int32_t expert;
  std::int32_t elements;
};
inline constexpr int kStoredTogether = 4;  // tiles that are counted together

/// What a block keeps in shared memory behind its stages and staging areas.
struct Control {
  std::uint64_t full[kMaxStages];
  std::uint64_t empty[kMaxStages];
  std::uint64_t tile_ready[2];
  std::uint64_t tile_taken[2];
  int4 tiles[2];  // Tile's members in their order, `paired` as kPaired in the last
  StoredTile stored[kConsumers][kStoredTogether];
};

template <ProductId kProduct, TileLayout kLayout>
constexpr int shared_bytes(int stages) {
  return stages * TileShape<kLayout>::kStageBytes + kConsumers * Staging<kProduct, kLayout>::kBytes +
         static_cast<int>(sizeof(Control)) + kAlignment;
}
constexpr int kBlockBytes = 227 * 1024;
static_assert(kBytes64 == ptx::kPanelBytes, "64 weights and a panel of 64 columns are the same size");
static_assert(shared_bytes<ProductId::gate_up, TileLayout::Tall>(4) <= kBlockBytes &&
              shared_bytes<ProductId::down, TileLayout::Tall>(3) <= kBlockBytes);
static_assert(shared_bytes<ProductId::gate_up, TileLayout::Wide>(4) <= kBlockBytes &&
              shared_bytes<ProductId::down, TileLayout::Wide>(3) <= kBlockBytes &&
              shared_bytes<ProductId::gate_up_dx, TileLayout::Wide>(4) <= kBlockBytes);
static_assert(shared_bytes<ProductId::gate_up, TileLayout::Narrow>(kMaxStages) +
                      shared_bytes<ProductId::down, TileLayout::Narrow>(kMaxStages) <=
                  kBlockBytes - 1024,
              "two blocks, and what the system takes for each");

/// A warp's way through the tiles of its block.
struct TileReader {
  Control* control;
  int cluster;
  int number = 0;

  /// All lanes of the warp. The next tile. One lane reads it and says so: what it read, nobody else can still
  /// be reading.
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
    return {__shfl_sync(kAllLanes, tile.x, 0), __shfl_sync(kAllLanes, tile.y, 0),
            __shfl_sync(kAllLanes, tile.z, 0), column & ~kPaired, (column & kPaired) != 0};
  }
};

/// One thread per cluster hands out tiles: the first ticket is the cluster's own number, later ones are drawn
/// from a counter in device memory, so that short tiles even out. A ticket is a row tile and as many column
/// tiles as the cluster has blocks. Two row tiles that are partners divide their two tickets otherwise: each
/// block keeps its row tile and both walk the columns together, so that each fetches half of the weights.
/// kOddColumns: pairs may have a ticket too many, which is left out.
template <bool kOddColumns>
struct TileFeeder {
  Control* control;
  TileWalk walk;  // column_tiles: those of tickets; clusters are of one or two blocks
  const Arguments* arguments;
  int number = 0;
  // What a step leaves to the next one:
  unsigned ticket = 0;
  unsigned row_tile = 0;
  unsigned column = 0;
  RowTile rows{};

  __device__ unsigned clusters() const { return gridDim.x >> (arguments->cluster - 1); }
  __device__ bool leads() const { return arguments->cluster == 1 || ptx::cluster_rank() == 0; }

  /// Steps 0 to kSteps - 1 hand out one tile, of no rows behind the last ticket. What is asked of memory is
  /// looked at in the step after, so that a thread that does other things between never waits.
  static constexpr int kSteps = 4;
  __device__ void step(int step) {
    if (step >= kSteps || !leads()) return;
    if (step == 0 && number > 0) ticket = ptx::draw(&arguments->counter->next);
    if (step == 1) {
      ticket = number == 0 ? blockIdx.x >> (arguments->cluster - 1) : ticket + clusters();
      find();
    }
    if (step == 2) look_up();
    if (step == 3) {
      if constexpr (kOddColumns)
        while (ticket < walk.total() && is_void()) {
          ticket = ptx::draw(&arguments->counter->next) + clusters();
          find();
          look_up();
        }
      publish();
    }
  }

  /// All tiles, one after the other: each when the one before has been taken by everyone.
  __device__ void run() {
    do {
      if (number > 0)
        ptx::mbarrier_wait(ptx::shared_address(&control->tile_taken[(number - 1) % 2]), (number - 1) / 2 % 2);
      for (int i = 0; i < kSteps; ++i) step(i);
    } while (ticket < walk.total());
  }

  /// The last cluster to finish winds the counter back, so that the kernel can run again.
  __device__ void finish() const {
    if (!leads()) return;
    __threadfence();
    if (static_cast<unsigned>(atomicAdd(&arguments->counter->finished, 1)) != clusters() - 1) return;
    *arguments->counter = {};
  }

 private:
  __device__ void find() {
    if (ticket < walk.total()) walk.at(ticket, row_tile, column);
  }
  __device__ void look_up() {
    if (ticket < walk.total()) rows = arguments->routing.tiles[row_tile];
  }
  /// Whether the column of both that a pair's ticket means lies behind the last one.
  __device__ bool is_void() const {
    const int column_of_pair = static_cast<int>(arguments->cluster * column) + (rows.partner < 0);
    return arguments->cluster != 1 && rows.partner != 0 && column_of_pair >= arguments->column_tiles;
  }
  __device__ void publish() {
    int4 first{};
    int4 second{};
    if (ticket < walk.total()) {
      first = {rows.expert, rows.first, rows.rows, static_cast<int>(arguments->cluster * column)};
      second = {rows.expert, rows.first, rows.rows, first.w + 1};
      if (arguments->cluster != 1 && rows.partner != 0) {
        // The second of a pair begins right behind the first. Each of their tickets is one column of both.
        const bool is_first = rows.partner > 0;
        const int begin = is_first ? rows.first : rows.first + rows.partner;
        const int rows_of_first = is_first ? rows.rows : -rows.partner;
        const int paired_column = (is_first ? first.w : first.w + 1) | kPaired;
        first = {rows.expert, begin, rows_of_first, paired_column};
        second = {rows.expert, begin + rows_of_first, is_first ? rows.partner : rows.rows, paired_column};
      }
    }
    const int slot = number % 2;
    const std::uint32_t place = ptx::shared_address(&control->tiles[slot]);
    const std::uint32_t ready = ptx::shared_address(&control->tile_ready[slot]);
    ptx::mbarrier_wait(ptx::shared_address(&control->tile_taken[slot]), number / 2 % 2 ^ 1);
    if (arguments->cluster == 1) {
      control->tiles[slot] = first;
      ptx::mbarrier_arrive(ready);
    } else {
      ptx::send_to_block(ptx::in_block(place, 0), first, ptx::in_block(ready, 0));
      ptx::send_to_block(ptx::in_block(place, 1), second, ptx::in_block(ready, 1));
    }
    ++number;
  }
};

/// Byte of 16-byte chunk `chunk` of row `row` in a tile of 128-byte rows, swizzled as wgmma and the copy
/// engine expect.
__device__ inline std::uint32_t swizzled(int row, int chunk) {
  return static_cast<std::uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4));
}

}  // namespace assay::gpu::wgmma
