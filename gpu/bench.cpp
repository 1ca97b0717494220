#include "gpu/bench.h"

#include <algorithm>
#include <functional>

#include "gpu/cublas.h"
#include "gpu/fused_layer.h"
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

GpuBenchmark bench_tokens(const DeviceProblem& problem, const GpuOptions& options) {
  const Sizes& sizes = problem.sizes;
  const auto& config = sizes.config;
  const FusedWorkspace workspace(sizes, options);
  const Routing routing = routing_of(workspace, sizes, options);
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

  const auto tokens = static_cast<double>(sizes.tokens);
  const auto rows = static_cast<double>(sizes.slots());
  const auto hidden = static_cast<double>(config.hidden_size);
  const auto inter = static_cast<double>(config.moe_intermediate_size);
  const double router_flops = 2 * tokens * static_cast<double>(config.num_experts) * hidden;
  const double flops1 = 4 * rows * hidden * inter;
  const double flops2 = 2 * rows * hidden * inter;
  // Least bytes: weights of the experts hit, x and out once, the intermediate written and read.
  const double weights1 = static_cast<double>(result.experts_hit) * 4 * inter * hidden;
  const double tokens_bytes = 2 * tokens * hidden;
  const double inter_bytes = 2 * rows * inter;
  const double rows_bytes = 2 * rows * hidden;

  std::vector<Graph> graphs;
  const auto add = [&](const char* what, double flops, double limit, const std::function<void()>& work) {
    GpuTiming timing;
    timing.what = what;
    timing.flops = flops;
    timing.limit_us = limit;
    result.timings.push_back(std::move(timing));
    graphs.emplace_back(stream, work);
  };
  const GateUp gate_up{.x = options.permute_x ? problem.input.data() : workspace.permuted.data(),
                       .gate_up_proj = problem.gate_up_proj.data(),
                       .intermediate = workspace.intermediate.data(),
                       .first_gemm = nullptr,
                       .gather = options.permute_x,
                       .round_inner = options.contract == "hf"};
  const Down down{workspace.intermediate.data(), problem.down_proj.data(), workspace.rows.data(),
                  options.permute_y};
  const bool wgmma = result.variant == "wgmma_sm90";
  const double all_flops = flops1 + flops2 + router_flops;
  add("layer", all_flops, limit_us(all_flops, 1.5 * weights1 + 2 * tokens_bytes + 2 * inter_bytes),
      [&] { launch_fused(problem, workspace, options, stream); });
  add("router product", router_flops, 0, [&] {
    router_product(problem.input.data(), problem.gate.data(), workspace.logits.data(), sizes, stream);
  });
  add("softmax, top-k, order", 0, 0, [&] {
    softmax_topk(workspace.logits.data(), routing, sizes, stream);
    order_by_expert(routing, sizes, stream);
  });
  add(options.permute_x ? "gate_up with gather and swiglu" : "gate_up with swiglu", flops1,
      limit_us(flops1, weights1 + tokens_bytes + inter_bytes), [&] {
        if (wgmma)
          gate_up_wgmma_sm90(gate_up, routing, sizes, options.kernel_config_fwd, stream);
        else
          gate_up_mma_sm80(gate_up, routing, sizes, stream);
      });
  add("down", flops2, limit_us(flops2, weights1 / 2 + inter_bytes + rows_bytes), [&] {
    if (wgmma)
      down_wgmma_sm90(down, routing, sizes, options.kernel_config_fwd, stream);
    else
      down_mma_sm80(down, routing, sizes, stream);
  });
  add("merge", 0, limit_us(0, rows_bytes + tokens_bytes), [&] {
    merge(workspace.rows.data(), options.permute_y ? nullptr : routing.row_of_slot, routing.topk_weights,
          workspace.out.data(), options.contract == "hf", sizes, stream);
  });
  // Bars from cuBLAS, rows permuted already, no gather and no SwiGLU: one grouped call with these counts;
  // batches of equal counts; one dense product of as many operations with a single expert's weights.
  const std::int64_t h = config.hidden_size;
  const std::int64_t i = config.moe_intermediate_size;
  const std::int64_t each = sizes.slots() / config.num_experts;
  const Buffer<bf16> permuted("permuted input", sizes.slots() * h);
  const Buffer<bf16> wide("first product", sizes.slots() * 2 * i);
  const Buffer<bf16> narrow("second product", sizes.slots() * h);
  const auto grouped1 =
      grouped_operands(permuted.data(), problem.gate_up_proj.data(), wide.data(), counts, 2 * i, h);
  const auto grouped2 =
      grouped_operands(workspace.intermediate.data(), problem.down_proj.data(), narrow.data(), counts, h, i);
  ASSAY_CUDA(cudaDeviceSynchronize());
  permute_rows(problem.input.data(), routing.gather_indices, permuted.data(), sizes, stream);
  add("cuBLAS grouped, these counts, gate_up", flops1, 0,
      [&] { cublas.grouped_product(grouped1, 2 * i, h); });
  add("cuBLAS grouped, these counts, down", flops2, 0, [&] { cublas.grouped_product(grouped2, h, i); });
  if (each > 0) {
    const auto products = static_cast<double>(each * config.num_experts) * hidden * inter;
    add("cuBLAS batched, equal counts, gate_up", 4 * products, 0, [&] {
      cublas.batched_product(permuted.data(), problem.gate_up_proj.data(), wide.data(), each, 2 * i, h,
                             config.num_experts);
    });
    add("cuBLAS batched, equal counts, down", 2 * products, 0, [&] {
      cublas.batched_product(workspace.intermediate.data(), problem.down_proj.data(), narrow.data(), each, h,
                             i, config.num_experts);
    });
  }
  add("cuBLAS dense, gate_up", flops1, 0, [&] {
    cublas.product(permuted.data(), problem.gate_up_proj.data(), wide.data(), sizes.slots(), 2 * i, h);
  });
  add("cuBLAS dense, down", flops2, 0, [&] {
    cublas.product(workspace.intermediate.data(), problem.down_proj.data(), narrow.data(), sizes.slots(), h,
                   i);
  });

  const Replays replays = time_replays(graphs, kRepetitions, stream);
  workspace.verify_guards();
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
                                          const GpuOptions& options) {
  gpu::require_runnable(problem.sizes(), options);
  gpu::DeviceProblem device = gpu::upload(problem);
  std::vector<GpuBenchmark> results;
  for (const std::int64_t count : tokens) {
    ASSAY_CHECK(count > 0 && count <= problem.sizes().tokens,
                "expected a number of tokens from 1 to the problem's");
    device.sizes.tokens = count;
    results.push_back(gpu::bench_tokens(device, options));
  }
  return results;
}

}  // namespace assay
