// Grouped products for Hopper: 128 x 256 tiles, K in stages of 64, one persistent block per multiprocessor.
// Warpgroup 0 produces: the copy engine brings weights (and rows, when they are contiguous); gathered rows come by cp.async, one
// 16-byte chunk per thread and copy. Warpgroups 1 and 2 consume 64 rows each with wgmma and write their own results.
// Every element's sum is one chain of wgmma steps, K ascending by 16.
#include <algorithm>

#include "gpu/cuda_check.h"
#include "gpu/grouped_gemm.h"
#include "gpu/launch.h"
#include "gpu/ptx_sm90a.cuh"
#include "gpu/swiglu.cuh"
#include "gpu/tensor_map.h"

namespace assay::gpu {
namespace {

constexpr int kConsumers = 2;
constexpr int kConsumerRows = 64;   // of one wgmma
constexpr int kColumns = 256;       // widest wgmma: the fewest bytes of shared memory per operation
constexpr int kThreads = (1 + kConsumers) * 128;
constexpr int kBytesA = kTileRows * 128;
constexpr int kBytesA64 = kConsumerRows * 128;
constexpr int kBytesB = kColumns * 128;
constexpr int kStageBytes = kBytesA + kBytesB;
constexpr int kMaxStages = 4;
constexpr int kOutColumns = 128;    // columns that leave through shared memory at a time
constexpr int kOutBytes = kConsumerRows * kOutColumns * 2;  // per consumer: two boxes of 64 x 64
constexpr int kAlignment = 1024;    // of the 128-byte swizzle
static_assert(kTileRows == kConsumers * kConsumerRows, "each consumer owns one wgmma's rows");

constexpr int shared_bytes(int stages) { return stages * kStageBytes + kConsumers * kOutBytes + 2 * kMaxStages * 8 + kAlignment; }
static_assert(shared_bytes(kMaxStages) <= 232448, "a block of sm_90 has 227 KiB of shared memory");

enum class Product { GateUp, Down };

struct Arguments {
  Routing routing;
  const bf16* x;       // gathered rows
  bf16* out;           // [S, columns]
  bf16* first_gemm;    // or null
  int depth;           // K: length of the sums
  int columns;         // of out
  int column_tiles;
  int top_k;
  int stages;
  int raster_rows;
};

// Tile t: `raster_rows` row tiles run side by side before the next column tile, so that weights and rows are shared in L2.
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

// Position in the ring of stages; the parity flips with every turn.
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

// Byte of 16-byte chunk `chunk` of row `row` in a tile of 128-byte rows, swizzled as wgmma and the copy engine expect.
__device__ std::uint32_t swizzled(int row, int chunk) { return static_cast<std::uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4)); }

__device__ std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

template <Product kProduct>
__device__ void load_weights(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, int k, int column_tile, int expert) {
  if constexpr (kProduct == Product::GateUp)
    ptx::tensor_load_5d(shared, map, barrier, k, 0, 0, column_tile * (kColumns / 16), expert);
  else
    ptx::tensor_load_3d(shared, map, barrier, k, column_tile * kColumns, expert);
}

// All 128 threads: thread t copies chunk t mod 8 of rows t / 8, t / 8 + 16, ...
template <Product kProduct>
__device__ void produce_gathered(const Arguments& arguments, const Walk& walk, const CUtensorMap* weights, std::uint32_t base,
                                 std::uint32_t full, std::uint32_t empty) {
  constexpr int kCopies = kTileRows / 16;
  const int thread = threadIdx.x;
  const int chunk = thread % 8;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  Ring ring{arguments.stages};
  for (int t = blockIdx.x; t < walk.total(); t += gridDim.x) {
    int row_tile = 0;
    int column_tile = 0;
    walk.at(t, row_tile, column_tile);
    const RowTile rows = arguments.routing.tiles[row_tile];
    const bf16* from[kCopies];
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = thread / 8 + i * 16;
      from[i] = row < rows.rows ? arguments.x + static_cast<std::int64_t>(arguments.routing.gather_indices[rows.first + row] / arguments.top_k) * arguments.depth
                                : nullptr;
    }
    for (int step = 0; step < steps; ++step, ring.advance()) {
      const std::uint32_t stage = base + ring.stage * kStageBytes;
      const std::uint32_t arrived = full + ring.stage * 8;
      ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
      if (thread == 0) {
        ptx::mbarrier_arrive_expect(arrived, kBytesB);
        load_weights<kProduct>(stage + kBytesA, weights, arrived, step * kBoxDepth, column_tile, rows.expert);
      }
      const int k = step * kBoxDepth + chunk * 8;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const bool valid = from[i] != nullptr && k < arguments.depth;
        ptx::cp_async_16(stage + swizzled(thread / 8 + i * 16, chunk), valid ? from[i] + k : arguments.x, valid);
      }
      ptx::cp_async_arrive(arrived);
    }
  }
}

