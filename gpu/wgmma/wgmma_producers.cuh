// Who brings what the Hopper grouped products multiply. A stage that is refilled 50 cycles later costs 4 % of
// the kernel, so that nobody who refills waits for anything else: contiguous rows, weights and tiles have a
// warp each; where four warps gather rows, tiles are handed out between copies.
#pragma once

#include <type_traits>

#include "gpu/kernels/planted_kernels.h"
#include "gpu/wgmma/finished.cuh"
#include "gpu/wgmma/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {

__device__ inline int expert_of(const Tile& tile) {
  return kPlanted == KernelFault::NeighbourExpert && tile.rows < kTileRows && tile.expert > 0
             ? tile.expert - 1
             : tile.expert;
}

// A tile's weights, stage by stage. Of a pair each block fetches the half of its rank for both, and waits for
// the other's.
template <ProductId kProduct, TileLayout kLayout>
struct WeightLoads {
  static constexpr int kColumns = TileShape<kLayout>::kColumns;
  static constexpr Lies kLies = kWeightsLie<kProduct>;
  int rank;
  int first;  // along the axis of the columns: a group of 16 or a column
  int expert;
  std::uint64_t policy;

  __device__ WeightLoads(const Tile& tile, const Arguments& arguments)
      : rank(tile.paired ? ptx::cluster_rank() : 0),
        first(tile.column_tile * (kProduct == ProductId::gate_up ? kColumns / 16 : kColumns)),
        expert(expert_of(tile)),
        policy(arguments.weights_policy) {}

  template <bool kPaired>
  __device__ void load(std::uint32_t stage, const Maps& maps, std::uint32_t barrier, int step) const {
    constexpr std::uint16_t kBoth = 0b11;
    const std::uint32_t shared = stage + (kPaired ? rank * (TileShape<kLayout>::kWeightBytes / 2) : 0);
    ptx::mbarrier_arrive_expect(barrier, TileShape<kLayout>::kWeightBytes);
    if constexpr (kProduct == ProductId::gate_up && kPaired)
      ptx::tensor_multicast_5d(shared, &maps.half_weights, barrier, kBoth, step * kBoxDepth, 0, 0,
                               first + rank * (kColumns / 32), expert);
    else if constexpr (kProduct == ProductId::gate_up)
      ptx::tensor_load_5d(shared, &maps.weights, barrier, step * kBoxDepth, 0, 0, first, expert, policy);
    else if constexpr (kLies == Lies::AlongRows)
      load_panels<kPaired>(shared, maps, barrier, step);
    else if constexpr (kPaired)
      ptx::tensor_multicast_3d(shared, &maps.half_weights, barrier, kBoth, step * kBoxDepth,
                               first + rank * (kColumns / 2), expert);
    else
      ptx::tensor_load_3d(shared, &maps.weights, barrier, step * kBoxDepth, first, expert, policy);
  }

 private:
  // 64 rows of 64 columns each; of a pair this block's half of them.
  template <bool kPaired>
  __device__ void load_panels(std::uint32_t shared, const Maps& maps, std::uint32_t barrier, int step) const {
    constexpr std::uint16_t kBoth = 0b11;
    constexpr int kPanels = kColumns / 64 / (kPaired ? 2 : 1);
    const int column = first + (kPaired ? rank * (kColumns / 2) : 0);
    const int row = (step - (kPlanted == KernelFault::EarlierWeights && step > 0)) * kBoxDepth;
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      const std::uint32_t to = shared + panel * ptx::kPanelBytes;
      if constexpr (kPaired)
        ptx::tensor_multicast_3d(to, &maps.weights, barrier, kBoth, column + panel * 64, row, expert);
      else
        ptx::tensor_load_3d(to, &maps.weights, barrier, column + panel * 64, row, expert);
    }
  }
};

// One warp, of which one lane works.
template <ProductId kProduct, TileLayout kLayout>
__device__ void fetch_weights(const Arguments& arguments, const Maps& maps, std::uint32_t base,
                              Control* control) {
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    if (threadIdx.x % 32 == 0) {
      const WeightLoads<kProduct, kLayout> weights(tile, arguments);
      const auto load_stages = [&]<bool kPaired>(std::bool_constant<kPaired>) {
        for (int step = 0; step < steps; ++step, ring.advance()) {
          ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
          weights.template load<kPaired>(base + ring.stage * TileShape<kLayout>::kStageBytes, maps,
                                         full + ring.stage * 8, step);
        }
      };
      if (tile.paired)
        load_stages(std::true_type{});
      else
        load_stages(std::false_type{});
    }
    __syncwarp();
  }
}

// One warp, of which one lane works.
template <bool kOddColumns>
__device__ void hand_out_tiles(TileFeeder<kOddColumns> feeder) {
  if (threadIdx.x % 32 == 0 && feeder.leads()) {
    feeder.run();
    feeder.finish();
  }
  __syncwarp();
}

// 16-byte chunks from the start of x to a token's row: fits 32 bits up to 64 GiB.
__device__ inline std::uint32_t first_chunk(const Arguments& arguments, int token) {
  const auto chunk = static_cast<std::uint32_t>(token) * static_cast<std::uint32_t>(arguments.depth / 8);
  return kPlanted == KernelFault::ByteOffset32 ? chunk % (1u << 28) : chunk;
}

