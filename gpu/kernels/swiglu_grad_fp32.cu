// SwiGLU's gradient where the weight comes after the product (harness/NUMERICS.md): a warp per row, 8 blocks
// of 64 columns at a time. A lane owns two neighbouring columns of every block; the row's sum for the
// weight's gradient takes columns as the four lanes of an accumulator's row hold them: lane l of block b the
// pairs l, l + 4, ... of that block, and blocks ascending.
#include "gpu/cuda_check.h"
#include "gpu/kernels/kernels.h"
#include "gpu/kernels/lanes.cuh"
#include "gpu/kernels/launch.h"
#include "gpu/kernels/ptx.cuh"
#include "gpu/kernels/swiglu.cuh"

namespace assay::gpu {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kBlockColumns = 64;
constexpr int kBlocks = 8;       // at a time
constexpr int kBlockPairs = 36;  // 32, and as many more as keep the lanes on banks of their own
constexpr int kPairsOfLane = 8;  // of a block, for the sum

/// Pairs of columns of the activation and of the product, block by block.
struct Terms {
  float2 activation[kBlocks][kBlockPairs];
  float2 product[kBlocks][kBlockPairs];
};

/// One lane's part of a block's sum, `columns` of which there are.
__device__ float sum_of_lane(const Terms& terms, int columns) {
  const int block = threadIdx.x % 32 / 4;
  const int lane = threadIdx.x % 4;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPairsOfLane; ++i) {
    if (i * 8 >= columns) break;
    const float2 a = terms.activation[block][i * 4 + lane];
    const float2 p = terms.product[block][i * 4 + lane];
    sum = __fmaf_rn(a.x, p.x, sum);
    sum = __fmaf_rn(a.y, p.y, sum);
  }
  return sum;
}

/// A lane's two columns of a block, as they come.
struct LaneColumns {
  float2 product;
  __nv_bfloat162 gate;
  __nv_bfloat162 up;
};

template <bool kQuick>
__global__ void __launch_bounds__(kThreads)
    swiglu_grad_fp32_kernel(SwigluGradFp32 grad, std::int64_t rows, int inter) {
  __shared__ Terms terms_of[kWarps];
  ptx::let_next_start();
  ptx::wait_for_previous();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  Terms& terms = terms_of[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  const std::int64_t slot = grad.gather_indices[row];
  const float weight = __bfloat162float(grad.topk_weights[slot]);
  float total = 0.0f;
  const auto silu_parts = [](float gate) {
    if constexpr (kQuick) return silu_parts_sm90(gate);
    return silu_parts_exact(gate);
  };
  for (int first = 0; first < inter; first += kBlocks * kBlockColumns) {
    LaneColumns columns[kBlocks];
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {  // all are under way before the first is needed
      const int column = first + block * kBlockColumns + lane * 2;
      if (column >= inter) break;
      const auto* gate = reinterpret_cast<const __nv_bfloat162*>(grad.first_gemm + row * 2 * inter + column);
      columns[block] = {__ldcs(reinterpret_cast<const float2*>(grad.products + row * inter + column)),
                        __ldcs(gate), __ldcs(gate + inter / 2)};
    }
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const int column = first + block * kBlockColumns + lane * 2;
      if (column >= inter) break;
      const std::int64_t half = row * 2 * inter + column;
      const auto store = [&](bf16* to, bf16 left, bf16 right) {
        *reinterpret_cast<__nv_bfloat162*>(to) = __nv_bfloat162(left, right);
      };
      const float2 p = columns[block].product;
      const float2 gate = __bfloat1622float2(columns[block].gate);
      const float2 up = __bfloat1622float2(columns[block].up);
      const SiluParts parts[2] = {silu_parts(gate.x), silu_parts(gate.y)};
      const float2 a = {__fmul_rn(parts[0].silu, up.x), __fmul_rn(parts[1].silu, up.y)};
      const SwigluGrad left =
          swiglu_grad<Rounding::FusedFp32>(__fmul_rn(weight, p.x), gate.x, up.x, parts[0]);
      const SwigluGrad right =
          swiglu_grad<Rounding::FusedFp32>(__fmul_rn(weight, p.y), gate.y, up.y, parts[1]);
      store(grad.d_first_gemm + half, left.gate, right.gate);
      store(grad.d_first_gemm + half + inter, left.up, right.up);
      if (grad.weighted != nullptr)
        store(grad.weighted + row * inter + column, __float2bfloat16_rn(__fmul_rn(weight, a.x)),
              __float2bfloat16_rn(__fmul_rn(weight, a.y)));
      terms.activation[block][lane] = a;
      terms.product[block][lane] = p;
    }
    __syncwarp();
    float sum = sum_of_lane(terms, inter - first - lane / 4 * kBlockColumns);
    sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(kAllLanes, sum, 2));
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
      const float of_block = __shfl_sync(kAllLanes, sum, block * 4);
      if (first + block * kBlockColumns < inter)
        total = first + block == 0 ? of_block : __fadd_rn(total, of_block);
    }
    __syncwarp();  // the terms may be overwritten
  }
  if (lane == 0) grad.d_topk_weights[slot] = __float2bfloat16_rn(total);
}

}  // namespace

void swiglu_grad_fp32(const SwigluGradFp32& grad, const Sizes& sizes, cudaStream_t stream) {
  const std::int64_t rows = sizes.slots();
  ASSAY_CHECK(sizes.config.moe_intermediate_size % 8 == 0,
              "expected moe_intermediate_size to be a multiple of 8");
  ASSAY_CHECK(rows < (std::int64_t{1} << 31), "expected fewer than 2^31 routed rows");
  if (rows == 0) return;
  const auto kernel = grad.quick ? swiglu_grad_fp32_kernel<true> : swiglu_grad_fp32_kernel<false>;
  launch_kernel(kernel, {static_cast<unsigned>((rows + kWarps - 1) / kWarps), kThreads}, stream, grad, rows,
                sizes.config.moe_intermediate_size);
}

}  // namespace assay::gpu
