// cuBLAS, loaded when it is first needed: the program starts and says so where the library is missing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <cuda_runtime.h>

#include "gpu/kernels.h"

namespace assay::gpu {

/// One cuBLAS handle bound to a stream; reduced-precision reductions are off.
class Cublas {
 public:
  /// Throws InputError when the library cannot be loaded or refuses.
  explicit Cublas(cudaStream_t stream);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  /// out[m, n] = rb(sum_k a[m, k] b[n, k]), bf16 in and out, fp32 accumulate; all row-major. Sizes of zero do nothing.
  void product(const bf16* a, const bf16* b, bf16* out, std::int64_t m, std::int64_t n, std::int64_t k);

  /// `count` products of equal sizes, contiguous after one another: the batched bar of benchmarks.
  void batched_product(const bf16* a, const bf16* b, bf16* out, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t count);

  /// "13.1.0"
  std::string version() const;

 private:
  struct Api;
  const Api& api_;
  void* handle_ = nullptr;
};

}  // namespace assay::gpu