// A warpgroup: thread t copies chunk t mod 8 of rows t / 8, t / 8 + 16, ... All four warps copy, for two take
// 13 % longer; so one lane of the first hands out tiles besides, and one of the last brings weights.
template <ProductId kProduct, TileLayout kLayout>
__device__ void gather_rows(const Arguments& arguments, TileFeeder<false> feeder, const Maps& maps,
                            std::uint32_t base, Control* control) {
  using Shape = TileShape<kLayout>;
  constexpr int kApart = 16;  // rows of one thread: they have the same swizzle
  constexpr int kCopies = Shape::kRows / kApart;
  constexpr int kTogether = 4;  // copies that are left out together behind a tile's last row
  const int warp = threadIdx.x / 32;
  const bool acts = threadIdx.x % 32 == 0;
  const int chunk = threadIdx.x % 8;
  const int first_row = threadIdx.x / 8;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  const std::uint32_t first_place = base + Shape::kWeightBytes + swizzled(first_row, chunk);
  const auto feed = [&](int step) {
    if (acts) feeder.step(step);
  };
  if (warp == 0)
    for (int step = 0; step < TileFeeder<false>::kSteps; ++step) feed(step);
  __syncwarp();
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    std::uint32_t from[kCopies];  // this thread's chunk of each row at K = 0
    unsigned valid_rows = 0;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row + i * kApart;
      const bool valid = row < tile.rows;
      valid_rows |= static_cast<unsigned>(valid) << i;
      from[i] = chunk + (valid ? first_chunk(arguments, arguments.routing.gather_indices[tile.first + row] /
                                                            arguments.top_k)
                               : 0);
    }
    // What a warp does besides is decided here: a refill is on the critical path.
    const auto copy_stages = [&](auto before, auto after) {
      const auto* chunks_of_x =
          reinterpret_cast<const uint4*>(arguments.x);  // a stage further along K with every step
#pragma unroll 1
      for (int step = 0; step < steps; ++step, ring.advance(), chunks_of_x += kBoxDepth / 8) {
        const std::uint32_t arrived = full + ring.stage * 8;
        const std::uint32_t to = first_place + ring.stage * Shape::kStageBytes;
        const unsigned valid = step * kBoxDepth + chunk * 8 < arguments.depth ? valid_rows : 0;
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        before(step, arrived);
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
          if (i % kTogether == 0 && i * kApart >= tile.rows) break;
          ptx::cp_async_16(to + i * kApart * 128, chunks_of_x + from[i], valid & 1u << i);
        }
        ptx::cp_async_arrive(arrived);
        after(step);
      }
    };
    const auto nothing = [](auto...) {};
    if (warp == 0) {
      copy_stages(nothing, feed);
      for (int step = steps; step < TileFeeder<false>::kSteps; ++step) feed(step);
    } else if (warp < 3) {
      copy_stages(nothing, nothing);
    } else {
      const WeightLoads<kProduct, kLayout> weights(tile, arguments);
      const auto bring = [&]<bool kPaired>(std::bool_constant<kPaired>) {
        copy_stages(
            [&](int step, std::uint32_t arrived) {
              if (acts)
                weights.template load<kPaired>(base + ring.stage * Shape::kStageBytes, maps, arrived, step);
            },
            nothing);
      };
      if (tile.paired)
        bring(std::true_type{});
      else
        bring(std::false_type{});
    }
    __syncwarp();
  }
  if (threadIdx.x == 0) feeder.finish();
}

// A stage's contiguous rows: large boxes, small ones for a short rest. Rows behind the expert's last are the
// next expert's, or zeros: computed at most, never stored. Gives the rows that come, or brings them.
template <TileLayout kLayout>
struct RowLoads {
  static constexpr bool kTall = kLayout == TileLayout::Tall;
  static constexpr int kBoxRows = TileShape<kLayout>::kBoxRows;
  static constexpr int kMostSmall = kTall ? 0 : 3;
  int large;
  int small;

  __device__ explicit RowLoads(int rows) {
    const int rest = rows % kBoxRows;
    const bool rounded_up = rest > kMostSmall * kGranule;
    large = rows / kBoxRows + rounded_up;
    small = rounded_up ? 0 : (rest + kGranule - 1) / kGranule;
  }
  __device__ int rows() const { return large * kBoxRows + small * kGranule; }
  __device__ void load(std::uint32_t to, const Maps& maps, std::uint32_t barrier, int step, int first) const {
#pragma unroll kTall ? 2 : 1
    for (int i = 0; i < large; ++i)
      ptx::tensor_load_2d(to + i * kBoxRows * 128, &maps.rows, barrier, step * kBoxDepth,
                          first + i * kBoxRows);
    if constexpr (kMostSmall > 0)
#pragma unroll 1
      for (int i = 0, row = large * kBoxRows; i < small; ++i, row += kGranule)
        ptx::tensor_load_2d(to + row * 128, &maps.few_rows, barrier, step * kBoxDepth, first + row);
  }
};

// One warp, of which one lane works. Returns when the kernels before have ended: the next one relies on that.
template <TileLayout kLayout>
__device__ void fetch_rows(const Arguments& arguments, const Maps& maps, std::uint32_t base,
                           Control* control) {
  using Shape = TileShape<kLayout>;
  const int steps = (arguments.depth + kBoxDepth - 1) / kBoxDepth;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control, arguments.cluster};
  FirstProduct first_product{&arguments.routing, static_cast<std::uint32_t>(arguments.depth)};
  if (!arguments.overlaps) first_product.end();
  for (Tile tile = reader.take(); tile.rows > 0; tile = reader.take()) {
    if (threadIdx.x % 32 == 0) {
      first_product.wait_for(tile.expert);
      const RowLoads<kLayout> rows(tile.rows);
      for (int step = 0; step < steps; ++step, ring.advance()) {
        const std::uint32_t arrived = full + ring.stage * 8;
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        ptx::mbarrier_arrive_expect(arrived, rows.rows() * 128);
        rows.load(base + ring.stage * Shape::kStageBytes + Shape::kWeightBytes, maps, arrived, step,
                  tile.first);
      }
    }
    __syncwarp();
  }
  first_product.end();
}

}  // namespace assay::gpu::wgmma
