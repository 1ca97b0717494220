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
#include "gpu/kernels/grouped_gemm.h"

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

/// Of the backward pass: weights of the experts hit, and every gradient of a weight; the input, both
/// gradients of the layer's ends, first_gemm, and its gradient written and read.
double backward_bytes(const LaunchSizes& s) {
  return sizeof(bf16) * (3 * (s.experts_hit + s.experts) * s.inter * s.hidden + 3 * s.tokens * s.hidden +
                         6 * s.rows * s.inter);
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
  std::int64_t n;
  std::int64_t k;
};

/// A product of one expert of as many rows as all others: a [m, k], b [n, k], out [m, n].
struct BatchedBar {
  ProductId product;
  Operand a;
  Operand b;
  bf16* out;
  std::int64_t m;
  std::int64_t n;
  std::int64_t k;
};

/// Whether the device has room for so many more elements, and some to spare for cuBLAS itself.
bool fits(std::int64_t elements) {
  constexpr std::size_t kSpare = std::size_t{1} << 30;
  std::size_t free = 0;
  std::size_t total = 0;
  ASSAY_CUDA(cudaMemGetInfo(&free, &total));
  return static_cast<std::size_t>(elements) * sizeof(bf16) + kSpare <= free;
}

/// Runs the variant that `options` do not mean at the same size, and compares all that both leave behind.
/// Without kernels for Hopper there is one variant: it is compared with a second run of its own.
void compare_with_other_variant(GpuBenchmark& result, const DeviceProblem& problem, GpuOptions options,
                                const FusedRun& run, cudaStream_t stream) {
  const bool portable = variant_of(options) == "mma_sm80";
  options.kernel_config_bwd_dX.reset();
  options.kernel_config_bwd_dW = {};
  options.kernel_config_fwd = {.variant = portable && has_wgmma_sm90() ? "wgmma_sm90" : "mma_sm80"};
  const bool backward = run.gradients != nullptr;
  const FusedWorkspace workspace(problem.sizes, options, backward);
  FusedRun other = fused_run(problem, workspace, options);
  auto mine = device_results(run.workspace);
  auto theirs = device_results(workspace);
  std::optional<FusedGradients> gradients;
  if (backward) {
    other.gradients = &gradients.emplace(problem.sizes, options);
    for (const auto& field : device_results(*run.gradients)) mine.push_back(field);
    for (const auto& field : device_results(*gradients)) theirs.push_back(field);
  }
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  launch_pass(Pass::Forward, other, stream);
  if (backward) launch_pass(Pass::Backward, other, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  result.compared_with = variant_of(options);
  result.compared_words = words_in(mine);
  const std::int64_t differing = count_words_that_differ(mine, theirs);
  if (differing != 0)
    throw InputError("what differs is not timed: " + std::to_string(differing) + " of " +
                     std::to_string(result.compared_words) + " words between " + result.variant + " and " +
                     result.compared_with + " at " + std::to_string(problem.sizes.tokens) + " tokens");
}

GpuBenchmark bench_tokens(const DeviceProblem& problem, const GpuOptions& options, bool backward) {
  const Sizes& sizes = problem.sizes;
  const auto& config = sizes.config;
  const FusedWorkspace workspace(sizes, options, backward);
  const auto gradients =
      backward ? std::make_optional<FusedGradients>(sizes, options) : std::optional<FusedGradients>();
  const Stream stream;
  Cublas cublas(stream);
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  FusedRun run = fused_run(problem, workspace, options);
  if (gradients) run.gradients = &*gradients;
  launch_pass(Pass::Forward, run, stream);
  if (backward) launch_pass(Pass::Backward, run, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  std::vector<std::int32_t> counts(static_cast<std::size_t>(config.num_experts));
  workspace.routing.counts.download(counts.data());

  GpuBenchmark result;
  result.device = describe_candidate("").device;
  result.variant = variant_of(options);
  result.tokens = sizes.tokens;
  compare_with_other_variant(result, problem, options, run, stream);
  result.experts_hit = std::count_if(counts.begin(), counts.end(), [](int n) { return n > 0; });
  result.fewest_rows = *std::min_element(counts.begin(), counts.end());
  result.most_rows = *std::max_element(counts.begin(), counts.end());

  const LaunchSizes amounts{.tokens = static_cast<double>(sizes.tokens),
                            .rows = static_cast<double>(sizes.slots()),
                            .hidden = static_cast<double>(config.hidden_size),
                            .inter = static_cast<double>(config.moe_intermediate_size),
                            .experts = static_cast<double>(config.num_experts),
                            .experts_hit = static_cast<double>(result.experts_hit)};
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
    const double both_flops = forward_flops + backward_flops;
    add("backward", backward_flops, limit_us(backward_flops, backward_bytes(amounts)),
        [&] { launch_pass(Pass::Backward, run, stream); });
    add("forward and backward", both_flops,
        limit_us(both_flops, layer_bytes(amounts) + backward_bytes(amounts)), [&] {
          launch_pass(Pass::Forward, run, stream);
          launch_pass(Pass::Backward, run, stream);
        });
    add_launches(Pass::Backward);
  }

  // Bars from cuBLAS, rows permuted already, no gather and no SwiGLU: one grouped call with these counts;
  // batches of equal counts; one dense product of as many operations with a single expert's weights.
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t inter = config.moe_intermediate_size;
  const std::int64_t each = sizes.slots() / config.num_experts;
  const std::int64_t rows_of_bars = sizes.slots() * 2 * (hidden + inter);
  const std::int64_t matrices_of_bars = each > 0 && backward ? config.num_experts * 2 * inter * hidden : 0;
  const bool fit = fits(rows_of_bars + matrices_of_bars);
  if (!fit) result.left_out = "cuBLAS: its rows do not fit beside the layer's";
  const std::int64_t slots_of_bars = fit ? sizes.slots() : 0;
  const Buffer<bf16> permuted("permuted input", slots_of_bars * hidden);
  const Buffer<bf16> wide("first product", slots_of_bars * 2 * inter);
  const Buffer<bf16> narrow("second product", slots_of_bars * hidden);
  std::vector<CublasBar> bars;
  if (fit)
    bars = {
        {ProductId::gate_up, permuted.data(), problem.gate_up_proj.data(), wide.data(), 2 * inter, hidden},
        {ProductId::down, workspace.intermediate.data(), problem.down_proj.data(), narrow.data(), hidden,
         inter}};
  std::vector<GroupedOperands> grouped;
  for (const CublasBar& bar : bars)
    grouped.push_back(grouped_operands(bar.a, bar.b, bar.out, counts, bar.n, bar.k));
  ASSAY_CUDA(cudaDeviceSynchronize());
  if (fit) permute_rows(problem.input.data(), run.routing.row_of_slot, permuted.data(), sizes, stream);
  const auto add_bars = [&](const std::string& what, double share, auto work) {
    for (std::size_t b = 0; b < bars.size(); ++b)
      add(what + std::string(name(bars[b].product)), share * flops[static_cast<std::size_t>(bars[b].product)],
          0, [&, b] { work(b); });
  };
  add_bars("cuBLAS grouped, these counts, ", 1.0,
           [&](std::size_t b) { cublas.grouped_product(grouped[b], bars[b].n, bars[b].k); });
  std::vector<BatchedBar> batched;
  if (each > 0)
    for (const CublasBar& bar : bars)
      batched.push_back({bar.product, {bar.a}, {bar.b}, bar.out, each, bar.n, bar.k});
  const Buffer<bf16> matrices("gradients of weights", fit ? matrices_of_bars : 0);
  if (matrices.size() > 0) {
    const auto rows = Lies::AlongRows;
    const Operand d_second{gradients->d_rows.data()};
    const Operand d_first{gradients->d_first_gemm.data()};
    batched.push_back(
        {ProductId::down_dx, d_second, {problem.down_proj.data(), rows}, wide.data(), each, inter, hidden});
    batched.push_back({ProductId::down_dw,
                       {d_second.values, rows},
                       {workspace.intermediate.data(), rows},
                       matrices.data(),
                       hidden,
                       inter,
                       each});
    batched.push_back({ProductId::gate_up_dx,
                       d_first,
                       {problem.gate_up_proj.data(), rows},
                       narrow.data(),
                       each,
                       hidden,
                       2 * inter});
    batched.push_back({ProductId::gate_up_dw,
                       {d_first.values, rows},
                       {permuted.data(), rows},
                       matrices.data(),
                       2 * inter,
                       hidden,
                       each});
  }
  for (const BatchedBar& bar : batched)
    add("cuBLAS batched, equal counts, " + std::string(name(bar.product)),
        2.0 * static_cast<double>(config.num_experts * bar.m * bar.n) * static_cast<double>(bar.k), 0,
        [&] { cublas.batched_product(bar.a, bar.b, bar.out, bar.m, bar.n, bar.k, config.num_experts); });
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
