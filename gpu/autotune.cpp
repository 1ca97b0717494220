#include "gpu/autotune.h"

#include <algorithm>

#include "gpu/fused_launches.h"
#include "gpu/graph_timer.h"
#include "gpu/kernel_sources.h"
#include "gpu/kernels/grouped_gemm.h"

namespace assay {
namespace {

using namespace gpu;

double quantile(std::vector<double> values, double fraction) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(fraction * static_cast<double>(values.size() - 1) + 0.5)];
}

/// Runs what `work` launches with every config of the space that this device has kernels for, and times those
/// that leave the first one's bytes. `use` makes a config the one that runs, `poison` what it writes.
template <class Config, class Use, class Poison, class Work, class Results>
Tuning<Config> tune(const std::vector<Config>& space, Use use, Poison poison, Work work, Results results,
                    const Stream& stream) {
  constexpr int kRepetitions = 21;
  Tuning<Config> tuning;
  std::vector<unsigned char> standard;
  std::vector<Graph> graphs;
  std::vector<std::size_t> timed;
  for (const Config& config : space) {
    if (config.variant == "wgmma_sm90" && !has_wgmma_sm90()) continue;
    use(config);
    poison();
    ASSAY_CUDA(cudaDeviceSynchronize());
    work();
    ASSAY_CUDA(cudaStreamSynchronize(stream));
    auto bytes = results();
    if (tuning.trials.empty()) standard = bytes;
    tuning.trials.push_back({config, bytes == standard, 0.0, 0.0, 0.0});
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

GpuOptions timed_as_it_will_run(GpuOptions options) {
  options.debug_fields = false;
  return options;
}

void require_tokens(const Problem& problem) {
  if (problem.sizes().tokens == 0) throw InputError("expected a problem with tokens to tune on, found none");
}

/// Both passes of a problem, run once: what launches of the backward pass are tried on.
struct TunedPasses {
  GpuOptions options;
  DeviceProblem problem;
  FusedWorkspace workspace;
  FusedGradients gradients;
  Stream stream;

  TunedPasses(const Problem& given, const GpuOptions& with)
      : options(with),
        problem(upload(given)),
        workspace(given.sizes(), options, true),
        gradients(given.sizes(), options) {
    ASSAY_CUDA(cudaDeviceSynchronize());
    launch_pass(Pass::Forward, run(), stream);
    launch_pass(Pass::Backward, run(), stream);
    ASSAY_CUDA(cudaStreamSynchronize(stream));
  }

  FusedRun run() const {
    FusedRun run = fused_run(problem, workspace, options);
    run.gradients = &gradients;
    return run;
  }
  void launch(std::initializer_list<ProductId> products) const {
    order_backward_tiles(run(), stream);
    for (const auto& launch : fused_launches(Pass::Backward))
      if (launch.wanted(options) && launch.product &&
          std::find(products.begin(), products.end(), *launch.product) != products.end())
        launch.launch(run(), stream);
  }
};

void require_runnable_backward(const Problem& problem, const GpuOptions& options) {
  require_runnable(problem.sizes(), options);
  require_tokens(problem);
  if (problem.output_gradient.size() == 0)
    throw InputError("expected a gradient of the layer's output to tune the backward pass on, found none");
}

}  // namespace

Tuning<KernelConfigForward> autotune_gpu_fused(const Problem& problem, const GpuOptions& given) {
  GpuOptions options = timed_as_it_will_run(given);
  options.kernel_config_fwd = {};
  require_runnable(problem.sizes(), options);
  require_tokens(problem);
  const DeviceProblem device = upload(problem);
  FusedWorkspace workspace(problem.sizes(), options);
  const Stream stream;
  return tune(
      tuning_space(problem.sizes()), [&](const auto& config) { options.kernel_config_fwd = config; },
      [&] { workspace.poison(); }, [&] { launch_fused(device, workspace, options, stream); },
      [&] {
        workspace.verify_guards();
        return results(workspace);
      },
      stream);
}

Tuning<KernelConfigBackwardDx> autotune_gpu_fused_dX(const Problem& problem, const GpuOptions& given) {
  GpuOptions options = timed_as_it_will_run(given);
  options.kernel_config_bwd_dX = KernelConfigBackwardDx{};
  options.dW_only = false;
  require_runnable_backward(problem, options);
  TunedPasses passes(problem, options);
  FusedGradients& to = passes.gradients;
  return tune(
      tuning_space(problem.sizes()),
      [&](const auto& config) { passes.options.kernel_config_bwd_dX = config; },
      [&] {
        for (auto* buffer : {&to.d_intermediate, &to.d_permuted}) buffer->poison();
        to.products.poison();
      },
      [&] { passes.launch({ProductId::down_dx, ProductId::gate_up_dx}); },
      [&] {
        to.verify_guards();
        return download({bytes_of(to.d_intermediate), bytes_of(to.products), bytes_of(to.d_first_gemm),
                         bytes_of(to.d_permuted)});
      },
      passes.stream);
}

Tuning<KernelConfigBackwardDw> autotune_gpu_fused_dW(const Problem& problem, const GpuOptions& given) {
  GpuOptions options = timed_as_it_will_run(given);
  options.kernel_config_bwd_dW = {};
  options.dX_only = false;
  require_runnable_backward(problem, options);
  TunedPasses passes(problem, options);
  FusedGradients& to = passes.gradients;
  return tune(
      tuning_space_dW(), [&](const auto& config) { passes.options.kernel_config_bwd_dW = config; },
      [&] {
        for (auto* weights : {&to.d_down_proj, &to.d_gate_up_proj}) weights->bytes().poison();
      },
      [&] { passes.launch({ProductId::down_dw, ProductId::gate_up_dw}); },
      [&] {
        to.verify_guards();
        return download({bytes_of(to.d_down_proj.bytes()), bytes_of(to.d_gate_up_proj.bytes())});
      },
      passes.stream);
}

std::string tuning_machine() {
  if (auto reason = gpu_unavailable()) throw InputError(*reason);
  const Candidate device = gpu::describe_candidate("");
  return device.device + ", driver API " + device.provenance.at("cuda_driver_api") + ", runtime " +
         device.provenance.at("cuda_runtime") + ", kernels " + kKernelSources;
}

}  // namespace assay
