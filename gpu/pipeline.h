// The GPU pipelines behind one host interface. It is the same where no CUDA compiler was found: then every
// call says so.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gpu/kernel_config_backward.h"
#include "gpu/kernel_config_forward.h"
#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay {

/// Unsloth's parameters of the fused layer.
struct GpuOptions {
  bool permute_x = true;  // gather the tokens' rows in the first product's prologue; else permute them before
  bool permute_y =
      false;  // rows of the second product leave in slot order; `second_gemm` is then not materialised
  std::string contract = "hf";  // or "fused_fp32"
  bool debug_fields = true;  // also write first_gemm and what else is kept in registers; no other bit changes
  bool dX_only = false;      // of the backward pass: no gradients of weights
  bool dW_only = false;      // no gradient of the layer's input
  KernelConfigForward kernel_config_fwd;
  std::optional<KernelConfigBackwardDx> kernel_config_bwd_dX = {};  // nothing: the forward pass's
  KernelConfigBackwardDw kernel_config_bwd_dW = {};
};

/// The reason why options contradict themselves, or nothing.
std::optional<std::string> invalid(const GpuOptions& options);

/// "gpu_fused", "gpu_cublas", "gpu_cublas_grouped"
std::vector<std::string> gpu_pipelines();

/// One sentence why no GPU pipeline can run here (not built, no driver, no device), or nothing.
std::optional<std::string> gpu_unavailable();

/// The reason why the pipelines cannot run problems of these sizes, or nothing.
std::optional<std::string> gpu_unsupported(const Sizes& sizes);

/// The reason why a valid config cannot run problems of these sizes, or nothing.
std::optional<std::string> gpu_unsupported(const KernelConfigForward& config, const Sizes& sizes);

/// One stage at a time, products by cuBLAS per expert, contract `hf`. Every forward field is materialised.
/// Throws InputError when there is no device or `gpu_unsupported` has a reason.
Candidate run_gpu_cublas(const Problem& problem, const GpuOptions& options = {});

/// The same with one grouped call for all experts of a product.
Candidate run_gpu_cublas_grouped(const Problem& problem, const GpuOptions& options = {});

/// Hand-written kernels: router, top-k, order, grouped product with gather and SwiGLU, grouped product,
/// merge. Throws like `run_gpu_cublas`; UsageError for a contract or config it does not have.
Candidate run_gpu_fused(const Problem& problem, const GpuOptions& options = {});

}  // namespace assay
