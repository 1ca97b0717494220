#include "gpu/fused_launches.h"

#include <utility>

#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/router_wgmma.h"

namespace assay::gpu {
namespace {

constexpr double kElementBytes = sizeof(bf16);

bool router_chooses(const FusedRun& run) { return run.wgmma && router_chooses_wgmma_sm90(run.problem.sizes); }

// Where its blocks have all experts it does softmax and top-k, too.
void launch_router(const FusedRun& run, cudaStream_t stream) {
  const RouterProduct router{
      .x = run.problem.input.data(), .gate = run.problem.gate.data(), .logits = run.workspace.logits.data()};
  if (router_chooses(run))
    router_topk_wgmma_sm90(router, run.routing, run.problem.sizes, stream);
  else if (run.wgmma)
    router_wgmma_sm90(router, run.problem.sizes, stream);
  else
    router_product(router.x, router.gate, router.logits, run.problem.sizes, stream);
}

void launch_selection(const FusedRun& run, cudaStream_t stream) {
  if (!router_chooses(run)) softmax_topk(run.workspace.logits.data(), run.routing, run.problem.sizes, stream);
  order_by_expert(run.routing, run.problem.sizes, stream);
}

void launch_permute(const FusedRun& run, cudaStream_t stream) {
  permute_rows(run.problem.input.data(), run.routing.row_of_slot, run.workspace.permuted.data(),
               run.problem.sizes, stream);
}

void launch_gate_up(const FusedRun& run, cudaStream_t stream) {
  const auto& problem = run.problem;
  const auto& workspace = run.workspace;
  const auto& options = run.options;
  const GateUp gate_up{.x = options.permute_x ? problem.input.data() : workspace.permuted.data(),
                       .gate_up_proj = problem.gate_up_proj.data(),
                       .intermediate = workspace.intermediate.data(),
                       .first_gemm = workspace.first_gemm.size() > 0 ? workspace.first_gemm.data() : nullptr,
                       .gather = options.permute_x,
                       .rounding = run.rounding};
  if (run.wgmma)
    gate_up_wgmma_sm90(gate_up, run.routing, problem.sizes, options.kernel_config_fwd, stream);
  else
    gate_up_mma_sm80(gate_up, run.routing, problem.sizes, stream);
}

void launch_down(const FusedRun& run, cudaStream_t stream) {
  const Down down{.intermediate = run.workspace.intermediate.data(),
                  .down_proj = run.problem.down_proj.data(),
                  .out = run.workspace.rows.data(),
                  .scatter = run.options.permute_y,
                  .behind_gate_up = true};
  if (run.wgmma)
    down_wgmma_sm90(down, run.routing, run.problem.sizes, run.options.kernel_config_fwd, stream);
  else
    down_mma_sm80(down, run.routing, run.problem.sizes, stream);
}

void launch_merge(const FusedRun& run, cudaStream_t stream) {
  const auto sum = run.wgmma ? merge_sm90 : merge;
  sum(run.workspace.rows.data(), run.options.permute_y ? nullptr : run.routing.row_of_slot,
      run.routing.topk_weights, run.workspace.out.data(), run.rounding, run.problem.sizes, stream);
}

bool always(const GpuOptions&) { return true; }
bool gathering(const GpuOptions& options) { return options.permute_x; }
bool permuting(const GpuOptions& options) { return !options.permute_x; }

LaunchCost unlimited(const LaunchSizes&) { return {}; }

LaunchCost cost_of_router(const LaunchSizes& s) { return {.flops = 2 * s.tokens * s.experts * s.hidden}; }

LaunchCost cost_of_permute(const LaunchSizes& s) {
  return {.bytes = kElementBytes * s.hidden * (s.tokens + s.rows)};
}

LaunchCost cost_of_gate_up(const LaunchSizes& s) {
  return {.flops = 4 * s.rows * s.hidden * s.inter,
          .bytes = kElementBytes *
                   (2 * s.experts_hit * s.inter * s.hidden + s.tokens * s.hidden + s.rows * s.inter)};
}

LaunchCost cost_of_down(const LaunchSizes& s) {
  return {
      .flops = 2 * s.rows * s.hidden * s.inter,
      .bytes = kElementBytes * (s.experts_hit * s.inter * s.hidden + s.rows * s.inter + s.rows * s.hidden)};
}

LaunchCost cost_of_merge(const LaunchSizes& s) {
  return {.bytes = kElementBytes * s.hidden * (s.rows + s.tokens)};
}

// clang-format off
constexpr FusedLaunch kForwardLaunches[] = {
    {"router product",                 ProductId::router,  always,    launch_router,    cost_of_router},
    {"softmax, top-k, order",          std::nullopt,       always,    launch_selection, unlimited},
    {"permute",                        std::nullopt,       permuting, launch_permute,   cost_of_permute},
    {"gate_up with swiglu",            ProductId::gate_up, permuting, launch_gate_up,   cost_of_gate_up},
    {"gate_up with gather and swiglu", ProductId::gate_up, gathering, launch_gate_up,   cost_of_gate_up},
    {"down",                           ProductId::down,    always,    launch_down,      cost_of_down},
    {"merge",                          std::nullopt,       always,    launch_merge,     cost_of_merge},
};
// clang-format on

}  // namespace

const KernelConfigBackwardDx& config_of_dx(const GpuOptions& options) {
  return options.kernel_config_bwd_dX ? *options.kernel_config_bwd_dX : options.kernel_config_fwd;
}

FusedRun fused_run(const DeviceProblem& problem, const FusedWorkspace& workspace, const GpuOptions& options) {
  return {.problem = problem,
          .workspace = workspace,
          .options = options,
          .rounding = rounding_of(options.contract, "gpu_fused"),
          .routing = routing_of(workspace, problem.sizes, options),
          .wgmma = variant_of(options) == "wgmma_sm90",
          .wgmma_dx = variant_of(config_of_dx(options).variant, options) == "wgmma_sm90",
          .wgmma_dw = variant_of(options.kernel_config_bwd_dW.variant, options) == "wgmma_sm90"};
}

std::span<const FusedLaunch> fused_launches(Pass pass) {
  return pass == Pass::Forward ? std::span<const FusedLaunch>(kForwardLaunches) : backward_launches();
}

void launch_pass(Pass pass, const FusedRun& run, cudaStream_t stream) {
  ASSAY_CHECK(pass == Pass::Forward || run.gradients != nullptr, "expected room for gradients");
  const auto launch_lane = [&](Lane lane, cudaStream_t on) {
    for (const auto& launch : fused_launches(pass))
      if (launch.lane == lane && launch.wanted(run.options)) launch.launch(run, on);
  };
  bool forked = false;
  for (const auto& launch : fused_launches(pass)) {
    if (!launch.wanted(run.options)) continue;
    if (launch.lane != Lane::Beside) {
      if (launch.lane == Lane::Joined && std::exchange(forked, false)) run.gradients->beside.join(stream);
      launch.launch(run, stream);
    } else if (!std::exchange(forked, true)) {
      run.gradients->beside.fork(stream, [&](cudaStream_t branch) { launch_lane(Lane::Beside, branch); });
    }
  }
  if (forked) run.gradients->beside.join(stream);
}

std::vector<ProductId> fused_products(Pass pass, const GpuOptions& options) {
  std::vector<ProductId> products;
  for (const auto& launch : fused_launches(pass))
    if (launch.product && launch.wanted(options)) products.push_back(*launch.product);
  return products;
}

}  // namespace assay::gpu
