#include "gpu/autotune.h"

#include <algorithm>

#include "gpu/fused_layer.h"
#include "gpu/graph_timer.h"
#include "gpu/kernel_sources.h"
#include "gpu/kernels/grouped_gemm.h"

namespace assay {
namespace {

double quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(fraction * static_cast<double>(values.size() - 1) + 0.5)];
}

}  // namespace

Tuning autotune_gpu_fused(const Problem& problem, const GpuOptions& given) {
  using namespace gpu;
  constexpr int kRepetitions = 21;
  GpuOptions options = given;
  options.debug_fields = false;  // timed as it will run
  options.kernel_config_fwd = {};
  const Sizes sizes = problem.sizes();
  require_runnable(sizes, options);
  if (sizes.tokens == 0) throw InputError("expected a problem with tokens to tune on, found none");
  const DeviceProblem device = upload(problem);
  FusedWorkspace workspace(sizes, options);
  const Stream stream;
  Tuning tuning;
  std::vector<unsigned char> standard;
  std::vector<Graph> graphs;
  std::vector<std::size_t> timed;
  for (const auto& config : tuning_space(sizes)) {
    if (config.variant == "wgmma_sm90" && !has_wgmma_sm90()) continue;
    options.kernel_config_fwd = config;
    workspace.poison();
    ASSAY_CUDA(cudaDeviceSynchronize());
    const auto work = [&] { launch_fused(device, workspace, options, stream); };
    work();
    ASSAY_CUDA(cudaStreamSynchronize(stream));
    workspace.verify_guards();
    auto bytes = results(workspace);
    if (tuning.trials.empty()) standard = bytes;
    tuning.trials.push_back({config, bytes == standard, 0.0, 0.0});
    if (!tuning.trials.back().equal_bits) continue;
    timed.push_back(tuning.trials.size() - 1);
    graphs.emplace_back(stream, work);
  }
  const Replays replays = time_replays(graphs, kRepetitions, stream);
  for (std::size_t i = 0; i < timed.size(); ++i) {
    const auto& times = replays.microseconds[i];
    std::vector<double> gains;
    for (std::size_t round = 0; round < times.size(); ++round)
      gains.push_back(replays.microseconds[0][round] - times[round]);
    auto& trial = tuning.trials[timed[i]];
    trial.median_us = quantile(times, 0.5);
    trial.gain_us = quantile(gains, 0.5);
    trial.spread_us = quantile(gains, 0.75) - quantile(gains, 0.25);
  }
  tuning.best = choose(tuning.trials, tuning.reason);
  return tuning;
}

std::string tuning_machine() {
  if (auto reason = gpu_unavailable()) throw InputError(*reason);
  const Candidate device = gpu::describe_candidate("");
  return device.device + ", driver API " + device.provenance.at("cuda_driver_api") + ", runtime " +
         device.provenance.at("cuda_runtime") + ", kernels " + kKernelSources;
}

}  // namespace assay
