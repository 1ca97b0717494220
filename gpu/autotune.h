// The best kernel config for a problem, by trying a declared list in a fixed order. A config is eligible when
// all its outputs are the default's bit for bit on the problem it is tuned on; whoever asks has the default's
// outputs judged.
#pragma once

#include <string>
#include <vector>

#include "gpu/pipeline.h"

namespace assay {

template <class Config>
struct TuningTrial {
  Config config;
  bool equal_bits = false;  // to the default's, in every output; without it the times are not taken
  double median_us = 0.0;
  double gain_us = 0.0;    // median over the rounds of the default's time less this one's: a change of the
                           // card's clock meets both
  double spread_us = 0.0;  // of those differences, between the first and third quartile
};

template <class Config>
struct Tuning {
  Config best;  // the default, unless a trial gains more than the spread of its gain
  std::vector<TuningTrial<Config>> trials;  // in the order of the list; the first is the default
  std::string reason;                       // one sentence: what won, by how much, or why nothing did
};

/// What `autotune` tries for these sizes: the default first. Values between them were within the noise
/// (gpu/PERFORMANCE.md).
std::vector<KernelConfigForward> tuning_space(const Sizes& sizes);
std::vector<KernelConfigBackwardDw> tuning_space_dW();

/// Chooses by the rule above; a function of its own so that it can be tested without a device.
template <class Config>
Config choose(const std::vector<TuningTrial<Config>>& trials, std::string& reason);

/// "variant=auto,pipeline_depth_gate_up=4,...": all members, as the command line takes them.
std::string describe(const KernelConfigForward& config);
std::string describe(const KernelConfigBackwardDw& config);

/// Tries the space on `problem` with these options; their kernel config is ignored. Throws like
/// run_gpu_fused.
Tuning<KernelConfigForward> autotune_gpu_fused(const Problem& problem, const GpuOptions& options);

/// The same of the backward pass: the launches that make the gradients of the products' rows, tried beside
/// the forward pass of `options`, and those that make the experts' gradients of weights, beside its config
/// for rows. The problem has a gradient of the output.
Tuning<KernelConfigBackwardDx> autotune_gpu_fused_dX(const Problem& problem, const GpuOptions& options);
Tuning<KernelConfigBackwardDw> autotune_gpu_fused_dW(const Problem& problem, const GpuOptions& options);

/// What a tuned config depends on besides the problem: device, driver and the kernels' sources. Throws
/// InputError without a device.
std::string tuning_machine();

}  // namespace assay
