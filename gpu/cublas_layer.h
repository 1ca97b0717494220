// The layer on device memory one stage at a time, products by cuBLAS: what each stage leaves behind. Contract
// hf.
#pragma once

#include <vector>

#include "gpu/cublas.h"
#include "gpu/device_problem.h"
#include "gpu/weight_gradient_buffer.h"

namespace assay::gpu {

enum class CublasCalls { OnePerExpert, Grouped };

/// Every forward field, and the gathered rows that both passes multiply.
struct CublasForward {
  explicit CublasForward(const Sizes& sizes);
  void verify_guards() const;

  RoutingBuffers routing;
  Buffer<bf16> logits;               // [T, E]
  Buffer<bf16> permuted;             // [S, H]
  Buffer<bf16> first_gemm;           // [S, 2I]
  Buffer<bf16> intermediate;         // [S, I]
  Buffer<bf16> second_gemm;          // [S, H]
  Buffer<bf16> unpermuted;           // [S, H], slot order
  Buffer<bf16> out;                  // [T, H]
  std::vector<std::int32_t> counts;  // [E], on the host: rows of each expert
};

/// Every backward field, and the router's part of the input's gradient.
struct CublasBackward {
  /// `previous`: what gradients of weights are added to, each if it is there.
  CublasBackward(const Sizes& sizes, std::string_view contract, const FieldSet& previous);
  void verify_guards() const;

  Buffer<bf16> d_second_gemm;           // [S, H]
  Buffer<bf16> d_topk_weights;          // [T, K]
  Buffer<bf16> d_intermediate;          // [S, I]
  WeightGradientBuffer d_down_proj;     // [E, H, I]
  Buffer<bf16> d_first_gemm;            // [S, 2I]
  Buffer<bf16> d_permuted;              // [S, H]
  WeightGradientBuffer d_gate_up_proj;  // [E, 2I, H]
  Buffer<bf16> d_logits;                // [T, E]
  WeightGradientBuffer d_gate;          // [E, H]
  Buffer<bf16> d_experts;               // [T, H]
  Buffer<bf16> router_part;             // [T, H]
  Buffer<bf16> d_input;                 // [T, H]
  Buffer<float> product;                // of a weight's gradient that is added or kept as float32, else empty

 private:
  bool scratch() const;  // whether a gradient is not simply stored as bf16
};

/// Runs every forward stage on `stream`, to which `cublas` is bound, and waits for it.
void run_forward(const DeviceProblem& problem, CublasForward& forward, Cublas& cublas, CublasCalls calls,
                 cudaStream_t stream);

/// Runs every backward stage on what the forward pass left, and waits for it. The experts' products are one
/// call each.
void run_backward(const DeviceProblem& problem, const CublasForward& forward, const CublasBackward& backward,
                  Cublas& cublas, cudaStream_t stream);

}  // namespace assay::gpu