// One thread.
template <Product kProduct>
__device__ void produce_contiguous(const Arguments& arguments, const Walk& walk, const CUtensorMap* rows_map, const CUtensorMap* weights,
                                   std::uint32_t base, std::uint32_t full, std::uint32_t empty) {
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  Ring ring{arguments.stages};
  for (int t = blockIdx.x; t < walk.total(); t += gridDim.x) {
    int row_tile = 0;
    int column_tile = 0;
    walk.at(t, row_tile, column_tile);
    const RowTile rows = arguments.routing.tiles[row_tile];
    const bool second = rows.rows > kConsumerRows;
    for (int step = 0; step < steps; ++step, ring.advance()) {
      const std::uint32_t stage = base + ring.stage * kStageBytes;
      const std::uint32_t arrived = full + ring.stage * 8;
      ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
      ptx::mbarrier_arrive_expect(arrived, kBytesB + (second ? 2 : 1) * kBytesA64);
      load_weights<kProduct>(stage + kBytesA, weights, arrived, step * kBoxDepth, column_tile, rows.expert);
      // Rows behind the expert's last are the next expert's, or zeros: computed at most, never stored.
      ptx::tensor_load_2d(stage, rows_map, arrived, step * kBoxDepth, rows.first);
      if (second) ptx::tensor_load_2d(stage + kBytesA64, rows_map, arrived, step * kBoxDepth, rows.first + kConsumerRows);
    }
  }
}

// Writes 64 x 128 results, packed as wgmma's fragments lie, through shared memory: whole boxes by the copy engine, the rest by
// 16-byte stores. packed[b][h]: 8-column block b, rows lane / 4 + 8 h of the warp.
template <bool kScatter>
__device__ void write_out(const Arguments& arguments, const CUtensorMap* out_map, std::uint32_t staging, char* staging_pointer,
                          const std::uint32_t (&packed)[16][2], const RowTile& rows, int consumer, int first_column) {
  const int thread = threadIdx.x % 128;
  const int lane = threadIdx.x % 32;
  const int barrier = 1 + consumer;
  if (thread == 0) ptx::bulk_wait_read();
  ptx::named_barrier(barrier, 128);  // the staging area is free again
  const int row_in = thread / 32 * 16 + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int b = 0; b < 16; b += 2) {
    const std::uint32_t four[4] = {packed[b][0], packed[b][1], packed[b + 1][0], packed[b + 1][1]};
    const int chunk = b + lane / 16;
    ptx::stmatrix_x4(staging + chunk / 8 * kBytesA64 + swizzled(row_in, chunk % 8), four);
  }
  ptx::fence_proxy_async();
  ptx::named_barrier(barrier, 128);

  const int first_row = consumer * kConsumerRows;
  if (!kScatter && rows.rows >= first_row + kConsumerRows) {
    if (thread == 0) {
#pragma unroll
      for (int box = 0; box < 2; ++box)
        if (first_column + box * 64 < arguments.columns)
          ptx::tensor_store_2d(out_map, staging + box * kBytesA64, first_column + box * 64, rows.first + first_row);
      ptx::bulk_commit();
    }
    return;
  }
  const int chunk = thread % 16;
  const int column = first_column + chunk * 8;
  if (column < arguments.columns)
    for (int row = thread / 16; row < kConsumerRows && first_row + row < rows.rows; row += 8) {
      const std::int64_t r = rows.first + first_row + row;
      const std::int64_t target = kScatter ? arguments.routing.gather_indices[r] : r;
      *reinterpret_cast<uint4*>(arguments.out + target * arguments.columns + column) =
          *reinterpret_cast<const uint4*>(staging_pointer + chunk / 8 * kBytesA64 + swizzled(row, chunk % 8));
    }
  ptx::named_barrier(barrier, 128);  // read by everyone before the next tile writes
}

