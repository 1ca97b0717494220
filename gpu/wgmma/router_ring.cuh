// What the router's products on wgmma share: a ring of stages of 64 along K, which one lane has the copy
// engine fill and warpgroups of 64 rows multiply. Every element's sum is one chain of wgmma steps, K
// ascending by 16.
#pragma once

#include "gpu/wgmma/ptx_sm90a.cuh"
#include "gpu/wgmma/ptx_wgmma.cuh"
#include "gpu/wgmma/tensor_map.h"

namespace assay::gpu::wgmma {

inline constexpr int kRouterAlignment = 1024;  // of the 128-byte swizzle

/// In shared memory. A stage is freed by every multiplying warp.
template <int kStages>
struct RouterBarriers {
  std::uint64_t full[kStages];
  std::uint64_t empty[kStages];

  __device__ void init(int multiplying_warps) {
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::mbarrier_init(ptx::shared_address(&full[stage]), 1);
      ptx::mbarrier_init(ptx::shared_address(&empty[stage]), multiplying_warps);
    }
    ptx::fence_mbarrier_init();
  }
};

/// One lane. load(stage, barrier, step) asks for a stage's kStageBytes.
template <int kStageBytes, int kStages, class Load>
__device__ void fill_stages(RouterBarriers<kStages>& barriers, std::uint32_t base, int steps, Load load) {
  int stage = 0;
  int parity = 1;
  for (int step = 0; step < steps; ++step) {
    const std::uint32_t full = ptx::shared_address(&barriers.full[stage]);
    ptx::mbarrier_wait(ptx::shared_address(&barriers.empty[stage]), parity);
    ptx::mbarrier_arrive_expect(full, kStageBytes);
    load(base + stage * kStageBytes, full, step);
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

/// A warpgroup: d = a b^T over all steps, a 64 x K at `a` of a stage, b kColumns x K at `b`.
template <int kStageBytes, Lies kLiesA, Lies kLiesB, int kColumns, int kStages>
__device__ void multiply_stages(float (&d)[kColumns / 2], RouterBarriers<kStages>& barriers,
                                std::uint32_t base, std::uint32_t a, std::uint32_t b, int steps) {
  int stage = 0;
  int parity = 0;
  int held = 0;
  for (int step = 0; step < steps; ++step) {
    ptx::mbarrier_wait(ptx::shared_address(&barriers.full[stage]), parity);
    const std::uint32_t from = base + stage * kStageBytes;
    const std::uint32_t place_a = ptx::tile_place<kLiesA>(from + a);
    const std::uint32_t place_b = ptx::tile_place<kLiesB>(from + b);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBoxDepth / 16; ++k)
      ptx::wgmma_m64k16<kColumns, kLiesA, kLiesB>(
          d, ptx::tile_descriptor(place_a + ptx::kNextSixteen<kLiesA> * k),
          ptx::tile_descriptor(place_b + ptx::kNextSixteen<kLiesB> * k), step != 0 || k != 0);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if (step > 0 && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ptx::shared_address(&barriers.empty[held]));
    held = stage;
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  ptx::wgmma_wait<0>();
}

}  // namespace assay::gpu::wgmma
