// cuBLAS, loaded when it is first needed: the program starts and says so where the library is missing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "gpu/buffer.h"
#include "gpu/kernels/kernels.h"
#include "harness/contract/product_id.h"

namespace assay::gpu {

/// Operands of products of one weight matrix each, with as many rows as each expert has: what a grouped call
/// takes.
struct GroupedOperands {
  std::vector<int> rows;  // of the experts that have any
  Buffer<const bf16*> a;  // where their rows start, in device memory
  Buffer<const bf16*> b;  // their weights
  Buffer<bf16*> out;
};

/// a [rows, k] and out [rows, n] in expert order, b [E, n, k]; `counts` [E] are rows of each expert.
GroupedOperands grouped_operands(const bf16* a, const bf16* b, bf16* out,
                                 const std::vector<std::int32_t>& counts, std::int64_t n, std::int64_t k);

/// A matrix of a product, in device memory.
struct Operand {
  const bf16* values;
  Lies lies = Lies::AlongColumns;
};

/// One cuBLAS handle bound to a stream; reduced-precision reductions are off.
class Cublas {
 public:
  /// Throws InputError when the library cannot be loaded or refuses.
  explicit Cublas(cudaStream_t stream);
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  /// out[m, n] = rb(sum_k a[m, k] b[n, k]), bf16 in and out, fp32 accumulate; all row-major. An operand that
  /// lies along its rows is stored as [k, m] or [k, n]. Without a term (k = 0) the results are zeros.
  void product(const Operand& a, const Operand& b, bf16* out, std::int64_t m, std::int64_t n, std::int64_t k);

  /// The same without the last rounding.
  void product(const Operand& a, const Operand& b, float* out, std::int64_t m, std::int64_t n,
               std::int64_t k);

  /// `count` products of equal sizes, contiguous after one another: the batched bar of benchmarks.
  void batched_product(const Operand& a, const Operand& b, bf16* out, std::int64_t m, std::int64_t n,
                       std::int64_t k, std::int64_t count);

  /// One call for all experts (cublasGemmGroupedBatchedEx), which finds the shapes on the host.
  void grouped_product(const GroupedOperands& operands, std::int64_t n, std::int64_t k);

  /// "13.1.0"
  std::string version() const;

 private:
  struct Api;
  void multiply(const Operand& a, const Operand& b, void* out, bool fp32, std::int64_t m, std::int64_t n,
                std::int64_t k);
  const Api& api_;
  cudaStream_t stream_;
  void* handle_ = nullptr;
};

}  // namespace assay::gpu
