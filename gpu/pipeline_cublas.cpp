// gpu_cublas and gpu_cublas_grouped: every stage of contract `hf` as a step of its own, forward and, where
// the problem has a gradient of the output, backward. Boring on purpose. The experts' products are one cuBLAS
// call each, or in the forward pass one grouped call for all.
#include "gpu/cublas_layer.h"
#include "gpu/pipeline.h"

namespace assay {
namespace {

using namespace gpu;

void store_forward(Candidate& candidate, const CublasForward& forward, const Sizes& sizes) {
  store_routing(candidate, forward.routing, sizes);
  store_field(candidate, Field::router_logits, forward.logits, sizes);
  store_field(candidate, Field::first_gemm, forward.first_gemm, sizes);
  store_field(candidate, Field::intermediate, forward.intermediate, sizes);
  store_field(candidate, Field::second_gemm, forward.second_gemm, sizes);
  store_field(candidate, Field::hidden_states_unpermute, forward.unpermuted, sizes);
  store_field(candidate, Field::hidden_states, forward.out, sizes);
}

void store_backward(Candidate& candidate, const CublasBackward& backward, const Sizes& sizes) {
  store_field(candidate, Field::d_second_gemm, backward.d_second_gemm, sizes);
  store_field(candidate, Field::d_topk_weights, backward.d_topk_weights, sizes);
  store_field(candidate, Field::d_intermediate, backward.d_intermediate, sizes);
  store_field(candidate, Field::d_down_proj, backward.d_down_proj, sizes);
  store_field(candidate, Field::d_first_gemm, backward.d_first_gemm, sizes);
  store_field(candidate, Field::d_permuted_hidden_states, backward.d_permuted, sizes);
  store_field(candidate, Field::d_gate_up_proj, backward.d_gate_up_proj, sizes);
  store_field(candidate, Field::d_router_logits, backward.d_logits, sizes);
  store_field(candidate, Field::d_gate, backward.d_gate, sizes);
  store_field(candidate, Field::d_experts_hidden_states, backward.d_experts, sizes);
  store_field(candidate, Field::d_input_hidden_states, backward.d_input, sizes);
}

Candidate run(const Problem& problem, const GpuOptions& options, const std::string& name, CublasCalls calls) {
  if (rounding_of(options.contract, name) != Rounding::Hf)
    throw UsageError("expected contract hf for " + name + ", found " + options.contract);
  if (auto reason = gpu_unavailable()) throw InputError(*reason);
  const Sizes sizes = problem.sizes();
  if (auto reason = gpu_unsupported(sizes)) throw InputError(*reason);

  const DeviceProblem device = upload(problem);
  const Stream stream;
  Cublas cublas(stream);
  CublasForward forward(sizes);
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream
  run_forward(device, forward, cublas, calls, stream);
  forward.verify_guards();

  Candidate candidate = describe_candidate(name);
  candidate.provenance["cublas"] = cublas.version();
  // cuBLAS chooses its splits of K by shape.
  if (candidate.from_hopper()) {
    candidate.accumulators = every_product({AccumulatorKind::HopperAnySplit, {}}, true);
    // d_gate's left operand has rows of E elements: where they are not aligned to 16 bytes, sums of more than
    // 16 tokens were seen in another order, which nothing declares.
    constexpr std::int64_t kAligned = 8;
    if (sizes.config.num_experts % kAligned != 0) candidate.accumulators[ProductId::router_dw] = {};
    // The grouped call's order was seen to differ where K = 72 is no multiple of a tile: one of 3,840 sums,
    // all but 5e-7 of which cancels, came out exact.
    constexpr std::int64_t kTileDepth = 64;
    if (calls == CublasCalls::Grouped) {
      if (sizes.config.hidden_size % kTileDepth != 0) candidate.accumulators[ProductId::gate_up] = {};
      if (sizes.config.moe_intermediate_size % kTileDepth != 0) candidate.accumulators[ProductId::down] = {};
    }
  }
  store_forward(candidate, forward, sizes);
  if (device.has_backward()) {
    const CublasBackward backward(sizes, options.contract, problem.previous);
    ASSAY_CUDA(cudaDeviceSynchronize());
    run_backward(device, forward, backward, cublas, stream);
    backward.verify_guards();
    forward.verify_guards();
    store_backward(candidate, backward, sizes);
  }
  device.verify_guards();
  return candidate;
}

}  // namespace

Candidate run_gpu_cublas(const Problem& problem, const GpuOptions& options) {
  return run(problem, options, "gpu_cublas", CublasCalls::OnePerExpert);
}

Candidate run_gpu_cublas_grouped(const Problem& problem, const GpuOptions& options) {
  return run(problem, options, "gpu_cublas_grouped", CublasCalls::Grouped);
}

}  // namespace assay
