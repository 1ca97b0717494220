// gpu_cublas: every forward stage of contract `hf` as a step of its own. Boring on purpose.
#include <vector>

#include "gpu/cublas.h"
#include "gpu/device_problem.h"
#include "gpu/pipeline.h"

namespace assay {

Candidate run_gpu_cublas(const Problem& problem, const GpuOptions& options) {
  using namespace gpu;
  if (options.contract != "hf") throw UsageError("expected contract hf for gpu_cublas, found " + options.contract);
  if (auto reason = gpu_unavailable()) throw InputError(*reason);
  const Sizes sizes = problem.sizes();
  if (auto reason = gpu_unsupported(sizes)) throw InputError(*reason);
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  const std::int64_t experts = sizes.config.num_experts;
  const std::int64_t slots = sizes.slots();

  const DeviceProblem device = upload(problem);
  const Stream stream;
  Cublas cublas(stream);
  const RoutingBuffers buffers(sizes);
  const Routing routing = buffers.view();
  const Buffer<bf16> logits("router_logits", sizes.tokens * experts);
  const Buffer<bf16> permuted("permuted input", slots * hidden);
  const Buffer<bf16> first_gemm("first_gemm", slots * 2 * inter);
  const Buffer<bf16> intermediate("intermediate", slots * inter);
  const Buffer<bf16> second_gemm("second_gemm", slots * hidden);
  const Buffer<bf16> unpermuted("hidden_states_unpermute", slots * hidden);
  const Buffer<bf16> out("hidden_states", sizes.tokens * hidden);
  ASSAY_CUDA(cudaDeviceSynchronize());  // poison is written on the default stream

  cublas.product(device.input.data(), device.gate.data(), logits.data(), sizes.tokens, experts, hidden);
  softmax_topk(logits.data(), routing, sizes, stream);
  order_by_expert(routing, sizes, stream);
  permute_rows(device.input.data(), routing.gather_indices, permuted.data(), sizes, stream);

  std::vector<std::int32_t> counts(static_cast<std::size_t>(experts));
  ASSAY_CUDA(cudaMemcpyAsync(counts.data(), routing.counts, counts.size() * sizeof(std::int32_t), cudaMemcpyDeviceToHost, stream));
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  std::int64_t row = 0;
  for (std::int64_t e = 0; e < experts; row += counts[static_cast<std::size_t>(e)], ++e)
    cublas.product(permuted.data() + row * hidden, device.gate_up_proj.data() + e * 2 * inter * hidden,
                   first_gemm.data() + row * 2 * inter, counts[static_cast<std::size_t>(e)], 2 * inter, hidden);
  swiglu(first_gemm.data(), intermediate.data(), sizes, stream);
  row = 0;
  for (std::int64_t e = 0; e < experts; row += counts[static_cast<std::size_t>(e)], ++e)
    cublas.product(intermediate.data() + row * inter, device.down_proj.data() + e * hidden * inter, second_gemm.data() + row * hidden,
                   counts[static_cast<std::size_t>(e)], hidden, inter);
  unpermute_rows(second_gemm.data(), routing.gather_indices, unpermuted.data(), sizes, stream);
  merge(unpermuted.data(), nullptr, routing.topk_weights, out.data(), true, sizes, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));

  buffers.verify_guards();
  for (const auto* buffer : {&logits, &permuted, &first_gemm, &intermediate, &second_gemm, &unpermuted, &out, &device.input,
                             &device.gate, &device.gate_up_proj, &device.down_proj})
    buffer->verify_guards();

  Candidate candidate = describe_candidate("gpu_cublas");
  candidate.provenance["cublas"] = cublas.version();
  // cuBLAS chooses its splits of K by shape.
  candidate.accumulators = {{AccumulatorKind::HopperAnySplit, {}}, {AccumulatorKind::HopperAnySplit, {}}, {AccumulatorKind::HopperAnySplit, {}}};
  if (!candidate.from_hopper()) candidate.accumulators = {};
  store_routing(candidate, buffers, sizes);
  store_field(candidate, Field::router_logits, logits, sizes);
  store_field(candidate, Field::first_gemm, first_gemm, sizes);
  store_field(candidate, Field::intermediate, intermediate, sizes);
  store_field(candidate, Field::second_gemm, second_gemm, sizes);
  store_field(candidate, Field::hidden_states_unpermute, unpermuted, sizes);
  store_field(candidate, Field::hidden_states, out, sizes);
  return candidate;
}

}  // namespace assay
