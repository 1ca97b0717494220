#include "gpu/weight_cache.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gpu/engine/engine_kernels.h"

namespace assay::gpu {

double power_of(std::int32_t exponent) {
  if (exponent == kAllZero) return std::numeric_limits<double>::infinity();
  return exponent == kNotFinite ? 0.0 : std::ldexp(1.0, exponent);
}

namespace {

/// [k, n] as [n, k], in blocks that stay in the cache.
std::vector<Bf16> transposed(std::span<const Bf16> values, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t kBlock = 32;
  std::vector<Bf16> out(values.size());
  for (std::int64_t first = 0; first < n; first += kBlock)
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t c = first; c < std::min(first + kBlock, n); ++c)
        out[static_cast<std::size_t>(c * k + i)] = values[static_cast<std::size_t>(i * n + c)];
  return out;
}

std::shared_ptr<const DeviceMatrix> uploaded(std::span<const Bf16> values, std::int64_t n, std::int64_t k) {
  auto matrix = std::make_shared<DeviceMatrix>(
      DeviceMatrix{Buffer<bf16>("weights", n * k), Buffer<double>("granularity of columns", n)});
  matrix->values.upload(values.data(), 0, n * k);
  const Buffer<std::int32_t> lowest("column granularity", n);
  column_granularity(matrix->values.data(), k, n, lowest.data(), nullptr);
  std::vector<std::int32_t> exponents(static_cast<std::size_t>(n));
  lowest.download(exponents.data());
  std::vector<double> powers;
  for (const std::int32_t exponent : exponents) powers.push_back(power_of(exponent));
  matrix->granularity.upload(powers.data(), 0, n);
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
                                                       std::int64_t k, Lies lies) {
  ASSAY_CHECK(static_cast<std::int64_t>(matrix.values.size()) == n * k,
              "expected a matrix of n rows and k columns");
  const auto key = std::pair(matrix.values.data(), lies);
  const auto held = [&]() -> std::shared_ptr<const DeviceMatrix> {
    const auto found = held_.find(key);
    return found == held_.end() ? nullptr : found->second.matrix;
  };
  std::vector<Bf16> turned;
  if (lies == Lies::AlongRows) {  // side by side with other threads
    {
      const std::scoped_lock lock(mutex_);
      if (auto matrix_there = held()) return matrix_there;
    }
    turned = transposed(matrix.values, n, k);
  }
  const std::scoped_lock lock(mutex_);
  if (auto matrix_there = held()) return matrix_there;
  auto placed = uploaded(lies == Lies::AlongRows ? std::span<const Bf16>(turned) : matrix.values, n, k);
  if (matrix.owner != nullptr && bytes_ + placed->values.bytes() <= budget_) {
    bytes_ += placed->values.bytes();
    held_.emplace(key, HeldMatrix{matrix.owner, placed});
  }
  return placed;
}

}  // namespace assay::gpu
