// From a consumer's accumulators to device memory: SwiGLU or not, rounding, shared memory, then whole boxes by the copy engine and
// everything else by 16-byte stores.
#pragma once

#include "gpu/planted.h"
#include "gpu/swiglu.cuh"
#include "gpu/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {

__device__ inline std::uint32_t bits_of(__nv_bfloat162 pair) { return *reinterpret_cast<const std::uint32_t*>(&pair); }
__device__ inline std::uint32_t pack(float low, float high) { return bits_of(__floats2bfloat162_rn(low, high)); }

/// 8-column block b of a part, rows lane / 4 + 8 h of the warp: two neighbouring results. For the first product, blocks of 8 gate
/// columns alternate with blocks of 8 up columns: d[8 b + i] and d[8 b + 4 + i] are one element's halves.
template <Product kProduct, bool kRoundInner>
__device__ std::uint32_t result(const float (&d)[128], int part, int b, int h) {
  if constexpr (kProduct == Product::GateUp) {
    const int i = b * 8 + h * 2;
    if constexpr (kPlanted == Planted::GateUpSwapped) return bits_of(swiglu_pair_sm90(d[i + 4], d[i + 5], d[i], d[i + 1]));
    if constexpr (kRoundInner) return bits_of(swiglu_pair_sm90(d[i], d[i + 1], d[i + 4], d[i + 5]));
    return bits_of(__nv_bfloat162(swiglu<false>(d[i], d[i + 4]), swiglu<false>(d[i + 1], d[i + 5])));
  } else {
    const int i = part * 64 + b * 4 + h * 2;
    return pack(d[i], d[i + 1]);
  }
}

/// Stores what contract hf would have stored of the first product; straight from registers, for verification runs.
__device__ inline void write_first_gemm(const Arguments& arguments, const float (&d)[128], const Tile& tile, int consumer) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = consumer * kConsumerRows + threadIdx.x % 128 / 32 * 16 + lane / 4 + h * 8;
    if (row >= tile.rows) continue;
    bf16* stored = arguments.first_gemm + static_cast<std::int64_t>(tile.first + row) * 2 * arguments.columns;
#pragma unroll
    for (int b = 0; b < 16; ++b) {
      const int column = tile.column_tile * kOutColumns + b * 8 + lane % 4 * 2;
      if (column >= arguments.columns) continue;
      const int i = b * 8 + h * 2;
      *reinterpret_cast<std::uint32_t*>(stored + column) = pack(d[i], d[i + 1]);
      *reinterpret_cast<std::uint32_t*>(stored + arguments.columns + column) = pack(d[i + 4], d[i + 5]);
    }
  }
}

/// All 128 threads of a consumer. `staging` is its own: kParts parts of two swizzled boxes each. kFlag: the first product rounds
/// inside, the second scatters its rows to their slots.
template <Product kProduct, bool kFlag>
__device__ void write_tile(const Arguments& arguments, const CUtensorMap* out_map, const float (&d)[128], char* staging, const Tile& tile,
                           int consumer) {
  constexpr bool kScatter = kProduct == Product::Down && kFlag;
  constexpr int kTileColumns = kParts<kProduct> * kOutColumns;
  const int thread = threadIdx.x % 128;
  const int lane = threadIdx.x % 32;
  const int barrier = 1 + consumer;
  const std::uint32_t base = ptx::shared_address(staging);
  if (thread == 0) ptx::bulk_wait_read();
  ptx::named_barrier(barrier, 128);  // the staging area is free again
  const int row_in = thread / 32 * 16 + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int part = 0; part < kParts<kProduct>; ++part)
#pragma unroll
    for (int b = 0; b < 16; b += 2) {
      const std::uint32_t four[4] = {result<kProduct, kFlag>(d, part, b, 0), result<kProduct, kFlag>(d, part, b, 1),
                                     result<kProduct, kFlag>(d, part, b + 1, 0), result<kProduct, kFlag>(d, part, b + 1, 1)};
      const int chunk = b + lane / 16;
      ptx::stmatrix_x4(base + part * kPartBytes + chunk / 8 * kBytesA64 + swizzled(row_in, chunk % 8), four);
    }
  if constexpr (kPlanted != Planted::MissingFence) ptx::fence_proxy_async();
  ptx::named_barrier(barrier, 128);

  const int first_row = consumer * kConsumerRows;
  const int first_column = tile.column_tile * kTileColumns;
  if (!kScatter && tile.rows >= first_row + kConsumerRows) {
    if (thread == 0) {
#pragma unroll
      for (int box = 0; box < 2 * kParts<kProduct>; ++box)
        if (first_column + box * 64 < arguments.columns)
          ptx::tensor_store_2d(out_map, base + box * kBytesA64, first_column + box * 64, tile.first + first_row);
      ptx::bulk_commit();
    }
  } else {
    constexpr int kChunks = kTileColumns / 8;
    const int chunk = thread % kChunks;
    const int column = first_column + chunk * 8;
    if (column < arguments.columns)
      for (int row = thread / kChunks; row < kConsumerRows; row += 128 / kChunks) {
        const bool valid = first_row + row < tile.rows;
        if (kPlanted == Planted::TailNotPredicated ? !valid && tile.first + first_row + row >= arguments.rows : !valid) break;
        const std::int64_t r = tile.first + first_row + row;
        const std::int64_t target = kScatter ? arguments.routing.gather_indices[r] : r;
        *reinterpret_cast<uint4*>(arguments.out + target * arguments.columns + column) =
            *reinterpret_cast<const uint4*>(staging + chunk / 8 * kBytesA64 + swizzled(row, chunk % 8));
      }
  }
  if constexpr (kProduct == Product::GateUp)
    if (arguments.first_gemm != nullptr) write_first_gemm(arguments, d, tile, consumer);
}

}  // namespace assay::gpu::wgmma
