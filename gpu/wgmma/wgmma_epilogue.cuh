// From a consumer's accumulators to device memory: SwiGLU or not, rounding, shared memory, then whole boxes
// by the copy engine and everything else by 16-byte stores. A thread's registers run along the columns of
// tall tiles, and along the rows of the others.
#pragma once

#include "gpu/kernels/planted_kernels.h"
#include "gpu/kernels/swiglu.cuh"
#include "gpu/wgmma/wgmma_tiles.cuh"

namespace assay::gpu::wgmma {

__device__ inline std::uint32_t bits_of(__nv_bfloat162 pair) {
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// Two neighbouring intermediates. Blocks of 8 gate weights alternate with blocks of 8 up weights: a thread
/// has both halves of its elements, `to_up` registers apart.
template <Rounding kRounding, int kRegisters>
__device__ std::uint32_t swiglu_of(const float (&d)[kRegisters], int i, int to_up) {
  if constexpr (kPlanted == KernelFault::GateUpSwapped)
    return bits_of(swiglu_pair_sm90(d[i + to_up], d[i + to_up + 1], d[i], d[i + 1]));
  if constexpr (kRounding == Rounding::Hf)
    return bits_of(swiglu_pair_sm90(d[i], d[i + 1], d[i + to_up], d[i + to_up + 1]));
  return bits_of(__floats2bfloat162_rn(__fmul_rn(silu_parts_sm90(d[i]).silu, d[i + to_up]),
                                       __fmul_rn(silu_parts_sm90(d[i + 1]).silu, d[i + to_up + 1])));
}

/// Two neighbouring results of the product itself.
template <int kRegisters>
__device__ std::uint32_t rounded(const float (&d)[kRegisters], int i) {
  return bits_of(__floats2bfloat162_rn(d[i], d[i + 1]));
}

/// What of a product with SwiGLU's sums leaves: the intermediate, or the halves that contract hf stores
/// before. Of other products the sums themselves are the result.
enum class Leaving { Result, Gate, Up };

/// Of the gradient of down's rows under FusedFp32, in fp32.
template <ProductId kProduct, Rounding kRounding>
inline constexpr bool kSumsLeave = kProduct == ProductId::down_dx && kRounding == Rounding::FusedFp32;

/// Two neighbouring elements of what leaves: register i and, of a product with SwiGLU, the one `to_up`
/// behind.
template <ProductId kProduct, Rounding kRounding, Leaving kLeaving, int kRegisters>
__device__ std::uint32_t leaving_pair(const float (&d)[kRegisters], int i, int to_up) {
  if constexpr (kProduct != ProductId::gate_up || kLeaving == Leaving::Gate) return rounded(d, i);
  if constexpr (kLeaving == Leaving::Up) return rounded(d, i + to_up);
  return swiglu_of<kRounding>(d, i, to_up);
}

/// Tall: all 64 rows of a consumer. Register 4 b + 2 h + i is row lane / 4 + 8 h of the warp's 16, column 8 b
/// + 2 (lane mod 4) + i.
template <ProductId kProduct, Rounding kRounding, Leaving kLeaving, class Out>
__device__ void stage_tall(const float (&d)[128], std::uint32_t buffer, int column_pass) {
  const int lane = threadIdx.x % 32;
  const int row = threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
  for (int b = 0; b < Out::kColumns / 8; b += 2) {
    const auto at = [&](int block, int h) {
      constexpr int kBlock = kProduct == ProductId::gate_up ? 8 : 4;
      return leaving_pair<kProduct, kRounding, kLeaving>(
          d, (column_pass * (Out::kColumns / 8) + block) * kBlock + h * 2, 4);
    };
    const std::uint32_t four[4] = {at(b, 0), at(b, 1), at(b + 1, 0), at(b + 1, 1)};
    const int chunk = b + lane / 16;
    ptx::stmatrix_x4(buffer + chunk / 8 * Out::kBoxBytes + swizzled(row, chunk % 8), four);
  }
}

/// Others: the 16 rows from 8 (first + b) on, to the buffer's rows 8 b and on. Register 4 b + 2 h + i of a
/// part is row 8 b + 2 (lane mod 4)
/// + i, weight lane / 4 + 8 h of the warp's 16.
template <ProductId kProduct, Rounding kRounding, Leaving kLeaving, TileLayout kLayout>
__device__ void stage_blocks(const Sums<kLayout>& d, std::uint32_t buffer, int first, int b) {
  using Out = Staging<kProduct, kLayout>;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x % 128 / 32;
  const int i = (first + b) * 4;
  const auto at = [&](int row, int chunk) {
    return buffer + chunk / 8 * Out::kBoxBytes + swizzled(row, chunk % 8);
  };
  const auto pair = [&](int part, int at) {
    return leaving_pair<kProduct, kRounding, kLeaving>(d[part], at, 2);
  };
  if constexpr (kProduct != ProductId::gate_up) {
#pragma unroll
    for (int part = 0; part < TileShape<kLayout>::kParts; ++part) {
      const std::uint32_t four[4] = {pair(part, i), pair(part, i + 2), pair(part, i + 4), pair(part, i + 6)};
      ptx::stmatrix_transposed(at((b + lane / 16) * 8 + lane % 8, part * 8 + warp * 2 + lane / 8 % 2), four);
    }
  } else if constexpr (TileShape<kLayout>::kParts == 1) {
    const std::uint32_t two[2] = {pair(0, i), pair(0, i + 4)};
    ptx::stmatrix_transposed(at((b + lane / 8 % 2) * 8 + lane % 8, warp), two);
  } else {
    const std::uint32_t four[4] = {pair(0, i), pair(1, i), pair(0, i + 4), pair(1, i + 4)};
    ptx::stmatrix_transposed(at((b + lane / 16) * 8 + lane % 8, lane / 8 % 2 * 4 + warp), four);
  }
}

/// Rows [first, end) of a pass by 16-byte stores; row 0 of the pass is row `pass_row` of the tile. `out` has
/// `stride` elements per row.
template <class Out, bool kScatter>
__device__ void store_rows(const Arguments& arguments, bf16* out, std::int64_t stride, const char* buffer,
                           int first_column, std::int64_t pass_row, int first, int end) {
  constexpr int kChunks = Out::kColumns / 8;
  const int thread = threadIdx.x % 128;
  const int chunk = thread % kChunks;
  const int column = first_column + chunk * 8;
  if (column >= arguments.columns) return;
  for (int row = first + thread / kChunks; row < end; row += 128 / kChunks) {
    const std::int64_t target = kScatter ? arguments.routing.gather_indices[pass_row + row] : pass_row + row;
    *reinterpret_cast<uint4*>(out + target * stride + column) =
        *reinterpret_cast<const uint4*>(buffer + chunk / 8 * Out::kBoxBytes + swizzled(row, chunk % 8));
  }
}

/// Rows [0, end) of a pass, whole granules, by the copy engine: kLanes lanes of different warps take the
/// boxes in turn. A group of its own, even if it is empty. The halves are one behind the other in a row.
template <class Out, Leaving kLeaving, int kBoxRows, int kLanes, class MapsOfProduct>
__device__ void store_boxes(const Arguments& arguments, const MapsOfProduct& maps, std::uint32_t buffer,
                            int first_column, int pass_row, int end) {
  const auto store = [&](bool few, std::uint32_t from, int column, int row) {
    if constexpr (kLeaving == Leaving::Result)
      ptx::tensor_store_2d(few ? &maps.few_out : &maps.out, from, column, row);
    else
      ptx::tensor_store_3d(few ? &maps.few_halves : &maps.halves, from, column, kLeaving == Leaving::Up, row);
  };
  const int boxes = (end + kBoxRows - 1) / kBoxRows * Out::kBoxes;
  for (int i = threadIdx.x % 128 / 32; i < boxes; i += kLanes) {
    const int box = i % Out::kBoxes;
    const int first = i / Out::kBoxes * kBoxRows;
    const int column = first_column + box * 64;
    const std::uint32_t from = buffer + box * Out::kBoxBytes;
    if (column >= arguments.columns) continue;
    if (first + kBoxRows <= end)
      store(false, from + first * 128, column, pass_row + first);
    else
      for (int row = first; row < end; row += kGranule) store(true, from + row * 128, column, pass_row + row);
  }
  ptx::bulk_commit();
}

/// fp32 sums leave from registers: four or eight lanes write a whole sector of a row.
template <TileLayout kLayout>
__device__ void store_sums(const Arguments& arguments, const Sums<kLayout>& d, const Tile& tile,
                           int consumer) {
  using Shape = TileShape<kLayout>;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x % 128 / 32;
  const auto at = [&](int row, int column) {
    return arguments.sums + static_cast<std::int64_t>(tile.first + row) * arguments.columns + column;
  };
  if constexpr (kLayout == TileLayout::Tall) {
    const int first_column = tile.column_tile * Shape::kColumns + lane % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = consumer * 64 + warp * 16 + lane / 4 + h * 8;
      if (row >= tile.rows) continue;
#pragma unroll
      for (int b = 0; b < Shape::kColumns / 8; ++b)
        if (first_column + b * 8 < arguments.columns)
          *reinterpret_cast<float2*>(at(row, first_column + b * 8)) = {d[0][4 * b + 2 * h],
                                                                       d[0][4 * b + 2 * h + 1]};
    }
  } else {
    const int first_column =
        (tile.column_tile * kConsumers + consumer) * (Shape::kColumns / kConsumers) + warp * 16 + lane / 4;
#pragma unroll
    for (int b = 0; b < Shape::kRows / 8; ++b) {
      if (b * 8 >= tile.rows) break;
#pragma unroll
      for (int part = 0; part < Shape::kParts; ++part)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = b * 8 + lane % 4 * 2 + i % 2;
          const int column = first_column + part * 64 + i / 2 * 8;
          if (row < tile.rows && column < arguments.columns) *at(row, column) = d[part][4 * b + i];
        }
    }
  }
}

