// gpu_fused as a pipeline: upload, poison, launch, verify the guards, bring the fields back.
#include "gpu/fused_launches.h"
#include "gpu/pipeline.h"
#include "harness/contract/precision_contract.h"

namespace assay {

namespace {

using namespace gpu;

void store_forward(Candidate& candidate, const FusedWorkspace& workspace, const GpuOptions& options,
                   const Sizes& sizes) {
  store_field(candidate, Field::router_logits, workspace.logits, sizes);
  store_routing(candidate, workspace.routing, sizes);
  if (options.debug_fields && workspace.first_gemm.size() > 0 &&
      find_contract(options.contract).first_gemm == Store::Bf16)
    store_field(candidate, Field::first_gemm, workspace.first_gemm, sizes);
  store_field(candidate, Field::intermediate, workspace.intermediate, sizes);
  store_field(candidate, options.permute_y ? Field::hidden_states_unpermute : Field::second_gemm,
              workspace.rows, sizes);
  store_field(candidate, Field::hidden_states, workspace.out, sizes);
}

void store_backward(Candidate& candidate, const FusedGradients& gradients, const GpuOptions& options,
                    const Sizes& sizes) {
  const auto store = [&](Field field, const auto& buffer) {
    if (buffer.size() > 0) store_field(candidate, field, buffer, sizes);  // others were not asked for
  };
  if (rounding_of(options.contract, "gpu_fused") == Rounding::Hf)
    store(Field::d_second_gemm, gradients.d_rows);
  store(Field::d_topk_weights, gradients.d_topk_weights);
  store(Field::d_intermediate, gradients.d_intermediate);
  store(Field::d_down_proj, gradients.d_down_proj);
  store(Field::d_first_gemm, gradients.d_first_gemm);
  store(Field::d_permuted_hidden_states, gradients.d_permuted);
  store(Field::d_gate_up_proj, gradients.d_gate_up_proj);
  store(Field::d_router_logits, gradients.d_logits);
  store(Field::d_gate, gradients.d_gate);
  store(Field::d_experts_hidden_states, gradients.d_experts);
  store(Field::d_input_hidden_states, gradients.d_input);
}

}  // namespace

Candidate run_gpu_fused(const Problem& problem, const GpuOptions& options) {
  const Sizes sizes = problem.sizes();
  require_runnable(sizes, options);
  const DeviceProblem device = upload(problem);
  const bool backward = device.has_backward();
  const FusedWorkspace workspace(sizes, options, backward);
  const std::optional<FusedGradients> gradients =
      backward ? std::make_optional<FusedGradients>(sizes, options, problem.previous) : std::nullopt;
  const Stream stream;
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  FusedRun run = fused_run(device, workspace, options);
  launch_pass(Pass::Forward, run, stream);
  if (gradients) {
    run.gradients = &*gradients;
    launch_pass(Pass::Backward, run, stream);
  }
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  workspace.verify_guards();
  if (gradients) gradients->verify_guards();
  device.verify_guards();

  Candidate candidate = describe_candidate("gpu_fused");
  candidate.contract = options.contract;
  candidate.provenance["grouped_gemm"] = variant_of(options);
  candidate.provenance["permute_x"] = options.permute_x ? "true" : "false";
  candidate.provenance["permute_y"] = options.permute_y ? "true" : "false";
  if (candidate.from_hopper()) {
    for (const Pass pass : {Pass::Forward, Pass::Backward})
      if (pass == Pass::Forward || backward)
        for (const ProductId product : fused_products(pass, options))
          candidate.accumulators[product] = {AccumulatorKind::Hopper, {}};
    candidate.accumulators.rest_as_torch = true;
  }
  store_forward(candidate, workspace, options, sizes);
  if (gradients) store_backward(candidate, *gradients, options, sizes);
  return candidate;
}

}  // namespace assay
