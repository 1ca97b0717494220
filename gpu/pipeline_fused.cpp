// gpu_fused as a pipeline: upload, poison, launch, verify the guards, bring the fields back.
#include "gpu/fused_launches.h"
#include "gpu/pipeline.h"

namespace assay {

Candidate run_gpu_fused(const Problem& problem, const GpuOptions& options) {
  using namespace gpu;
  const Sizes sizes = problem.sizes();
  require_runnable(sizes, options);
  const DeviceProblem device = upload(problem);
  const FusedWorkspace workspace(sizes, options);
  const Stream stream;
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  launch_fused(device, workspace, options, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  workspace.verify_guards();
  for (const auto* buffer : {&device.input, &device.gate, &device.gate_up_proj, &device.down_proj})
    buffer->verify_guards();

  Candidate candidate = describe_candidate("gpu_fused");
  candidate.contract = options.contract;
  candidate.provenance["grouped_gemm"] = variant_of(options);
  candidate.provenance["permute_x"] = options.permute_x ? "true" : "false";
  candidate.provenance["permute_y"] = options.permute_y ? "true" : "false";
  if (candidate.from_hopper()) {
    for (const ProductId product : fused_products(options))
      candidate.accumulators[product] = {AccumulatorKind::Hopper, {}};
    candidate.accumulators.rest_as_torch = true;
  }
  store_field(candidate, Field::router_logits, workspace.logits, sizes);
  store_routing(candidate, workspace.routing, sizes);
  if (workspace.first_gemm.size() > 0) store_field(candidate, Field::first_gemm, workspace.first_gemm, sizes);
  store_field(candidate, Field::intermediate, workspace.intermediate, sizes);
  store_field(candidate, options.permute_y ? Field::hidden_states_unpermute : Field::second_gemm,
              workspace.rows, sizes);
  store_field(candidate, Field::hidden_states, workspace.out, sizes);
  return candidate;
}

}  // namespace assay
