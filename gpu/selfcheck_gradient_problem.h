// What the self-check's gradients of the grouped products are made of: routings made by hand, random
// operands.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "gpu/device_problem.h"

namespace assay::gpu {

struct GradientCase {
  const char* name;
  std::int64_t hidden;
  std::int64_t inter;
  std::int64_t top_k;
  std::vector<std::int32_t> counts;  // rows of each expert; their sum is a multiple of top_k
  int nan_expert = -1;               // whose rows are NaN
};

std::span<const GradientCase> gradient_cases();

/// Random values, NaN in [nan_first, nan_end).
Buffer<bf16> random_buffer(const char* name, std::int64_t count, std::uint64_t seed,
                           std::int64_t nan_first = 0, std::int64_t nan_end = 0);

/// A case in device memory: what the products read.
struct GradientProblem {
  Sizes sizes;
  RoutingBuffers routing;
  Buffer<bf16> down_proj;
  Buffer<bf16> gate_up_proj;
  Buffer<bf16> x;
  Buffer<bf16> permuted;
  Buffer<bf16> d_second_gemm;
  Buffer<bf16> first_gemm;
  Buffer<bf16> intermediate;
  Buffer<bf16> given;

  explicit GradientProblem(const GradientCase& one);
  std::int64_t experts() const { return sizes.config.num_experts; }
};

}  // namespace assay::gpu