/// Of MissingOrder: each warp writes later than the one before by more than a store needs to read its rows. A
/// fence alone that is missing changed bits in some runs only; this shows in every one.
__device__ inline void write_late() {
  constexpr long long kCycles = 4096;
  const long long start = clock64();
  while (clock64() - start < kCycles * (threadIdx.x % 128 / 32)) {
  }
}

/// All 128 threads of a consumer. `staging` is its own; `turn` says which buffer comes next. kScatter: rows
/// leave as their slots.
template <ProductId kProduct, Rounding kRounding, bool kScatter, TileLayout kLayout, bool kHalves>
__device__ void write_tile(const Arguments& arguments, const MapsFor<kHalves>& maps, const Sums<kLayout>& d,
                           char* staging, int& turn, const Tile& tile, int consumer) {
  using Out = Staging<kProduct, kLayout, kHalves>;
  constexpr bool kTall = kLayout == TileLayout::Tall;
  const bool storing = threadIdx.x % (kTall ? 128 : 32) == 0;
  const int barrier = 1 + consumer;
  const int first_row = kTall ? consumer * 64 : 0;
  const int part = kTall ? tile.column_tile : tile.column_tile * kConsumers + consumer;
  // The rows of a pass from `first` on.
  const auto leave = [&]<Leaving kLeaving>(std::integral_constant<Leaving, kLeaving>, int pass, int first,
                                           int column_pass) {
    const int first_column = (part * Out::kColumnPasses + column_pass) * Out::kColumns;
    const int rows = min(tile.rows - first, Out::kRows);
    const int pass_row = tile.first + first;
    char* const buffer = staging + turn * (Out::kBoxes * Out::kBoxBytes);
    turn = turn + 1 == Out::kBuffers ? 0 : turn + 1;
    if (storing) ptx::bulk_wait_read<Out::kBuffers - 1>();
    ptx::named_barrier(barrier, 128);  // the buffer is free again
    if constexpr (kPlanted == KernelFault::MissingOrder) write_late();
    if constexpr (kTall) {
      stage_tall<kProduct, kRounding, kLeaving, Out>(d[0], ptx::shared_address(buffer), column_pass);
    } else {
#pragma unroll
      for (int b = 0; b < Out::kRows / 8; b += 2)
        if (first + b * 8 < tile.rows)
          stage_blocks<kProduct, kRounding, kLeaving, kLayout>(d, ptx::shared_address(buffer),
                                                               pass * (Out::kRows / 8), b);
    }
    if constexpr (kPlanted != KernelFault::MissingOrder) {
      ptx::fence_proxy_async();
      ptx::named_barrier(barrier, 128);
    }

    const int whole =
        kScatter || kLayout == TileLayout::Narrow || (kTall && rows < 64) ? 0 : rows / kGranule * kGranule;
    const auto behind =
        static_cast<int>(min(arguments.rows - pass_row, static_cast<std::int64_t>(Out::kRows)));
    if (storing)
      store_boxes<Out, kLeaving, TileShape<kLayout>::kOutBoxRows, kTall ? 1 : 4>(
          arguments, maps, ptx::shared_address(buffer), first_column, pass_row, whole);
    constexpr bool kResult = kLeaving == Leaving::Result;
    bf16* const out =
        kResult ? arguments.out : arguments.first_gemm + (kLeaving == Leaving::Up ? arguments.columns : 0);
    store_rows<Out, kScatter>(arguments, out, (kResult ? 1 : 2) * arguments.columns, buffer, first_column,
                              pass_row, whole, kPlanted == KernelFault::TailNotPredicated ? behind : rows);
  };
#pragma unroll
  for (int pass = 0; pass < Out::kPasses; ++pass) {
    const int first = first_row + pass * Out::kRows;
    if (first >= tile.rows) break;
    const auto leave_all = [&](auto leaving) {
#pragma unroll
      for (int column_pass = 0; column_pass < Out::kColumnPasses; ++column_pass)
        leave(leaving, pass, first, column_pass);
    };
    leave_all(std::integral_constant<Leaving, Leaving::Result>{});
    if constexpr (kHalves) {
      leave_all(std::integral_constant<Leaving, Leaving::Gate>{});
      leave_all(std::integral_constant<Leaving, Leaving::Up>{});
    }
  }
}

}  // namespace assay::gpu::wgmma