// Stores what contract hf would have stored of the first product; straight from registers, for verification runs.
__device__ void write_first_gemm(const Arguments& arguments, const float (&d)[128], const RowTile& rows, int consumer, int first_column) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = consumer * kConsumerRows + threadIdx.x % 128 / 32 * 16 + lane / 4 + half * 8;
    if (row >= rows.rows) continue;
    bf16* stored = arguments.first_gemm + static_cast<std::int64_t>(rows.first + row) * 2 * arguments.columns;
#pragma unroll
    for (int b = 0; b < 16; ++b) {
      const int column = first_column + b * 8 + lane % 4 * 2;
      if (column >= arguments.columns) continue;
      const int i = b * 8 + half * 2;
      *reinterpret_cast<std::uint32_t*>(stored + column) = pack(d[i], d[i + 1]);
      *reinterpret_cast<std::uint32_t*>(stored + arguments.columns + column) = pack(d[i + 4], d[i + 5]);
    }
  }
}

template <Product kProduct, bool kFlag>
__device__ void epilogue(const Arguments& arguments, const CUtensorMap* out_map, const float (&d)[128], std::uint32_t staging,
                         char* staging_pointer, const RowTile& rows, int consumer, int column_tile) {
  std::uint32_t packed[16][2];
  if constexpr (kProduct == Product::GateUp) {
    // Blocks of 8 gate columns alternate with blocks of 8 up columns: d[8 b + i] and d[8 b + 4 + i] are one element's halves.
#pragma unroll
    for (int b = 0; b < 16; ++b)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = b * 8 + half * 2;
        const __nv_bfloat162 pair = kFlag ? swiglu_pair_sm90(d[i], d[i + 1], d[i + 4], d[i + 5])
                                          : __nv_bfloat162(swiglu<false>(d[i], d[i + 4]), swiglu<false>(d[i + 1], d[i + 5]));
        packed[b][half] = *reinterpret_cast<const std::uint32_t*>(&pair);
      }
    write_out<false>(arguments, out_map, staging, staging_pointer, packed, rows, consumer, column_tile * kOutColumns);
    if (arguments.first_gemm != nullptr) write_first_gemm(arguments, d, rows, consumer, column_tile * kOutColumns);
  } else {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
#pragma unroll
      for (int b = 0; b < 16; ++b)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int i = part * 64 + b * 4 + half * 2;
          packed[b][half] = pack(d[i], d[i + 1]);
        }
      write_out<kFlag>(arguments, out_map, staging, staging_pointer, packed, rows, consumer, column_tile * kColumns + part * kOutColumns);
    }
  }
}

// One consumer's 64 x 256 sums over all stages of a tile. kWaitEach: a stage is freed as soon as its own products are done, which
// suits tiles that wait for memory; else one group of products stays in flight, which suits tiles that wait for the tensor core.
template <bool kGather, bool kWaitEach>
__device__ void sum_tile(float (&d)[128], Ring& ring, int steps, std::uint32_t base, int consumer, std::uint32_t full, std::uint32_t empty) {
  const bool signals = threadIdx.x % 32 == 0;  // one arrival per warp frees a stage
  std::uint32_t previous = 0;
  for (int step = 0; step < steps; ++step, ring.advance()) {
    ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
    if constexpr (kGather) ptx::fence_proxy_async();  // cp.async wrote what wgmma is about to read
    const std::uint32_t stage = base + ring.stage * kStageBytes;
    const std::uint64_t a = ptx::tile_descriptor(stage + consumer * kBytesA64);
    const std::uint64_t b = ptx::tile_descriptor(stage + kBytesA);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBoxDepth / 16; ++k) ptx::wgmma_m64n256k16(d, a + 2 * k, b + 2 * k, step != 0 || k != 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<kWaitEach ? 0 : 1>();
    if (signals && (kWaitEach || step != 0)) ptx::mbarrier_arrive(kWaitEach ? empty + ring.stage * 8 : previous);
    previous = empty + ring.stage * 8;
  }
  if constexpr (!kWaitEach) {
    ptx::wgmma_wait<0>();
    if (signals) ptx::mbarrier_arrive(previous);
  }
}

