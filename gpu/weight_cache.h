// Experts' matrices on the device, kept from one product to the next.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "gpu/buffer.h"
#include "gpu/kernels/kernels.h"
#include "harness/contract/problem.h"

namespace assay::gpu {

/// A matrix [n, k] and the granularity of its rows, which are the product's columns
/// (harness/contract/product_bound.h).
struct DeviceMatrix {
  Buffer<bf16> values;
  Buffer<double> granularity;  // [n]
};

/// The power of two that column_granularity (engine_kernels.h) gives the exponent of: infinite for zeros, 0
/// for Inf and NaN.
double power_of(std::int32_t exponent);

/// Holds matrices as long as their host memory stays as it is: the owner is held with them. What nobody owns
/// may change behind its pointer and is loaded again, like what is over a quarter of the free memory.
class WeightCache {
 public:
  WeightCache();

  /// The device's copy [n, k] of `matrix`, which is stored so or, where it lies along its rows, as [k, n].
  /// Safe to call from several threads.
  std::shared_ptr<const DeviceMatrix> place(const ExpertMatrix& matrix, std::int64_t n, std::int64_t k,
                                            Lies lies);

 private:
  struct HeldMatrix {
    std::shared_ptr<const void> owner;
    std::shared_ptr<const DeviceMatrix> matrix;
  };
  std::mutex mutex_;
  std::map<std::pair<const Bf16*, Lies>, HeldMatrix> held_;
  std::size_t bytes_ = 0;
  std::size_t budget_ = 0;
};

}  // namespace assay::gpu
