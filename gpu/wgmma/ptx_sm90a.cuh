// PTX of Hopper alone: the tensor copy engine and warpgroup products. Needs compute_90a.
#pragma once

#include <cstdint>

#include "gpu/kernels/ptx.cuh"
#include "harness/contract/product_id.h"

namespace assay::gpu::ptx {

// --- tensor copies: a box of a tensor map to or from shared memory ---

/// Policies of the L2, as the hardware encodes them.
inline constexpr std::uint64_t kKept = 0x1000000000000000ull;
inline constexpr std::uint64_t kFirstToGo = 0x12f0000000000000ull;

__device__ inline void tensor_load_2d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier,
                                      int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1)
      : "memory");
}
__device__ inline void tensor_load_3d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier,
                                      int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5}], [%2];" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
/// The same with a policy of the L2 for what is read.
__device__ inline void tensor_load_3d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier,
                                      int c0, int c1, int c2, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "l"(policy)
      : "memory");
}
__device__ inline void tensor_load_4d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier,
                                      int c0, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5, %6}], [%2];" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
__device__ inline void tensor_load_5d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier,
                                      int c0, int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
      "%5, %6, %7}], [%2];" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
/// The same with a policy of the L2 for what is read.
__device__ inline void tensor_load_5d(std::uint32_t shared, const CUtensorMap* map, std::uint32_t barrier,
                                      int c0, int c1, int c2, int c3, int c4, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "l"(policy)
      : "memory");
}
/// To the same place in every block of the cluster whose bit is set in `blocks`; each block's barrier counts
/// its own bytes.
__device__ inline void tensor_multicast_3d(std::uint32_t shared, const CUtensorMap* map,
                                           std::uint32_t barrier, std::uint16_t blocks, int c0, int c1,
                                           int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(shared),
      "l"(map), "r"(barrier), "h"(blocks), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
__device__ inline void tensor_multicast_5d(std::uint32_t shared, const CUtensorMap* map,
                                           std::uint32_t barrier, std::uint16_t blocks, int c0, int c1,
                                           int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%4, %5, %6, %7, %8}], "
      "[%2], %3;" ::"r"(shared),
      "l"(map), "r"(barrier), "h"(blocks), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
__device__ inline void tensor_store_2d(const CUtensorMap* map, std::uint32_t shared, int c0, int c1) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(shared), "r"(c0), "r"(c1)
               : "memory");
}
__device__ inline void tensor_store_3d(const CUtensorMap* map, std::uint32_t shared, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map),
      "r"(shared), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
/// `bytes`, a multiple of 16, from a multiple of 16 to one; the barrier counts them.
__device__ inline void bulk_load(std::uint32_t shared, const void* global, int bytes, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(barrier)
      : "memory");
}
__device__ inline void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/// Until the copy engine has read the shared memory of all committed stores but the last kPending.
template <int kPending>
__device__ inline void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
/// Until the stores of all committed groups are in memory.
__device__ inline void bulk_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/// Adds 1 and gives what was there. An increment up to a bound that is never reached: an addition the
/// compiler makes one for all lanes, and waits to divide the result among them, while here the thread goes on
/// until it looks at the result.
__device__ inline unsigned draw(int* counter) {
  unsigned before;
  asm volatile("atom.global.inc.u32 %0, [%1], 0x7fffffff;" : "=r"(before) : "l"(counter) : "memory");
  return before;
}

// --- warpgroup products ---

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// ptx::named_barrier that also tells all of its threads whether `own` holds for each of them.
__device__ inline bool all_at_named_barrier(int id, int threads, bool own) {
  std::uint32_t all;
  asm volatile(
      "{\n"
      ".reg .pred own, all;\n"
      "setp.ne.u32 own, %1, 0;\n"
      "barrier.cta.red.and.pred all, %2, %3, own;\n"
      "selp.u32 %0, 1, 0, all;\n"
      "}\n"
      : "=r"(all)
      : "r"(static_cast<std::uint32_t>(own)), "r"(id), "r"(threads)
      : "memory");
  return all != 0;
}

/// Low half of the descriptor of a tile of 128-byte rows in the 128-byte swizzle, starting at a multiple of
/// 1024 bytes: groups of eight rows are 1024 bytes apart. It counts places in 16 bytes. An operand that lies
/// along its columns has 64 elements of K in a row; one that lies along its rows has 64 of its other axis
/// there and rows of K below one another, and the next 64 of the other axis in a panel behind, of kBytes.
inline constexpr std::uint32_t kPanelBytes = 64 * 128;
template <Lies kLies = Lies::AlongColumns, std::uint32_t kBytes = kPanelBytes>
__device__ inline std::uint32_t tile_place(std::uint32_t shared) {
  constexpr std::uint32_t kOfBlock = (1u << 18) - 1;  // above it an address says which block of a cluster
  if constexpr (kLies == Lies::AlongColumns)
    return shared >> 4 | 1u << 16;  // what is above counts for nothing
  return (shared & kOfBlock) >> 4 | (kBytes >> 4) << 16;
}
/// 16 elements further along K.
template <Lies kLies = Lies::AlongColumns>
inline constexpr std::uint32_t kNextSixteen = kLies == Lies::AlongRows ? 16 * 128 >> 4 : 32 >> 4;
__device__ inline std::uint64_t tile_descriptor(std::uint32_t place) {
  constexpr std::uint32_t kSwizzle128 = 1u << 30;
  constexpr std::uint32_t kRowGroups = 1024 >> 4;
  return static_cast<std::uint64_t>(kSwizzle128 | kRowGroups) << 32 | place;
}

}  // namespace assay::gpu::ptx
