// What the fused backward pass writes. Under hf it reads the fields that the forward pass stored, under
// fused_fp32 first_gemm alone.
#pragma once

#include "gpu/device_bytes.h"
#include "gpu/device_problem.h"
#include "gpu/pipeline.h"
#include "gpu/side_branch.h"
#include "gpu/weight_gradient_buffer.h"

namespace assay::gpu {

/// Sized for one problem size and one set of options: with dX_only no gradient of a weight has elements, with
/// dW_only none of the layer's input.
struct FusedGradients {
  /// `previous`: what gradients of weights are added to, each if it is there.
  FusedGradients(const Sizes& sizes, const GpuOptions& options, const FieldSet& previous = {});
  void verify_guards() const;
  void poison();

  /// The routing with row tiles of the backward products.
  DeviceRouting routing(const DeviceRouting& forward, bool wide) const;

  Buffer<RowTile> tiles;
  Buffer<TileCounters> counters;
  Buffer<bf16> d_rows;               // [S, H] d_second_gemm; under fused_fp32 rows of the output's gradient
  Buffer<bf16> d_topk_weights;       // [T, K]
  Buffer<bf16> d_intermediate;       // [S, I] under hf
  Buffer<float> products;            // [S, I] under fused_fp32: d_intermediate without the weight
  Buffer<bf16> weighted;             // [S, I] under fused_fp32: weight times activation
  WeightGradientBuffer d_down_proj;  // [E, H, I]
  Buffer<bf16> d_first_gemm;         // [S, 2I]
  Buffer<bf16> d_permuted;           // [S, H]
  WeightGradientBuffer d_gate_up_proj;  // [E, 2I, H]
  Buffer<bf16> d_logits;                // [T, E]
  Buffer<bf16> d_logits_padded;         // [T, padded_experts(E)]
  WeightGradientBuffer d_gate;          // [E, H]
  Buffer<bf16> d_experts;               // [T, H] with debug_fields, else empty
  Buffer<bf16> router_part;             // [T, H]
  Buffer<bf16> d_input;                 // [T, H]

  SideBranch beside;  // for launches that fill few multiprocessors

 private:
  template <class Self, class Visit>
  static void for_each_buffer(Self& self, Visit visit);
};

/// Every gradient.
std::vector<DeviceBytes> device_results(const FusedGradients& gradients);
std::vector<unsigned char> results(const FusedGradients& gradients);

}  // namespace assay::gpu
