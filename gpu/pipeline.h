// The GPU pipelines behind one host interface. It is the same where no CUDA compiler was found: then every
// call says so.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay {

/// How the two grouped products of the forward pass run. Values outside `invalid`'s lists are refused, never
/// adjusted.
struct KernelConfigForward {
  std::string variant =
      "auto";  // "wgmma_sm90" (Hopper), "mma_sm80" (compute capability 8.0 and newer), or the better one
  // The rest is read by wgmma_sm90 alone.
  std::string tiles =
      "auto";  // weights by rows of an expert: "tall" (256 x 128), "wide" (256 x 144, computed in 8s),
               // "narrow" (128 x 16, for 16 tokens at most), or what suits the sizes
  int pipeline_depth_gate_up = 4;  // shared-memory stages of the first product, 2 to 4
  int pipeline_depth_down = 3;     // of the second, 2 or 3: its results take a stage's room
  int raster_rows = 4;             // row tiles that run side by side before the next column tile; 1 to 64
  int persistent_blocks = 0;  // blocks that walk the tiles, a multiple of cluster; 0 = one per multiprocessor
  int cluster =
      0;  // blocks that fetch an expert's weights together, 1 or 2; 0 = 2 where experts have two tiles or so
};

/// The reason why a config cannot run, or nothing.
std::optional<std::string> invalid(const KernelConfigForward& config);

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
