// Who brings what the gradients of weights multiply, and who hands out their tiles.
#pragma once

#include "gpu/kernels/planted_kernels.h"
#include "gpu/wgmma/weight_grad_tiles.cuh"

namespace assay::gpu::wgmma {

/// Hands out tiles: all of an expert's matrix, then the next one's, drawn from a counter in device memory, so
/// that experts with few rows even out.
struct GradTileFeeder {
  const WeightGradArguments* arguments;
  Control* control;
  int number = 0;
  // What a step leaves to the next one:
  unsigned ticket = 0;
  int expert = 0;
  int tile = 0;  // of the expert
  int first = 0;
  int rows = 0;

  __device__ unsigned per_expert() const {
    return static_cast<unsigned>(arguments->height_tiles * arguments->width_tiles);
  }
  /// Asks for the expert: a comparison of the ticket is made ahead of its step, and waits for it there.
  __device__ bool at_end() const { return expert >= arguments->experts; }

  /// Steps 0 to kSteps - 1 hand out one tile, of no expert behind the last one. What is asked of memory is
  /// looked at in the step after, so that a thread that does other things between never waits.
  static constexpr int kSteps = 4;
  __device__ void step(int step) {
    if (step == 0 && number > 0) ticket = ptx::draw(&arguments->counter->next);
    if (step == 1) {
      ticket = number == 0 ? blockIdx.x : ticket + gridDim.x;
      const unsigned whole = ticket / per_expert();
      expert = static_cast<int>(whole);
      tile = static_cast<int>(ticket - whole * per_expert());
    }
    if (step == 2 && !at_end()) {
      first = arguments->first_rows[expert];
      rows = arguments->counts[expert];
    }
    if (step == 3) publish();
  }

  /// All tiles, one after the other: each when the one before has been taken by everyone.
  __device__ void run() {
    do {
      if (number > 0)
        ptx::mbarrier_wait(ptx::shared_address(&control->tile_taken[(number - 1) % 2]), (number - 1) / 2 % 2);
      for (int i = 0; i < kSteps; ++i) step(i);
    } while (!at_end());
  }

  /// The last block to finish winds the counter back, so that the kernel can run again.
  __device__ void finish() const {
    __threadfence();
    if (static_cast<unsigned>(atomicAdd(&arguments->counter->finished, 1)) == gridDim.x - 1)
      *arguments->counter = {};
  }

 private:
  __device__ void publish() {
    const int slot = number % 2;
    ptx::mbarrier_wait(ptx::shared_address(&control->tile_taken[slot]), number / 2 % 2 ^ 1);
    control->tiles[slot] = at_end() ? int4{-1, 0, 0, 0} : int4{expert, first, rows, tile};
    ptx::mbarrier_arrive(ptx::shared_address(&control->tile_ready[slot]));
    ++number;
  }
};

// One warp, of which one lane works.
__device__ inline void hand_out_grad_tiles(GradTileFeeder feeder) {
  if (threadIdx.x % 32 != 0) return;
  feeder.run();
  feeder.finish();
}

// A stage's panels by the copy engine: those of d_out and, with kRows, of rows that are contiguous.
template <bool kRows>
struct GradPanelLoads {
  static constexpr int kPanelsOfRows = kGradWidth / 64;
  static constexpr int kFirst = kRows ? 0 : kPanelsOfRows;
  int column;      // of the rows
  int row_of_out;  // and the column of d_out
  int first;
  bool whole;
  int rows;

  __device__ GradPanelLoads(const Tile& tile, const WeightGradArguments& arguments)
      : column(width_tile(tile, arguments) * kGradWidth),
        row_of_out(height_tile(tile, arguments) * kGradHeight),
        first(tile.first),
        whole(arguments.whole_panels),
        // With the fault the panels reach behind the expert's last row.
        rows(kPlanted == KernelFault::UncutRows ? grad_steps(tile) * kGradDepth : tile.rows) {}

