// `gpu_bench MODEL TOKENS...`: times the fused layer and its stages under CUDA-graph replay, the L2 flushed before every
// measurement, beside cuBLAS and the roofline. Median, fastest and slowest of the repetitions, in microseconds.
// `assay verify` and `gpu_selfcheck` are what makes these times worth reading; run them first.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "gpu/cublas.h"
#include "gpu/fused_layer.h"
#include "gpu/grouped_gemm.h"
#include "gpu/selfcheck_problem.h"

namespace {

using namespace assay;
using namespace assay::gpu;

constexpr int kWarmUps = 3;
constexpr int kRepetitions = 15;
constexpr std::size_t kFlushBytes = std::size_t{256} << 20;  // several times the L2
constexpr double kFlops = 790e12;  // measured bf16 rate of an H200 on random data
constexpr double kBytes = 4.3e12;  // measured copy rate of an H200

struct Model {
  const char* name;
  MoeConfig config;
};
const Model kModels[] = {{"30b", {2048, 768, 128, 8, true}}, {"235b", {4096, 1536, 128, 8, true}}, {"next80b", {2048, 512, 512, 10, true}}};

struct Times {
  double median, fastest, slowest;
};

/// Captures what `work` launches and replays it, each time after overwriting the L2.
Times measure(cudaStream_t stream, Buffer<char>& flush, const std::function<void()>& work) {
  cudaGraph_t graph{};
  cudaGraphExec_t replay{};
  ASSAY_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work();
  ASSAY_CUDA(cudaStreamEndCapture(stream, &graph));
  ASSAY_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  cudaEvent_t begin{};
  cudaEvent_t end{};
  ASSAY_CUDA(cudaEventCreate(&begin));
  ASSAY_CUDA(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < kWarmUps + kRepetitions; ++i) {
    if (std::getenv("DIRTY") != nullptr) ASSAY_CUDA(cudaMemsetAsync(flush.data(), i, flush.bytes(), stream));
    else flush_l2(flush.data(), flush.size(), stream);
    ASSAY_CUDA(cudaEventRecord(begin, stream));
    ASSAY_CUDA(cudaGraphLaunch(replay, stream));
    ASSAY_CUDA(cudaEventRecord(end, stream));
    ASSAY_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0.0f;
    ASSAY_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= kWarmUps) times.push_back(milliseconds * 1e3);
  }
  ASSAY_CUDA(cudaEventDestroy(begin));
  ASSAY_CUDA(cudaEventDestroy(end));
  ASSAY_CUDA(cudaGraphExecDestroy(replay));
  ASSAY_CUDA(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

void print(const char* what, Times t, double flops, double limit) {
  std::printf("  %-34s %9.1f  (%.1f .. %.1f)", what, t.median, t.fastest, t.slowest);
  if (flops > 0) std::printf("  %6.1f TFLOP/s", flops / t.median * 1e-6);
  if (limit > 0) std::printf("  %3.0f %% of %.1f", 100 * limit / t.median, limit);
  std::printf("\n");
}

void bench(DeviceProblem& problem, std::int64_t tokens, const Model& model, Buffer<char>& flush, const GpuOptions& options) {
  problem.sizes.tokens = tokens;
  const Sizes sizes = problem.sizes;
  const auto& c = sizes.config;
  const FusedWorkspace workspace(sizes, options);
  const Routing routing = workspace.routing.view();
  const Stream stream;
  Cublas cublas(stream);
  launch_fused(problem, workspace, options, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  std::vector<std::int32_t> counts(static_cast<std::size_t>(c.num_experts));
  workspace.routing.counts.download(counts.data());
  const auto hit = static_cast<double>(std::count_if(counts.begin(), counts.end(), [](int n) { return n > 0; }));

  const auto rows = static_cast<double>(sizes.slots());
  const auto hidden = static_cast<double>(c.hidden_size);
  const auto inter = static_cast<double>(c.moe_intermediate_size);
  const auto limit = [](double flops, double bytes) { return std::max(flops / kFlops, bytes / kBytes) * 1e6; };
  const double flops1 = 4 * rows * hidden * inter;
  const double flops2 = 2 * rows * hidden * inter;
  const double router = 2.0 * static_cast<double>(tokens) * static_cast<double>(c.num_experts) * hidden;
  const double weights1 = hit * 4 * inter * hidden;
  const double x = 4.0 * static_cast<double>(tokens) * hidden;  // read x, write out
  const double h = 4.0 * rows * inter;

  std::printf("%s T %lld, rows per expert %d .. %d, experts hit %.0f, %s\n", model.name, static_cast<long long>(tokens),
              *std::min_element(counts.begin(), counts.end()), *std::max_element(counts.begin(), counts.end()), hit, variant_of(options).c_str());
  print("layer", measure(stream, flush, [&] { launch_fused(problem, workspace, options, stream); }), flops1 + flops2 + router,
        limit(flops1 + flops2 + router, weights1 * 1.5 + x + h));
  print("router product", measure(stream, flush, [&] { router_product(problem.input.data(), problem.gate.data(), workspace.logits.data(), sizes, stream); }), router, 0);
  print("softmax, top-k", measure(stream, flush, [&] { softmax_topk(workspace.logits.data(), routing, sizes, stream); }), 0, 0);
  softmax_topk(workspace.logits.data(), routing, sizes, stream);  // ordering turns the chunk counts into prefixes
  print("order", measure(stream, flush, [&] { softmax_topk(workspace.logits.data(), routing, sizes, stream); order_by_expert(routing, sizes, stream); }), 0, 0);
  const GateUp gate_up{problem.input.data(), problem.gate_up_proj.data(), workspace.intermediate.data(), nullptr, true, true};
  const Down down{workspace.intermediate.data(), problem.down_proj.data(), workspace.rows.data(), options.permute_y};
  const bool wgmma = variant_of(options) == "wgmma_sm90";
  print("gate_up, gather, swiglu", measure(stream, flush, [&] {
          if (wgmma) gate_up_wgmma_sm90(gate_up, routing, sizes, options.kernel_config_fwd, stream);
          else gate_up_mma_sm80(gate_up, routing, sizes, stream);
        }), flops1, limit(flops1, weights1 + x / 2 + h / 2));
  print("down", measure(stream, flush, [&] {
          if (wgmma) down_wgmma_sm90(down, routing, sizes, options.kernel_config_fwd, stream);
          else down_mma_sm80(down, routing, sizes, stream);
        }), flops2, limit(flops2, weights1 / 2 + h / 2 + 2 * rows * hidden));
  print("merge", measure(stream, flush, [&] { merge(workspace.rows.data(), options.permute_y ? nullptr : routing.row_of_slot, routing.topk_weights, workspace.out.data(), true, sizes, stream); }), 0,
        limit(0, 2 * rows * hidden + x / 2));
  const std::int64_t each = sizes.slots() / c.num_experts;
  if (each > 0) {
    const Buffer<bf16> wide("wide", c.num_experts * each * 2 * c.moe_intermediate_size);
    const Buffer<bf16> permuted("permuted", sizes.slots() * c.hidden_size);
    permute_rows(problem.input.data(), routing.gather_indices, permuted.data(), sizes, stream);
    print("cuBLAS batched, equal counts, 1st", measure(stream, flush, [&] { cublas.batched_product(permuted.data(), problem.gate_up_proj.data(), wide.data(), each, 2 * c.moe_intermediate_size, c.hidden_size, c.num_experts); }), flops1, 0);
    print("cuBLAS batched, equal counts, 2nd", measure(stream, flush, [&] { cublas.batched_product(workspace.intermediate.data(), problem.down_proj.data(), workspace.rows.data(), each, c.hidden_size, c.moe_intermediate_size, c.num_experts); }), flops2, 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 3) throw InputError("usage: gpu_bench 30b|235b|next80b TOKENS...");
    const auto* model = std::find_if(std::begin(kModels), std::end(kModels), [&](const Model& m) { return std::strcmp(m.name, argv[1]) == 0; });
    if (model == std::end(kModels)) throw InputError(std::string("expected model 30b, 235b or next80b, found ") + argv[1]);
    if (auto reason = gpu_unavailable()) {
      std::printf("SKIP: %s\n", reason->c_str());
      return 77;
    }
    std::int64_t most = 0;
    for (int i = 2; i < argc; ++i) most = std::max<std::int64_t>(most, std::stoll(argv[i]));
    DeviceProblem problem = upload(selfcheck_problem(model->config, most, 1, Load::Natural));
    Buffer<char> flush("flush", kFlushBytes);
    GpuOptions options;
    options.debug_fields = false;
    if (const char* variant = std::getenv("VARIANT")) options.kernel_config_fwd.variant = variant;
    auto& config = options.kernel_config_fwd;
    for (const auto& [variable, member] : {std::pair{"DEPTH", &config.pipeline_depth_gate_up}, {"DEPTH_DOWN", &config.pipeline_depth_down},
                                           {"RASTER", &config.raster_rows}, {"BLOCKS", &config.persistent_blocks}})
      if (const char* value = std::getenv(variable)) *member = std::stoi(value);
    if (auto reason = invalid(config)) throw InputError(*reason);
    if (std::getenv("PERMUTE_Y") != nullptr) options.permute_y = true;
    for (int i = 2; i < argc; ++i) bench(problem, std::stoll(argv[i]), *model, flush, options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_bench: %s\n", error.what());
    return 3;
  }
}
