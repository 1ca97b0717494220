// One block's tile of a product a b^T on warp-level tensor-core instructions (sm_80 and newer). K is walked
// in ascending steps of 16 without a split, so every element's sum is one chain of tensor-core steps. Rows of
// K are 16-byte aligned.
#pragma once

#include <cstdint>

#include "gpu/kernels/kernels.h"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {

/// kRows x kColumns outputs by (kRows / kWarpRows) * (kColumns / kWarpColumns) warps.
template <int kRows, int kColumns, int kWarpRows, int kWarpColumns>
struct MmaTile {
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * 32;
  static constexpr int kDepth = 64;  // elements of K per stage: one 128-byte row
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
  static constexpr int kPipelineDepth =
      96 * 1024 / kStageBytes;  // 96 KiB in flight: within the 99 KiB of sm_86 and sm_89
  static constexpr int kSharedBytes = kPipelineDepth * kStageBytes;
  static constexpr int kRowsPerPass = kThreads / 8;  // 8 threads copy one row's 8 chunks
  static constexpr int kCopiesA = kRows / kRowsPerPass;
  static constexpr int kCopiesB = kColumns / kRowsPerPass;
  static constexpr int kM = kWarpRows / 16;
  static constexpr int kN = kWarpColumns / 8;
  static_assert(kRows % kRowsPerPass == 0 && kColumns % kRowsPerPass == 0, "every pass copies whole rows");
  static_assert(kPipelineDepth >= 2, "copies run ahead of products");
  static_assert(kWarpColumns % 16 == 0, "B fragments are loaded for two n-blocks at a time");

  /// d[m][n]: rows warp_row() + 16 m + lane / 4 (+ 8 for elements 2, 3), columns warp_column() + 8 n + 2
  /// (lane % 4) (+ 1).
  float d[kM][kN][4] = {};

  __device__ static int warp_row() { return threadIdx.x / 32 / kWarpsAcross * kWarpRows; }
  __device__ static int warp_column() { return threadIdx.x / 32 % kWarpsAcross * kWarpColumns; }

  /// a_row(r) and b_row(n) give the row's first element, or null for a row of zeros. `shared` has
  /// kSharedBytes.
  template <class RowOfA, class RowOfB>
  __device__ void run(char* shared, int depth, RowOfA a_row, RowOfB b_row) {
    const int chunk = threadIdx.x % 8;
    const int row = threadIdx.x / 8;
    const bf16* from_a[kCopiesA];
    const bf16* from_b[kCopiesB];
#pragma unroll
    for (int i = 0; i < kCopiesA; ++i) from_a[i] = a_row(row + i * kRowsPerPass);
#pragma unroll
    for (int i = 0; i < kCopiesB; ++i) from_b[i] = b_row(row + i * kRowsPerPass);

    const std::uint32_t base = ptx::shared_address(shared);
    const int steps = (depth + kDepth - 1) / kDepth;
    const auto next = [](int stage) { return stage + 1 == kPipelineDepth ? 0 : stage + 1; };
    const auto copy = [&](int step, int stage_number) {
      const std::uint32_t stage = base + stage_number * kStageBytes;
      const int k = step * kDepth + chunk * 8;
#pragma unroll
      for (int i = 0; i < kCopiesA; ++i)
        copy_chunk(stage, row + i * kRowsPerPass, chunk, from_a[i], k, depth);
#pragma unroll
      for (int i = 0; i < kCopiesB; ++i)
        copy_chunk(stage, kRows + row + i * kRowsPerPass, chunk, from_b[i], k, depth);
    };
#pragma unroll
    for (int step = 0; step < kPipelineDepth - 1; ++step) {
      if (step < steps) copy(step, step);
      ptx::cp_async_commit();
    }
    int arriving = kPipelineDepth - 1;  // the stage to copy into
    int ready = 0;                      // the stage to multiply
    for (int step = 0; step < steps; ++step) {
      ptx::cp_async_wait<kPipelineDepth - 2>();
      __syncthreads();  // the stage has arrived for everyone, and everyone is done with the one that is
                        // overwritten next
      if (step + kPipelineDepth - 1 < steps) copy(step + kPipelineDepth - 1, arriving);
      ptx::cp_async_commit();
      multiply(base + ready * kStageBytes);
      arriving = next(arriving);
      ready = next(ready);
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
  }

 private:
  // 16-byte chunk c of row r stands at c xor (r mod 8): eight rows of one column of chunks hit all banks.
  __device__ static std::uint32_t place(int row, int chunk) {
    return static_cast<std::uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4));
  }

  __device__ static void copy_chunk(std::uint32_t stage, int row, int chunk, const bf16* from, int k,
                                    int depth) {
    const bool valid = from != nullptr && k < depth;
    ptx::cp_async_16(stage + place(row, chunk), valid ? from + k : from, valid);
  }

  __device__ void multiply(std::uint32_t stage) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      std::uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m)
        ptx::ldmatrix_x4(a[m], stage + place(warp_row() + m * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        std::uint32_t b[4];
        ptx::ldmatrix_x4(
            b, stage + place(kRows + warp_column() + n * 8 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          ptx::mma_m16n8k16(d[m][n], a[m], b[0], b[1]);
          ptx::mma_m16n8k16(d[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
};

}  // namespace assay::gpu
