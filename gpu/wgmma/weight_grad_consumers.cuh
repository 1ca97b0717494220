// The consumers of the gradients of weights: each multiplies 64 columns of a tile and writes them.
#pragma once

#include "gpu/kernels/gradient_store.h"
#include "gpu/kernels/planted_kernels.h"
#include "gpu/wgmma/ptx_wgmma.cuh"
#include "gpu/wgmma/weight_grad_tiles.cuh"
#include "gpu/wgmma/wgmma_consumers.cuh"

namespace assay::gpu::wgmma {

using GradSums = float[kGradHeight / 2];  // not set where the expert has no rows: then all are zeros

/// One consumer's sums over the expert's rows, of which there are some.
template <bool kGather>
__device__ void sum_grad(GradSums& d, Ring& ring, int rows, const Release& release, std::uint32_t base,
                         int consumer, std::uint32_t full) {
  constexpr std::uint32_t kNext = ptx::kNextSixteen<Lies::AlongRows>;
  int held = -1;  // the stage whose products may be in flight
  const auto free_held = [&] {
    if (held >= 0) release.free(held);
    held = -1;
  };
  // The next stage's first kSixteens steps of 16.
  const auto step = [&]<int kSixteens>(std::integral_constant<int, kSixteens>, bool first) {
    const std::uint32_t arrived = full + ring.stage * 8;
    if (held >= 0 && !arrived_for_all(arrived, ring.parity, consumer)) {
      ptx::wgmma_wait<0>();
      free_held();
    }
    ptx::mbarrier_wait(arrived, ring.parity);
    if constexpr (kGather) ptx::fence_proxy_async();  // cp.async wrote what wgmma is about to read
    const std::uint32_t stage = base + ring.stage * kGradStageBytes;
    const std::uint32_t a =
        ptx::tile_place<Lies::AlongRows, kGradPanelBytes>(stage + consumer * kGradPanelBytes);
    const std::uint32_t b =
        ptx::tile_place<Lies::AlongRows, kGradPanelBytes>(stage + kConsumers * kGradPanelBytes);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kSixteens; ++k)
      ptx::wgmma_m64k16<kGradHeight, Lies::AlongRows, Lies::AlongRows>(
          d, ptx::tile_descriptor(a + k * kNext), ptx::tile_descriptor(b + k * kNext), !first || k != 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    free_held();
    held = ring.stage;
    ring.advance();
  };
  const int whole = rows / kGradDepth;
#pragma unroll 1
  for (int i = 0; i < whole; ++i) step(std::integral_constant<int, kGradDepth / 16>{}, i == 0);
  // Steps of 16 that the expert has no row in are left out.
  switch ((rows % kGradDepth + 15) / 16) {
    case 1: step(std::integral_constant<int, 1>{}, whole == 0); break;
    case 2: step(std::integral_constant<int, 2>{}, whole == 0); break;
    case 3: step(std::integral_constant<int, 3>{}, whole == 0); break;
    case 4: step(std::integral_constant<int, 4>{}, whole == 0); break;
    default: break;
  }
  ptx::wgmma_wait<0>();
  free_held();
}

/// What is there already of the pass's rows, bf16, into the buffer that they leave through. All 128 threads.
template <bool kGather>
__device__ void fetch_before(const WeightGradArguments& arguments, char* staging, const Tile& tile,
                             int consumer, int pass) {
  constexpr int kPassRows = GradShape<kGather>::kPassRows;
  const int thread = threadIdx.x % 128;
  const int column = width_tile(tile, arguments) * kGradWidth + consumer * 64 + thread % 8 * 8;
  const int first_row = height_tile(tile, arguments) * kGradHeight + pass * kPassRows;
  const bf16* const before = row_of_out<const bf16>(arguments, tile, 0) + column;
  const std::uint32_t buffer = ptx::shared_address(staging);
  if (thread == 0) ptx::bulk_wait_read<0>();
  ptx::named_barrier(1 + consumer, 128);  // the buffer is free again
#pragma unroll 4
  for (int row = thread / 8; row < kPassRows; row += 128 / 8) {
    const bool valid = column < arguments.width && first_row + row < arguments.height;
    const bf16* const from =
        before + static_cast<std::int64_t>(valid ? first_row + row : 0) * arguments.width;
    ptx::cp_async_16(buffer + swizzled(row, thread % 8), valid ? from : nullptr, valid);
  }
  ptx::cp_async_commit();
}

/// Two neighbouring rows' sums, rounded; or what a contract adds, to what was there, and rounded then.
__device__ inline std::uint32_t rounded_pair(float first, float second) {
  return bits_of(__floats2bfloat162_rn(first, second));
}
__device__ inline float product_of(const WeightGradArguments& arguments, float sum) {
  return arguments.product_rounded ? through_bf16(sum) : sum;
}
__device__ inline std::uint32_t rounded_pair_added(const WeightGradArguments& arguments, float first,
                                                   float second, std::uint32_t before) {
  const float2 there = kPlanted == KernelFault::PreviousOverwritten
                           ? float2{}
                           : __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&before));
  return rounded_pair(__fadd_rn(product_of(arguments, first), there.x),
                      __fadd_rn(product_of(arguments, second), there.y));
}

