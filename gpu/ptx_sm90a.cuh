// PTX of Hopper alone: the tensor copy engine and warpgroup products. Needs compute_90a.
#pragma once

#include <cstdint>

#include "gpu/ptx.cuh"

namespace assay::gpu::ptx {

// --- tensor copies: a box of a tensor map to or from shared memory ---

__device__ inline void tensor_load_2d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, int c0, int c1) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(shared),
               "l"(map), "r"(barrier), "r"(c0), "r"(c1)
               : "memory");
}
__device__ inline void tensor_load_3d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, int c0, int c1, int c2) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared),
               "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}
__device__ inline void tensor_load_5d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, int c0, int c1, int c2, int c3,
                                      int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
/// To the same place in every block of the cluster whose bit is set in `blocks`; each block's barrier counts its own bytes.
__device__ inline void tensor_multicast_3d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, std::uint16_t blocks, int c0,
                                           int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(
          shared),
      "l"(map), "r"(barrier), "h"(blocks), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ inline void tensor_multicast_5d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier, std::uint16_t blocks, int c0,
                                           int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%4, %5, %6, %7, %8}], "
      "[%2], %3;" ::"r"(shared),
      "l"(map), "r"(barrier), "h"(blocks), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
__device__ inline void tensor_store_2d(const CUtensorMap* map, std::uint32_t shared, int c0, int c1) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(shared), "r"(c0), "r"(c1)
               : "memory");
}
__device__ inline void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Until the copy engine has read the shared memory of all committed stores.
__device__ inline void bulk_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
__device__ inline void prefetch_map(const CUtensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// --- warpgroup products ---

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Descriptor of a K-major tile of 128-byte rows in the 128-byte swizzle, starting at a multiple of 1024 bytes: groups of eight
/// rows are 1024 bytes apart. 16 elements further along K are 32 bytes, 2 in the descriptor's units.
__device__ inline std::uint64_t tile_descriptor(std::uint32_t shared) {
  return static_cast<std::uint64_t>((shared & 0x3ffffu) >> 4) | std::uint64_t{1} << 16 | std::uint64_t{1024 >> 4} << 32 |
         std::uint64_t{1} << 62;
}

#define ASSAY_8(i)                                                                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define ASSAY_32(i) ASSAY_8(i), ASSAY_8(i + 8), ASSAY_8(i + 16), ASSAY_8(i + 24)

/// d = a b^T (+ d if `accumulate`): a 64x16, b 256x16, both K-major in shared memory, fp32 accumulators. Asynchronous.
__device__ inline void wgmma_m64n256k16(float (&d)[128], std::uint64_t a, std::uint64_t b, int accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred accumulate;\n"
      "setp.ne.b32 accumulate, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, accumulate, 1, 1, 0, 0;\n"
      "}\n"
      : ASSAY_32(0), ASSAY_32(32), ASSAY_32(64), ASSAY_32(96)
      : "l"(a), "l"(b), "r"(accumulate));
}

#undef ASSAY_32
#undef ASSAY_8

}  // namespace assay::gpu::ptx