template <Product kProduct, bool kGather, bool kFlag>
__device__ void consume(const Arguments& arguments, const Walk& walk, const CUtensorMap* out_map, std::uint32_t base, char* staging_pointer,
                        std::uint32_t full, std::uint32_t empty) {
  const int consumer = threadIdx.x / 128 - 1;
  const bool signals = threadIdx.x % 32 == 0;  // one arrival per warp frees a stage
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  Ring ring{arguments.stages};
  for (int t = blockIdx.x; t < walk.total(); t += gridDim.x) {
    int row_tile = 0;
    int column_tile = 0;
    walk.at(t, row_tile, column_tile);
    const RowTile rows = arguments.routing.tiles[row_tile];
    if (rows.rows <= consumer * kConsumerRows) {  // nothing of this tile is ours
      for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(full + ring.stage * 8, ring.parity);
        if (signals) ptx::mbarrier_arrive(empty + ring.stage * 8);
      }
      continue;
    }
    float d[128];
    if (rows.rows > kConsumerRows)
      sum_tile<kGather, false>(d, ring, steps, base, consumer, full, empty);
    else
      sum_tile<kGather, true>(d, ring, steps, base, consumer, full, empty);
    epilogue<kProduct, kFlag>(arguments, out_map, d, ptx::shared_address(staging_pointer), staging_pointer, rows, consumer, column_tile);
  }
  if (threadIdx.x % 128 == 0) ptx::bulk_wait_read();  // shared memory outlives the last store's reads
}

// kFlag: GateUp rounds inside, Down scatters.
template <Product kProduct, bool kGather, bool kFlag>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const Arguments arguments, const __grid_constant__ CUtensorMap rows_map, const __grid_constant__ CUtensorMap weights,
                        const __grid_constant__ CUtensorMap out_map) {
  extern __shared__ char unaligned[];
  char* const aligned = unaligned + (kAlignment - ptx::shared_address(unaligned) % kAlignment) % kAlignment;
  char* const staging = aligned + arguments.stages * kStageBytes;
  const std::uint32_t base = ptx::shared_address(aligned);
  const std::uint32_t full = ptx::shared_address(staging + kConsumers * kOutBytes);
  const std::uint32_t empty = full + kMaxStages * 8;
  if (threadIdx.x == 0) {
    ptx::prefetch_map(&weights);
    ptx::prefetch_map(&out_map);
    if constexpr (!kGather) ptx::prefetch_map(&rows_map);
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < arguments.stages; ++stage) {
      ptx::mbarrier_init(full + stage * 8, kGather ? 1 + 128 : 1);
      ptx::mbarrier_init(empty + stage * 8, kConsumers * 4);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  ptx::let_next_start();
  ptx::wait_for_previous();
  const Walk walk{*arguments.routing.tile_count, arguments.column_tiles, arguments.raster_rows};

  if (threadIdx.x < 128) {
    ptx::give_registers<kGather ? 56 : 40>();
    if constexpr (kGather)
      produce_gathered<kProduct>(arguments, walk, &weights, base, full, empty);
    else if (threadIdx.x == 0)
      produce_contiguous<kProduct>(arguments, walk, &rows_map, &weights, base, full, empty);
  } else {
    ptx::take_registers<kGather ? 224 : 232>();
    consume<kProduct, kGather, kFlag>(arguments, walk, &out_map, base, staging + (threadIdx.x / 128 - 1) * kOutBytes, full, empty);
  }
}

template <class Kernel>
void launch(Kernel kernel, const Arguments& arguments, const CUtensorMap& rows_map, const CUtensorMap& weights, const CUtensorMap& out_map,
            const Sizes& sizes, const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t tiles = max_row_tiles(sizes) * arguments.column_tiles;
  ASSAY_CHECK(tiles < (std::int64_t{1} << 31), "expected fewer than 2^31 tiles");
  const int most = config.persistent_blocks > 0 ? config.persistent_blocks : device_attribute(cudaDevAttrMultiProcessorCount);
  launch_kernel(kernel, static_cast<unsigned>(std::min<std::int64_t>(most, tiles)), kThreads, shared_bytes(arguments.stages), stream,
                arguments, rows_map, weights, out_map);
}

}  // namespace