  __device__ void load(std::uint32_t stage, const WeightGradMaps& maps, std::uint32_t barrier,
                       int step) const {
    ptx::mbarrier_arrive_expect(barrier, (kGradPanels - kFirst) * static_cast<int>(kGradPanelBytes));
    if (whole) {  // one or two copies instead of four or six: each takes as many instructions as a gathered
                  // row
      if constexpr (kRows)
        load_ragged_panels(stage, maps.rows, barrier, column / 64, first, rows, step * kGradDepth);
      load_ragged_panels(stage + kPanelsOfRows * kGradPanelBytes, maps.d_out, barrier, row_of_out / 64, first,
                         rows, step * kGradDepth);
      return;
    }
#pragma unroll
    for (int panel = kFirst; panel < kGradPanels; ++panel) {
      const bool of_rows = panel < kPanelsOfRows;
      load_ragged(stage + panel * kGradPanelBytes, of_rows ? maps.rows : maps.d_out, barrier,
                  of_rows ? column + panel * 64 : row_of_out + (panel - kPanelsOfRows) * 64, first, rows,
                  step * kGradDepth);
    }
  }
};

// One warp, of which one lane works.
__device__ inline void fetch_grad_panels(const WeightGradArguments& arguments, const WeightGradMaps& maps,
                                         std::uint32_t base, Control* control) {
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  Ring ring{arguments.stages};
  TileReader reader{control, 1};
  for (Tile tile = reader.take(); !is_end(tile); tile = reader.take()) {
    if (threadIdx.x % 32 == 0) {
      const GradPanelLoads<true> panels(tile, arguments);
      const int steps = grad_steps(tile);
      for (int step = 0; step < steps; ++step, ring.advance()) {
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        panels.load(base + ring.stage * kGradStageBytes, maps, full + ring.stage * 8, step);
      }
    }
    __syncwarp();
  }
}

// A warpgroup: thread t copies chunk t mod 8 of each panel of rows t / 8, t / 8 + 16, ... of a stage. One
// lane of the first warp hands out tiles besides, and one of the last brings d_out. Slots are looked up two
// stages ahead: lane l has that of stage l / 16, row 4 warp + l mod 4 + 16 (l / 4 mod 4).
__device__ inline void gather_grad_rows(const WeightGradArguments& arguments, GradTileFeeder feeder,
                                        const WeightGradMaps& maps, std::uint32_t base, Control* control) {
  constexpr int kPanels = kGradWidth / 64;
  constexpr int kApart = 16;
  constexpr int kRows = kGradDepth / kApart;  // of a thread and stage
  constexpr int kLookedUp = 2;                // stages
  constexpr std::uint32_t kNoRow = ~0u;
  static_assert(kRows * 4 * kLookedUp == 32, "one swizzle per thread, a lane per row");
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const bool acts = lane == 0;
  const int chunk = threadIdx.x % 8;
  const int looked_up = lane / 16 * kGradDepth + warp * 4 + lane % 4 + lane / 4 % kRows * kApart;
  const std::uint32_t full = ptx::shared_address(control->full);
  const std::uint32_t empty = ptx::shared_address(control->empty);
  const std::uint32_t place = base + swizzled(threadIdx.x / 8, chunk);
  const auto feed = [&](int step) {
    if (acts) feeder.step(step);
  };
  if (warp == 0)
    for (int step = 0; step < GradTileFeeder::kSteps; ++step) feed(step);
  __syncwarp();
  Ring ring{arguments.stages};
  TileReader reader{control, 1};
  for (Tile tile = reader.take(); !is_end(tile); tile = reader.take()) {
    const auto slot_of = [&](int row) {
      return row < tile.rows ? arguments.gather_indices[tile.first + row] : -1;
    };
    // In 16-byte chunks of x, of which there are fewer than kNoRow.
    const auto first_chunk = [&](int slot) {
      const auto token = static_cast<std::uint32_t>(slot) / static_cast<std::uint32_t>(arguments.top_k);
      return slot < 0 ? kNoRow : token * static_cast<std::uint32_t>(arguments.width / 8);
    };
    const int column = width_tile(tile, arguments) * kGradWidth + chunk * 8;
    const auto* const chunks_of_x = reinterpret_cast<const uint4*>(arguments.x) + column / 8;
    const int steps = grad_steps(tile);
    // What a warp does besides is decided here: a refill is on the critical path.
    const auto copy_stages = [&](auto before, auto after) {
      std::uint32_t rows = 0;
      int next = slot_of(looked_up);
#pragma unroll 1
      for (int step = 0; step < steps; ++step, ring.advance()) {
        if (step % kLookedUp == 0) {
          rows = first_chunk(next);
          next = slot_of((step + kLookedUp) * kGradDepth + looked_up);
        }
        std::uint32_t from[kRows];  // asked of the lanes before the stage is free
        __syncwarp();
#pragma unroll
        for (int i = 0; i < kRows; ++i)
          from[i] = __shfl_sync(0xffffffffu, rows, step % kLookedUp * 16 + i * 4 + lane / 8);
        const std::uint32_t arrived = full + ring.stage * 8;
        ptx::mbarrier_wait(empty + ring.stage * 8, ring.parity ^ 1);
        before(step, arrived);
#pragma unroll
        for (int i = 0; i < kRows; ++i)
#pragma unroll
          for (int panel = 0; panel < kPanels; ++panel) {
            const bool valid = from[i] != kNoRow && column + panel * 64 < arguments.width;
            ptx::cp_async_16(
                place + ring.stage * kGradStageBytes + panel * kGradPanelBytes + i * kApart * 128,
                chunks_of_x + (valid ? from[i] + panel * 8 : 0), valid);
          }
        ptx::cp_async_arrive(arrived);
        after(step);
      }
    };
    const auto nothing = [](auto...) {};
    if (warp == 0) {
      copy_stages(nothing, feed);
      for (int step = steps; step < GradTileFeeder::kSteps; ++step) feed(step);
    } else if (warp < 3) {
      copy_stages(nothing, nothing);
    } else {
      const GradPanelLoads<false> panels(tile, arguments);
      copy_stages(
          [&](int step, std::uint32_t arrived) {
            if (acts) panels.load(base + ring.stage * kGradStageBytes, maps, arrived, step);
          },
          nothing);
    }
    __syncwarp();
  }
  if (threadIdx.x == 0) feeder.finish();
}

}  // namespace assay::gpu::wgmma
