#include "gpu/bench.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "gpu/cublas.h"
#include "gpu/fused_layer.h"
#include "gpu/grouped_gemm.h"

namespace assay {
namespace gpu {
namespace {

constexpr int kWarmUps = 3;
constexpr int kRepetitions = 15;
constexpr std::int64_t kFlushBytes = std::int64_t{256} << 20;  // several times the L2

/// A captured launch sequence.
class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& work) {
    cudaGraph_t graph{};
    ASSAY_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    ASSAY_CUDA(cudaStreamEndCapture(stream, &graph));
    ASSAY_CUDA(cudaGraphInstantiate(&replay_, graph, 0));
    ASSAY_CUDA(cudaGraphDestroy(graph));
  }
  Graph(Graph&& other) noexcept : replay_(std::exchange(other.replay_, nullptr)) {}
  Graph& operator=(Graph&&) = delete;
  ~Graph() {
    if (replay_ != nullptr) cudaGraphExecDestroy(replay_);
  }
  void launch(cudaStream_t stream) const { ASSAY_CUDA(cudaGraphLaunch(replay_, stream)); }

 private:
  cudaGraphExec_t replay_ = nullptr;
};

struct Event {
  cudaEvent_t event{};
  Event() { ASSAY_CUDA(cudaEventCreate(&event)); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

struct Contender {
  GpuTiming timing;
  Graph graph;
  std::vector<double> times;
};

// In turns, so that a change of the card's clock meets all of them.
void measure(std::vector<Contender>& contenders, cudaStream_t stream, Buffer<char>& flush) {
  const Event begin;
  const Event end;
  for (int i = 0; i < kWarmUps + kRepetitions; ++i)
    for (auto& one : contenders) {
      flush_l2(flush.data(), flush.size(), stream);
      ASSAY_CUDA(cudaEventRecord(begin.event, stream));
      one.graph.launch(stream);
      ASSAY_CUDA(cudaEventRecord(end.event, stream));
      ASSAY_CUDA(cudaEventSynchronize(end.event));
      float milliseconds = 0.0f;
      ASSAY_CUDA(cudaEventElapsedTime(&milliseconds, begin.event, end.event));
      if (i >= kWarmUps) one.times.push_back(milliseconds * 1e3);
    }
  for (auto& one : contenders) {
    std::sort(one.times.begin(), one.times.end());
    one.timing.median_us = one.times[one.times.size() / 2];
    one.timing.fastest_us = one.times.front();
    one.timing.slowest_us = one.times.back();
  }
}

double limit_us(double flops, double bytes) { return std::max(flops / kRooflineFlops, bytes / kRooflineBytes) * 1e6; }

GpuBenchmark bench_tokens(const DeviceProblem& problem, const GpuOptions& options, Buffer<char>& flush) {
  const Sizes& sizes = problem.sizes;
  const auto& config = sizes.config;
  const FusedWorkspace workspace(sizes, options);
  const Routing routing = workspace.routing.view();
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

  std::vector<Contender> contenders;
  const auto add = [&](const char* what, double flops, double limit, const std::function<void()>& work) {
    GpuTiming timing;
    timing.what = what;
    timing.flops = flops;
    timing.limit_us = limit;
    contenders.push_back({std::move(timing), Graph(stream, work), {}});
  };
  const GateUp gate_up{problem.input.data(), problem.gate_up_proj.data(), workspace.intermediate.data(), nullptr, true, options.contract == "hf"};
  const Down down{workspace.intermediate.data(), problem.down_proj.data(), workspace.rows.data(), options.permute_y};
  const bool wgmma = result.variant == "wgmma_sm90";
  const double all_flops = flops1 + flops2 + router_flops;
  add("layer", all_flops, limit_us(all_flops, 1.5 * weights1 + 2 * tokens_bytes + 2 * inter_bytes), [&] { launch_fused(problem, workspace, options, stream); });
  add("router product", router_flops, 0, [&] { router_product(problem.input.data(), problem.gate.data(), workspace.logits.data(), sizes, stream); });
  add("softmax, top-k, order", 0, 0, [&] {
    softmax_topk(workspace.logits.data(), routing, sizes, stream);
    order_by_expert(routing, sizes, stream);
  });
  add("gate_up with gather and swiglu", flops1, limit_us(flops1, weights1 + tokens_bytes + inter_bytes), [&] {
    if (wgmma) gate_up_wgmma_sm90(gate_up, routing, sizes, options.kernel_config_fwd, stream);
    else gate_up_mma_sm80(gate_up, routing, sizes, stream);
  });
  add("down", flops2, limit_us(flops2, weights1 / 2 + inter_bytes + rows_bytes), [&] {
    if (wgmma) down_wgmma_sm90(down, routing, sizes, options.kernel_config_fwd, stream);
    else down_mma_sm80(down, routing, sizes, stream);
  });
  add("merge", 0, limit_us(0, rows_bytes + tokens_bytes), [&] {
    merge(workspace.rows.data(), options.permute_y ? nullptr : routing.row_of_slot, routing.topk_weights, workspace.out.data(), options.contract == "hf", sizes, stream);
  });
  // cuBLAS with the same number of rows for every expert, rows permuted already: a bar without raggedness, gather or SwiGLU.
  const std::int64_t each = sizes.slots() / config.num_experts;
  const Buffer<bf16> permuted("permuted input", each > 0 ? sizes.slots() * config.hidden_size : 0);
  const Buffer<bf16> wide("first product", each * config.num_experts * 2 * config.moe_intermediate_size);
  const Buffer<bf16> narrow("second product", each * config.num_experts * config.hidden_size);
  ASSAY_CUDA(cudaDeviceSynchronize());
  if (each > 0) {
    permute_rows(problem.input.data(), routing.gather_indices, permuted.data(), sizes, stream);
    const auto products = static_cast<double>(each * config.num_experts) * hidden * inter;
    add("cuBLAS batched, equal counts, gate_up", 4 * products, 0, [&] {
      cublas.batched_product(permuted.data(), problem.gate_up_proj.data(), wide.data(), each, 2 * config.moe_intermediate_size, config.hidden_size, config.num_experts);
    });
    add("cuBLAS batched, equal counts, down", 2 * products, 0, [&] {
      cublas.batched_product(workspace.intermediate.data(), problem.down_proj.data(), narrow.data(), each, config.hidden_size, config.moe_intermediate_size, config.num_experts);
    });
  }
  measure(contenders, stream, flush);
  workspace.verify_guards();
  for (auto& one : contenders) result.timings.push_back(std::move(one.timing));
  return result;
}

}  // namespace
}  // namespace gpu

std::vector<GpuBenchmark> bench_gpu_fused(const Problem& problem, const std::vector<std::int64_t>& tokens, const GpuOptions& options) {
  gpu::require_runnable(problem.sizes(), options);
  gpu::DeviceProblem device = gpu::upload(problem);
  gpu::Buffer<char> flush("flush", gpu::kFlushBytes);
  std::vector<GpuBenchmark> results;
  for (const std::int64_t count : tokens) {
    ASSAY_CHECK(count > 0 && count <= problem.sizes().tokens, "expected a number of tokens from 1 to the problem's");
    device.sizes.tokens = count;
    results.push_back(gpu::bench_tokens(device, options, flush));
  }
  return results;
}

}  // namespace assay