bool has_wgmma_sm90() {
  return device_attribute(cudaDevAttrComputeCapabilityMajor) == 9 && device_attribute(cudaDevAttrComputeCapabilityMinor) == 0;
}

void gate_up_wgmma_sm90(const GateUp& product, const Routing& routing, const Sizes& sizes, const KernelConfigForward& config,
                        cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  ASSAY_CHECK(hidden % 8 == 0 && inter % 8 == 0, "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  // Eight gate rows, then the eight up rows that belong to them, and so on: an axis of its own brings the halves together.
  const MapAxis axes[] = {{hidden, 1, kBoxDepth},
                          {8, hidden, 8},
                          {2, inter * hidden, 2},
                          {inter / 8, 8 * hidden, kColumns / 16},
                          {sizes.config.num_experts, 2 * inter * hidden, 1}};
  const CUtensorMap weights = tensor_map(product.gate_up_proj, axes, 5);
  const CUtensorMap rows = product.gather ? CUtensorMap{} : matrix_map(product.x, sizes.slots(), hidden);
  const CUtensorMap out = matrix_map(product.intermediate, sizes.slots(), inter);
  const Arguments arguments{routing, product.x, product.intermediate, product.first_gemm, static_cast<int>(hidden), static_cast<int>(inter),
                            static_cast<int>((inter + kOutColumns - 1) / kOutColumns), static_cast<int>(sizes.config.top_k),
                            config.pipeline_depth, config.raster_rows};
  const auto kernel = product.gather
                          ? (product.round_inner ? grouped_gemm_kernel<Product::GateUp, true, true> : grouped_gemm_kernel<Product::GateUp, true, false>)
                          : (product.round_inner ? grouped_gemm_kernel<Product::GateUp, false, true> : grouped_gemm_kernel<Product::GateUp, false, false>);
  launch(kernel, arguments, rows, weights, out, sizes, config, stream);
}

void down_wgmma_sm90(const Down& product, const Routing& routing, const Sizes& sizes, const KernelConfigForward& config, cudaStream_t stream) {
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  ASSAY_CHECK(hidden % 8 == 0 && inter % 8 == 0, "expected sizes to be multiples of 8");
  if (sizes.slots() == 0) return;
  const MapAxis axes[] = {{inter, 1, kBoxDepth}, {hidden, inter, kColumns}, {sizes.config.num_experts, hidden * inter, 1}};
  const CUtensorMap weights = tensor_map(product.down_proj, axes, 3);
  const CUtensorMap rows = matrix_map(product.intermediate, sizes.slots(), inter);
  const CUtensorMap out = matrix_map(product.out, sizes.slots(), hidden);
  const Arguments arguments{routing, product.intermediate, product.out, nullptr, static_cast<int>(inter), static_cast<int>(hidden),
                            static_cast<int>((hidden + kColumns - 1) / kColumns), static_cast<int>(sizes.config.top_k),
                            config.pipeline_depth, config.raster_rows};
  const auto kernel = product.scatter ? grouped_gemm_kernel<Product::Down, false, true> : grouped_gemm_kernel<Product::Down, false, false>;
  launch(kernel, arguments, rows, weights, out, sizes, config, stream);
}

}  // namespace assay::gpu
