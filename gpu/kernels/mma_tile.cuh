// One block's tile of a product a b^T on warp-level tensor-core instructions (sm_80 and newer). K is walked
// in ascending steps of 16 without a split, so every element's sum is one chain of tensor-core steps. Each
// operand lies along its columns (K contiguous) or along its rows (K is the slow axis: read transposed); what
// is contiguous comes in chunks of 8 elements, 16-byte aligned.
#pragma once

#include <cstdint>

#include "gpu/kernels/kernels.h"
#include "gpu/kernels/ptx.cuh"

namespace assay::gpu {

/// kRows x kColumns outputs by (kRows / kWarpRows) * (kColumns / kWarpColumns) warps.
template <int kRows, int kColumns, int kWarpRows, int kWarpColumns, Lies kLiesA = Lies::AlongColumns,
          Lies kLiesB = Lies::AlongColumns>
struct MmaTile {
  static constexpr int kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kRows / kWarpRows * kWarpsAcross * 32;
  static constexpr int kDepth = 64;  // elements of K per stage: one 128-byte row
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
  static constexpr int kPipelineDepth =
      96 * 1024 / kStageBytes;  // 96 KiB in flight: within the 99 KiB of sm_86 and sm_89
  static constexpr int kSharedBytes = kPipelineDepth * kStageBytes;
  static constexpr int kRowsPerPass = kThreads / 8;  // 8 threads copy one row's 8 chunks
  static constexpr int kM = kWarpRows / 16;
  static constexpr int kN = kWarpColumns / 8;
  static_assert((kLiesA == Lies::AlongColumns || kRows % 64 == 0) &&
                    (kLiesB == Lies::AlongColumns || kColumns % 64 == 0),
                "what lies along its rows comes in panels of 64 columns");
  static_assert(kRows % kRowsPerPass == 0 && kColumns % kRowsPerPass == 0, "every pass copies whole rows");
  static_assert(kPipelineDepth >= 2, "copies run ahead of products");
  static_assert(kWarpColumns % 16 == 0, "B fragments are loaded for two n-blocks at a time");

  /// d[m][n]: rows warp_row() + 16 m + lane / 4 (+ 8 for elements 2, 3), columns warp_column() + 8 n + 2
  /// (lane % 4) (+ 1).
  float d[kM][kN][4] = {};

  __device__ static int warp_row() { return threadIdx.x / 32 / kWarpsAcross * kWarpRows; }
  __device__ static int warp_column() { return threadIdx.x / 32 % kWarpsAcross * kWarpColumns; }

  /// What the callers give: for an operand that lies along its columns, the first element of row r, or null
  /// for a row of zeros; for one that lies along its rows, elements [8 c, 8 c + 8) of the tile's rows at
  /// place k of K, or null for zeros: a(k, c). `shared` has kSharedBytes.
  template <class A, class B>
  __device__ void run(char* shared, int depth, A a, B b) {
    const CopyIn<kLiesA, kRows, A> copy_a(a);
    const CopyIn<kLiesB, kColumns, B> copy_b(b);
    const std::uint32_t base = ptx::shared_address(shared);
    const int steps = (depth + kDepth - 1) / kDepth;
    const auto next = [](int stage) { return stage + 1 == kPipelineDepth ? 0 : stage + 1; };
    const auto copy = [&](int step, int stage_number) {
      const std::uint32_t stage = base + stage_number * kStageBytes;
      copy_a(stage, step, depth);
      copy_b(stage + kRows * kRowBytes, step, depth);
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
  static constexpr int kRowBytes = kDepth * 2;
  static constexpr int kPanelBytes = kDepth * kRowBytes;  // 64 columns of an operand that lies along its rows

  // 16-byte chunk c of row r stands at c xor (r mod 8): eight rows of one column of chunks hit all banks.
  __device__ static std::uint32_t place(int row, int chunk) {
    return static_cast<std::uint32_t>(row * kRowBytes + ((chunk ^ (row & 7)) << 4));
  }
  // Of an operand that lies along its rows: chunk c of place k.
  __device__ static std::uint32_t panel_place(int k, int chunk) {
    return chunk / 8 * kPanelBytes + place(k, chunk % 8);
  }

  /// How one operand's part of a stage is copied.
  template <Lies kLies, int kExtent, class Source>
  struct CopyIn;

  template <int kExtent, class Source>
  struct CopyIn<Lies::AlongColumns, kExtent, Source> {
    static constexpr int kCopies = kExtent / kRowsPerPass;
    const bf16* from[kCopies];

    __device__ explicit CopyIn(Source row_of) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) from[i] = row_of(threadIdx.x / 8 + i * kRowsPerPass);
    }
    __device__ void operator()(std::uint32_t stage, int step, int depth) const {
      const int chunk = threadIdx.x % 8;
      const int k = step * kDepth + chunk * 8;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const bool valid = from[i] != nullptr && k < depth;
        ptx::cp_async_16(stage + place(threadIdx.x / 8 + i * kRowsPerPass, chunk),
                         valid ? from[i] + k : from[i], valid);
      }
    }
  };

  template <int kExtent, class Source>
  struct CopyIn<Lies::AlongRows, kExtent, Source> {
    static constexpr int kChunks = kExtent / 8;
    static constexpr int kCopies = kDepth * kChunks / kThreads;
    static_assert(kThreads % kChunks == 0 && kDepth * kChunks % kThreads == 0,
                  "every pass copies whole rows");
    Source chunk_at;

    __device__ explicit CopyIn(Source source) : chunk_at(source) {}
    __device__ void operator()(std::uint32_t stage, int step, int depth) const {
      const int chunk = threadIdx.x % kChunks;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) {
        const int k = threadIdx.x / kChunks + i * (kThreads / kChunks);
        const bf16* const from = step * kDepth + k < depth ? chunk_at(step * kDepth + k, chunk) : nullptr;
        ptx::cp_async_16(stage + panel_place(k, chunk), from, from != nullptr);
      }
    }
  };

  // Rows of the tile from `row` on, 16 of them, at step k of 16.
  __device__ static void load_a(std::uint32_t (&fragment)[4], std::uint32_t stage, int row, int k) {
    const int lane = threadIdx.x % 32;
    if constexpr (kLiesA == Lies::AlongColumns)
      ptx::ldmatrix_x4(fragment, stage + place(row + lane % 16, k * 2 + lane / 16));
    else
      ptx::ldmatrix_transposed(
          fragment, stage + panel_place(k * 16 + lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2));
  }

  // Columns of the tile from `column` on, 16 of them: the fragments of two n-blocks.
  __device__ static void load_b(std::uint32_t (&fragment)[4], std::uint32_t stage, int column, int k) {
    const int lane = threadIdx.x % 32;
    if constexpr (kLiesB == Lies::AlongColumns)
      ptx::ldmatrix_x4(fragment,
                       stage + place(kRows + column + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
    else
      ptx::ldmatrix_transposed(
          fragment, stage + kRows * kRowBytes + panel_place(k * 16 + lane % 16, column / 8 + lane / 16));
  }

  __device__ void multiply(std::uint32_t stage) {
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      std::uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) load_a(a[m], stage, warp_row() + m * 16, k);
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        std::uint32_t b[4];
        load_b(b, stage, warp_column() + n * 8, k);
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
