#include "gpu/weight_cache.h"

#include <cmath>
#include <limits>

#include "gpu/engine/engine_kernels.h"

namespace assay::gpu {
namespace {

double power_of(std::int32_t exponent) {
  if (exponent == kAllZero) return std::numeric_limits<double>::infinity();
  return exponent == kNotFinite ? 0.0 : std::ldexp(1.0, exponent);
}

std::shared_ptr<const DeviceMatrix> uploaded(std::span<const Bf16> values, std::int64_t n, std::int64_t k) {
  auto matrix = std::make_shared<DeviceMatrix>(
      DeviceMatrix{Buffer<bf16>("weights", n * k), std::vector<double>(static_cast<std::size_t>(n))});
  matrix->values.upload(values.data(), 0, n * k);
  const Buffer<std::int32_t> lowest("column granularity", n);
  column_granularity(matrix->values.data(), k, n, lowest.data(), nullptr);
  std::vector<std::int32_t> exponents(static_cast<std::size_t>(n));
  lowest.download(exponents.data());
  for (std::size_t c = 0; c < exponents.size(); ++c) matrix->granularity[c] = power_of(exponents[c]);
  return matrix;
}

}  // namespace

WeightCache::WeightCache() {
  std::size_t free = 0;
  std::size_t total = 0;
  ASSAY_CUDA(cudaMemGetInfo(&free, &total));
  budget_ = free / 4;
}

std::shared_ptr<const DeviceMatrix> WeightCache::place(const ExpertMatrix& matrix, std::int64_t n,
                                                       std::int64_t k) {
  ASSAY_CHECK(static_cast<std::int64_t>(matrix.values.size()) == n * k,
              "expected a matrix of n rows and k columns");
  const std::scoped_lock lock(mutex_);
  const auto found = held_.find(matrix.values.data());
  if (found != held_.end()) return found->second.matrix;
  auto placed = uploaded(matrix.values, n, k);
  if (matrix.owner != nullptr && bytes_ + placed->values.bytes() <= budget_) {
    bytes_ += placed->values.bytes();
    held_.emplace(matrix.values.data(), HeldMatrix{matrix.owner, placed});
  }
  return placed;
}

}  // namespace assay::gpu