/// float32 leaves from registers: eight lanes write eight neighbouring columns, a whole sector.
template <bool kAdded>
__device__ void write_grad_fp32(const WeightGradArguments& arguments, const GradSums& d, const Tile& tile,
                                int consumer) {
  constexpr int kTogether = 4;  // blocks of 8 rows whose old values are asked for before one is looked at
  const int lane = threadIdx.x % 32;
  const int column =
      width_tile(tile, arguments) * kGradWidth + consumer * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const int first_row = height_tile(tile, arguments) * kGradHeight + lane % 4 * 2;
  float* const out = row_of_out<float>(arguments, tile, first_row) + column;
#pragma unroll
  for (int first = 0; first < kGradHeight / 8; first += kTogether) {
    float before[kTogether * 4];
    const auto visit = [&](auto element) {
#pragma unroll
      for (int i = 0; i < kTogether * 4; ++i) {
        const int row = (first + i / 4) * 8 + i % 2;
        const int right = i / 2 % 2 * 8;
        if (first_row + row < arguments.height && column + right < arguments.width)
          element(i, out + static_cast<std::int64_t>(row) * arguments.width + right);
      }
    };
    if constexpr (kAdded)
      visit([&](int i, const float* at) {
        before[i] = kPlanted == KernelFault::PreviousOverwritten ? 0.0f : *at;
      });
    visit([&](int i, float* at) {
      const float sum = product_of(arguments, d[first * 4 + i]);
      if constexpr (kAdded)
        *at = __fadd_rn(sum, before[i]);
      else
        *at = tile.rows == 0 ? 0.0f : sum;
    });
  }
}

/// The tile lies transposed: register 4 b + 2 h + i is column lane / 4 + 8 h of the warp's 16, row 8 b + 2
/// (lane mod 4) + i. Through shared memory as rows of 64 columns, then a box. kAdded: the first pass's old
/// values are in the buffer or on their way there.
template <bool kGather, bool kAdded>
__device__ void write_grad(const WeightGradArguments& arguments, const WeightGradMaps& maps,
                           const GradSums& d, char* staging, const Tile& tile, int consumer) {
  constexpr int kPassRows = GradShape<kGather>::kPassRows;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x % 128 / 32;
  const bool storing = threadIdx.x % 128 == 0;
  const std::uint32_t buffer = ptx::shared_address(staging);
  const auto pair = [&](int i) { return tile.rows == 0 ? 0u : rounded_pair(d[i], d[i + 1]); };
  const int column = width_tile(tile, arguments) * kGradWidth + consumer * 64;
  const int first_row = height_tile(tile, arguments) * kGradHeight;
  const bool left_out = kPlanted == KernelFault::EmptyExpertUnwritten && tile.rows == 0;
#pragma unroll
  for (int pass = 0; pass < kGradHeight / kPassRows; ++pass) {
    if constexpr (kAdded) {
      if (pass > 0) fetch_before<kGather>(arguments, staging, tile, consumer, pass);
      ptx::cp_async_wait<0>();
    } else if (storing) {
      ptx::bulk_wait_read<0>();
    }
    ptx::named_barrier(1 + consumer, 128);  // the buffer is free again, or what was there has come
#pragma unroll
    for (int b = 0; b < kPassRows / 8; b += 2) {
      const int i = 4 * (pass * (kPassRows / 8) + b);
      const std::uint32_t at = buffer + swizzled((b + lane / 16) * 8 + lane % 8, warp * 2 + lane / 8 % 2);
      if constexpr (kAdded) {
        std::uint32_t four[4];
        ptx::ldmatrix_transposed(four, at);
#pragma unroll
        for (int j = 0; j < 4; ++j)
          four[j] = rounded_pair_added(arguments, d[i + 2 * j], d[i + 2 * j + 1], four[j]);
        ptx::stmatrix_transposed(at, four);
      } else {
        const std::uint32_t four[4] = {pair(i), pair(i + 2), pair(i + 4), pair(i + 6)};
        ptx::stmatrix_transposed(at, four);
      }
    }
    ptx::fence_proxy_async();
    ptx::named_barrier(1 + consumer, 128);
    if (storing && column < arguments.width && !left_out) {
      ptx::tensor_store_3d(&maps.out, buffer, column, first_row + pass * kPassRows, tile.expert);
      ptx::bulk_commit();
    }
  }
}

template <bool kGather, GradientStore kStore>
__device__ void consume_grad(const WeightGradArguments& arguments, const WeightGradMaps& maps,
                             std::uint32_t base, char* staging, Control* control, int consumer) {
  const std::uint32_t full = ptx::shared_address(control->full);
  const Release release(ptx::shared_address(control->empty), 1);
  Ring ring{arguments.stages};
  TileReader reader{control, 1};
  for (Tile tile = reader.take(); !is_end(tile); tile = reader.take()) {
    if (adds(kStore) && tile.rows == 0) continue;  // what was there stays
    if constexpr (kStore == GradientStore::Bf16Added)
      fetch_before<kGather>(arguments, staging, tile, consumer, 0);
    GradSums d;
    if (tile.rows > 0) sum_grad<kGather>(d, ring, tile.rows, release, base, consumer, full);
    if constexpr (is_fp32(kStore))
      write_grad_fp32<adds(kStore)>(arguments, d, tile, consumer);
    else
      write_grad<kGather, adds(kStore)>(arguments, maps, d, staging, tile, consumer);
  }
  if (threadIdx.x % 128 == 0) ptx::bulk_wait_read<0>();  // shared memory outlives the last store's reads
}

}  // namespace assay::gpu::wgmma
