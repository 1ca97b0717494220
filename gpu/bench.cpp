#include "gpu/bench.h"

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "gpu/cublas.h"
#include "gpu/fused_launches.h"
#include "gpu/graph_timer.h"

namespace assay {
namespace gpu {
namespace {

constexpr int kRepetitions = 15;

int median(std::vector<int> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double limit_us(double flops, double bytes) {
  return std::max(flops / kRooflineFlops, bytes / kRooflineBytes) * 1e6;
}

/// Least bytes of the whole layer: weights of the experts hit, input and output once, the intermediate
/// written and read.
double layer_bytes(const LaunchSizes& s) {
  return sizeof(bf16) *
         (3 * s.experts_hit * s.inter * s.hidden + 2 * s.tokens * s.hidden + 2 * s.rows * s.inter);
}

double flops_of(Pass pass, const GpuOptions& options, const LaunchSizes& sizes) {
  double flops = 0.0;
  for (const auto& launch : fused_launches(pass))
    if (launch.wanted(options)) flops += launch.cost(sizes).flops;
  return flops;
}

/// A grouped product as cuBLAS takes it: a [S, k], b [E, n, k], out [S, n].
struct CublasBar {
  ProductId product;
  const bf16* a;
  const bf16* b;
  bf16* out;
  std::int64_t n, k;
};

GpuBenchmark bench_tokens(const DeviceProblem& problem, const GpuOptions& options, bool backward) {
  const Sizes& sizes = problem.sizes;
  const auto& config = sizes.config;
  const FusedWorkspace workspace(sizes, options, backward);
  const auto gradients =
      backward ? std::make_optional<FusedGradients>(sizes, options) : std::optional<FusedGradients>();
  const Stream stream;
  Cublas cublas(stream);
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  launch_fused(problem, workspace, options, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  std::vector<std::int32_t> counts(static_cast<std::size_t>(config.num_experts));
  workspace.routing.counts.download(counts.data());

  GpuBenchmark result;
  result.device = describe_candidate("").device;
  result.variant = variant_of(options);
  result.tokens = sizes.tokens;
  result.experts_hit = std::count_if(counts.begin(), counts.end(), [](int n) { return n > 0; });
  result.fewest_rows = *std::min_element(counts.begin(), counts.end());
  result.most_rows = *std::max_element(counts.begin(), counts.end());

  const LaunchSizes amounts{.tokens = static_cast<double>(sizes.tokens),
                            .rows = static_cast<double>(sizes.slots()),
                            .hidden = static_cast<double>(config.hidden_size),
                            .inter = static_cast<double>(config.moe_intermediate_size),
                            .experts = static_cast<double>(config.num_experts),
                            .experts_hit = static_cast<double>(result.experts_hit)};
  FusedRun run = fused_run(problem, workspace, options);
  if (gradients) run.gradients = &*gradients;
  std::vector<Graph> graphs;
  const auto add = [&](std::string what, double flops, double limit, const std::function<void()>& work) {
    GpuTiming timing;
    timing.what = std::move(what);
    timing.flops = flops;
    timing.limit_us = limit;
    result.timings.push_back(std::move(timing));
    graphs.emplace_back(stream, work);
  };
  std::array<double, kProductCount> flops{};
  const auto add_launches = [&](Pass pass) {
    for (const auto& launch : fused_launches(pass)) {
      if (!launch.wanted(options)) continue;
      const LaunchCost cost = launch.cost(amounts);
      if (launch.product) flops[static_cast<std::size_t>(*launch.product)] = cost.flops;
      add(std::string(launch.name), cost.flops, cost.bytes > 0 ? limit_us(cost.flops, cost.bytes) : 0,
          [&] { launch.launch(run, stream); });
    }
  };
  const double forward_flops = flops_of(Pass::Forward, options, amounts);
  add("layer", forward_flops, limit_us(forward_flops, layer_bytes(amounts)),
      [&] { launch_pass(Pass::Forward, run, stream); });
  add_launches(Pass::Forward);
  if (backward) {
    const double backward_flops = flops_of(Pass::Backward, options, amounts);
    launch_pass(Pass::Backward, run, stream);
    add("backward", backward_flops, 0, [&] { launch_pass(Pass::Backward, run, stream); });
    add("forward and backward", forward_flops + backward_flops, 0, [&] {
      launch_pass(Pass::Forward, run, stream);
      launch_pass(Pass::Backward, run, stream);
    });
    add_launches(Pass::Backward);
  }

  // Bars from cuBLAS, rows permuted already, no gather and no SwiGLU: one grouped call with these counts;
  // batches of equal counts; one dense product of as many operations with a single expert's weights.
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t inter = config.moe_intermediate_size;
  const Buffer<bf16> permuted("permuted input", sizes.slots() * hidden);
  const Buffer<bf16> wide("first product", sizes.slots() * 2 * inter);
  const Buffer<bf16> narrow("second product", sizes.slots() * hidden);
  const CublasBar bars[] = {
      {ProductId::gate_up, permuted.data(), problem.gate_up_proj.data(), wide.data(), 2 * inter, hidden},
      {ProductId::down, workspace.intermediate.data(), problem.down_proj.data(), narrow.data(), hidden,
       inter}};
  std::vector<GroupedOperands> grouped;
  for (const CublasBar& bar : bars)
    grouped.push_back(grouped_operands(bar.a, bar.b, bar.out, counts, bar.n, bar.k));
  ASSAY_CUDA(cudaDeviceSynchronize());
  permute_rows(problem.input.data(), run.routing.gather_indices, permuted.data(), sizes, stream);
  const auto add_bars = [&](const std::string& what, double share, auto work) {
    for (std::size_t b = 0; b < std::size(bars); ++b)
      add(what + std::string(name(bars[b].product)), share * flops[static_cast<std::size_t>(bars[b].product)],
          0, [&, b] { work(b); });
  };
  add_bars("cuBLAS grouped, these counts, ", 1.0,
           [&](std::size_t b) { cublas.grouped_product(grouped[b], bars[b].n, bars[b].k); });
  const std::int64_t each = sizes.slots() / config.num_experts;
  if (each > 0)
    add_bars("cuBLAS batched, equal counts, ",
             static_cast<double>(each * config.num_experts) / static_cast<double>(sizes.slots()),
             [&](std::size_t b) {
               cublas.batched_product(bars[b].a, bars[b].b, bars[b].out, each, bars[b].n, bars[b].k,
                                      config.num_experts);
             });
  add_bars("cuBLAS dense, ", 1.0, [&](std::size_t b) {
    cublas.product({bars[b].a}, {bars[b].b}, bars[b].out, sizes.slots(), bars[b].n, bars[b].k);
  });

  const Replays replays = time_replays(graphs, kRepetitions, stream);
  workspace.verify_guards();
  if (gradients) gradients->verify_guards();
  for (std::size_t g = 0; g < graphs.size(); ++g) {
    auto times = replays.microseconds[g];
    std::sort(times.begin(), times.end());
    result.timings[g].median_us = times[times.size() / 2];
    result.timings[g].fastest_us = times.front();
    result.timings[g].slowest_us = times.back();
  }
  std::vector<int> clocks;
  std::vector<int> watts;
  for (const auto& sample : replays.board) {
    clocks.push_back(sample.sm_clock_mhz);
    watts.push_back(sample.power_watts);
  }
  result.sm_clock_mhz = median(clocks);
  result.power_watts = median(watts);
  return result;
}

}  // namespace
}  // namespace gpu

std::vector<GpuBenchmark> bench_gpu_fused(const Problem& problem, const std::vector<std::int64_t>& tokens,
                                          const GpuOptions& options, bool backward) {
  gpu::require_runnable(problem.sizes(), options);
  if (backward && problem.output_gradient.size() == 0)
    throw InputError("expected a gradient of the layer's output to time the backward pass with, found none");
  gpu::DeviceProblem device = gpu::upload(problem);
  std::vector<GpuBenchmark> results;
  for (const std::int64_t count : tokens) {
    ASSAY_CHECK(count > 0 && count <= problem.sizes().tokens,
                "expected a number of tokens from 1 to the problem's");
    device.sizes.tokens = count;
    results.push_back(gpu::bench_tokens(device, options, backward));
  }
  return results;
}

}  // namespace assay
