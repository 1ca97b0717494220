// How the gradient of a weight leaves a kernel: as bf16 or float32, stored or added to what is there.
#pragma once

#include <cuda_runtime.h>

namespace assay::gpu {

/// Added: the fp32 sum plus what was there in fp32, for bf16 rounded once then. Where a sum has no terms, an
/// expert without rows, what was there stays; stored, it becomes zeros.
enum class GradientStore { Bf16, Bf16Added, Fp32, Fp32Added };

__host__ __device__ constexpr bool adds(GradientStore store) {
  return store == GradientStore::Bf16Added || store == GradientStore::Fp32Added;
}
__host__ __device__ constexpr bool is_fp32(GradientStore store) {
  return store == GradientStore::Fp32 || store == GradientStore::Fp32Added;
}

/// In device memory: bf16 or float elements, as `store` says. product_rounded: a sum is rounded to bf16
/// before it is added or kept as float32, as who computes the product first and adds it then does.
struct WeightGradient {
  void* values;
  GradientStore store = GradientStore::Bf16;
  bool product_rounded = false;
};

}  // namespace assay::gpu
