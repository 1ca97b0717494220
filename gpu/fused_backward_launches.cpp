// The launches of the fused backward pass.
#include "gpu/fused_launches.h"
#include "gpu/kernels/combine.h"
#include "gpu/kernels/grouped_gemm.h"
#include "gpu/kernels/grouped_gemm_grad.h"
#include "gpu/kernels/router_wgmma.h"

namespace assay::gpu {
namespace {

constexpr double kElementBytes = sizeof(bf16);

bool wide_dx(const FusedRun& run) {
  return run.wgmma_dx && wide_tiles_wgmma_sm90(config_of_dx(run.options), run.problem.sizes);
}

/// The portable kernels walk row tiles of their own, those for Hopper the forward pass's where it has the
/// same.
bool own_tiles(const FusedRun& run) {
  return !run.wgmma_dx || !run.wgmma || wide_dx(run) != run.routing.wide;
}

DeviceRouting routing_of_dx(const FusedRun& run) {
  return own_tiles(run) ? run.gradients->routing(run.routing, wide_dx(run)) : run.routing;
}

/// Gradients of weights need no row tiles.
DeviceRouting routing_of_dw(const FusedRun& run) {
  DeviceRouting routing = routing_of_dx(run);
  routing.wide = false;
  return routing;
}

void launch_merge_grad(const FusedRun& run, cudaStream_t stream) {
  order_backward_tiles(run, stream);
  merge_grad(run.problem.d_out.data(), run.workspace.rows.data(), run.options.permute_y,
             run.routing.row_of_slot, run.routing.topk_weights, run.gradients->d_rows.data(),
             run.gradients->d_topk_weights.data(), run.rounding, run.problem.sizes, stream);
}

void launch_permute_grad(const FusedRun& run, cudaStream_t stream) {
  order_backward_tiles(run, stream);
  permute_rows(run.problem.d_out.data(), run.routing.row_of_slot, run.gradients->d_rows.data(),
               run.problem.sizes, stream);
}

void launch_down_dx_fp32(const FusedRun& run, cudaStream_t stream) {
  const DownDxFp32 product{.d_out = run.gradients->d_rows.data(),
                           .down_proj = run.problem.down_proj.data(),
                           .products = run.gradients->products.data()};
  if (run.wgmma_dx)
    down_dx_fp32_wgmma_sm90(product, routing_of_dx(run), run.problem.sizes, config_of_dx(run.options),
                            stream);
  else
    down_dx_fp32_mma_sm80(product, routing_of_dx(run), run.problem.sizes, stream);
}

void launch_swiglu_grad_fp32(const FusedRun& run, cudaStream_t stream) {
  const FusedGradients& to = *run.gradients;
  swiglu_grad_fp32({.products = to.products.data(),
                    .first_gemm = run.workspace.first_gemm.data(),
                    .topk_weights = run.routing.topk_weights,
                    .gather_indices = run.routing.gather_indices,
                    .d_first_gemm = to.d_first_gemm.data(),
                    .weighted = to.weighted.size() > 0 ? to.weighted.data() : nullptr,
                    .d_topk_weights = to.d_topk_weights.data(),
                    .quick = run.wgmma_dx},
                   run.problem.sizes, stream);
}

void launch_down_dx(const FusedRun& run, cudaStream_t stream) {
  const FusedGradients& to = *run.gradients;
  const DownDx product{.d_second_gemm = to.d_rows.data(),
                       .down_proj = run.problem.down_proj.data(),
                       .first_gemm = run.workspace.first_gemm.data(),
                       .d_intermediate = to.d_intermediate.data(),
                       .d_first_gemm = to.d_first_gemm.data()};
  if (run.wgmma_dx)
    down_dx_wgmma_sm90(product, routing_of_dx(run), run.problem.sizes, config_of_dx(run.options), stream);
  else
    down_dx_mma_sm80(product, routing_of_dx(run), run.problem.sizes, stream);
}

void launch_down_dw(const FusedRun& run, cudaStream_t stream) {
  const FusedGradients& to = *run.gradients;
  const DownDw product{
      .d_second_gemm = to.d_rows.data(),
      .intermediate = run.rounding == Rounding::Hf ? run.workspace.intermediate.data() : to.weighted.data(),
      .d_down_proj = to.d_down_proj.view(),
      .beside_previous = run.rounding == Rounding::Hf && run.wgmma_dx};  // behind SwiGLU's gradient
  if (run.wgmma_dw)
    down_dw_wgmma_sm90(product, routing_of_dw(run), run.problem.sizes, run.options.kernel_config_bwd_dW,
                       stream);
  else
    down_dw_mma_sm80(product, routing_of_dw(run), run.problem.sizes, stream);
}

void launch_gate_up_dx(const FusedRun& run, cudaStream_t stream) {
  const FusedGradients& to = *run.gradients;
  const GateUpDx product{.d_first_gemm = to.d_first_gemm.data(),
                         .gate_up_proj = run.problem.gate_up_proj.data(),
                         .d_rows = to.d_permuted.data()};
  if (run.wgmma_dx)
    gate_up_dx_wgmma_sm90(product, routing_of_dx(run), run.problem.sizes, config_of_dx(run.options), stream);
  else
    gate_up_dx_mma_sm80(product, routing_of_dx(run), run.problem.sizes, stream);
}

void launch_gate_up_dw(const FusedRun& run, cudaStream_t stream) {
  const FusedGradients& to = *run.gradients;
  const bool gather = run.options.permute_x;
  const GateUpDw product{.d_first_gemm = to.d_first_gemm.data(),
                         .x = gather ? run.problem.input.data() : run.workspace.permuted.data(),
                         .d_gate_up_proj = to.d_gate_up_proj.view(),
                         .gather = gather,
                         .beside_previous = !run.options.dW_only && run.wgmma_dx};  // behind gate_up dX
  if (run.wgmma_dw)
    gate_up_dw_wgmma_sm90(product, routing_of_dw(run), run.problem.sizes, run.options.kernel_config_bwd_dW,
                          stream);
  else
    gate_up_dw_mma_sm80(product, routing_of_dw(run), run.problem.sizes, stream);
}

void launch_selection_grad(const FusedRun& run, cudaStream_t stream) {
  softmax_topk_grad(run.workspace.logits.data(), run.routing.selected_experts,
                    run.gradients->d_topk_weights.data(), run.gradients->d_logits.data(),
                    run.gradients->d_logits_padded.data(), run.problem.sizes, stream);
}

RouterGrad router_grad(const FusedRun& run) {
  return {.d_logits = run.gradients->d_logits_padded.data(),
          .x = run.problem.input.data(),
          .gate = run.problem.gate.data(),
          .d_x = run.gradients->router_part.data(),
          .d_gate = run.gradients->d_gate.view()};
}

void launch_router_dx(const FusedRun& run, cudaStream_t stream) {
  if (run.wgmma_dx)
    router_dx_wgmma_sm90(router_grad(run), run.problem.sizes, stream);
  else
    router_dx(router_grad(run), run.problem.sizes, stream);
}

void launch_router_dw(const FusedRun& run, cudaStream_t stream) {
  if (run.wgmma_dw)
    router_dw_wgmma_sm90(router_grad(run), run.problem.sizes, stream);
  else
    router_dw(router_grad(run), run.problem.sizes, stream);
}

void launch_combine(const FusedRun& run, cudaStream_t stream) {
  const FusedGradients& to = *run.gradients;
  combine_with_router(to.d_permuted.data(), run.routing.row_of_slot, to.router_part.data(),
                      run.options.debug_fields ? to.d_experts.data() : nullptr, to.d_input.data(),
                      run.rounding, run.problem.sizes, stream);
}

bool always(const GpuOptions&) { return true; }
bool hf(const GpuOptions& options) { return rounding_of(options.contract, "gpu_fused") == Rounding::Hf; }
bool fp32(const GpuOptions& options) { return !hf(options); }
bool dx(const GpuOptions& options) { return !options.dW_only; }
bool dw(const GpuOptions& options) { return !options.dX_only; }

LaunchCost unlimited(const LaunchSizes&) { return {}; }

LaunchCost cost_of_merge_grad(const LaunchSizes& s) {
  return {.bytes = kElementBytes * s.hidden * (s.tokens + 2 * s.rows)};
}

LaunchCost cost_of_rows(const LaunchSizes& s) {
  return {.bytes = kElementBytes * s.hidden * (s.tokens + s.rows)};
}

LaunchCost cost_of_down(const LaunchSizes& s) {
  return {.flops = 2 * s.rows * s.hidden * s.inter,
          .bytes = kElementBytes *
                   (s.experts_hit * s.inter * s.hidden + s.rows * s.hidden + 4 * s.rows * s.inter)};
}

LaunchCost cost_of_down_fp32(const LaunchSizes& s) {
  return {.flops = 2 * s.rows * s.hidden * s.inter,
          .bytes = kElementBytes *
                   (s.experts_hit * s.inter * s.hidden + s.rows * s.hidden + 2 * s.rows * s.inter)};
}

LaunchCost cost_of_swiglu_fp32(const LaunchSizes& s) {
  return {.bytes = kElementBytes * 7 * s.rows * s.inter};
}

LaunchCost cost_of_down_dw(const LaunchSizes& s) {
  return {.flops = 2 * s.rows * s.hidden * s.inter,
          .bytes = kElementBytes * (s.experts * s.inter * s.hidden + s.rows * s.hidden + s.rows * s.inter)};
}

LaunchCost cost_of_gate_up(const LaunchSizes& s) {
  return {.flops = 4 * s.rows * s.hidden * s.inter,
          .bytes = kElementBytes *
                   (2 * s.experts_hit * s.inter * s.hidden + 2 * s.rows * s.inter + s.rows * s.hidden)};
}

LaunchCost cost_of_gate_up_dw(const LaunchSizes& s) {
  return {.flops = 4 * s.rows * s.hidden * s.inter,
          .bytes = kElementBytes *
                   (2 * s.experts * s.inter * s.hidden + 2 * s.rows * s.inter + s.tokens * s.hidden)};
}

LaunchCost cost_of_router(const LaunchSizes& s) { return {.flops = 2 * s.tokens * s.experts * s.hidden}; }

// The router's part needs d_topk_weights alone and fills few multiprocessors (router dW is one chain of adds
// per element over all tokens): it runs where the large products leave some.
// clang-format off
constexpr FusedLaunch kBackwardLaunches[] = {
    {"merge's gradients",                    std::nullopt,          hf,     launch_merge_grad,       cost_of_merge_grad},
    {"output's gradient permuted",           std::nullopt,          fp32,   launch_permute_grad,     cost_of_rows},
    {"down dX",                              ProductId::down_dx,    fp32,   launch_down_dx_fp32,     cost_of_down_fp32},
    {"swiglu's gradient, weights after it",  std::nullopt,          fp32,   launch_swiglu_grad_fp32, cost_of_swiglu_fp32},
    {"gradient of softmax and top-k",        std::nullopt,          always, launch_selection_grad,   unlimited,         Lane::Beside},
    {"router dX",                            ProductId::router_dx,  dx,     launch_router_dx,        cost_of_router,    Lane::Beside},
    {"router dW",                            ProductId::router_dw,  dw,     launch_router_dw,        cost_of_router,    Lane::Beside},
    {"down dX with swiglu's gradient",       ProductId::down_dx,    hf,     launch_down_dx,          cost_of_down},
    {"down dW",                              ProductId::down_dw,    dw,     launch_down_dw,          cost_of_down_dw},
    {"gate_up dX",                           ProductId::gate_up_dx, dx,     launch_gate_up_dx,       cost_of_gate_up},
    {"gate_up dW",                           ProductId::gate_up_dw, dw,     launch_gate_up_dw,       cost_of_gate_up_dw},
    {"slots combined, router's part added",  std::nullopt,          dx,     launch_combine,          cost_of_rows,      Lane::Joined},
};
// clang-format on

}  // namespace

void order_backward_tiles(const FusedRun& run, cudaStream_t stream) {
  if (own_tiles(run)) order_row_tiles(routing_of_dx(run), run.problem.sizes, stream);
}

std::span<const FusedLaunch> backward_launches() { return kBackwardLaunches; }

}  // namespace assay::gpu
