// gpu_cublas and gpu_cublas_grouped: every forward stage of contract `hf` as a step of its own. Boring on
// purpose. The experts' products are one cuBLAS call each, or one grouped call for all.
#include <vector>

#include "gpu/cublas.h"
#include "gpu/device_problem.h"
#include "gpu/pipeline.h"

namespace assay {
namespace {

using namespace gpu;

enum class Calls { OnePerExpert, Grouped };

// out[row] = a[row] b[expert of the row]^T. a [S, k] and out [S, n] in expert order, b [E, n, k].
void expert_products(Cublas& cublas, Calls calls, const bf16* a, const bf16* b, bf16* out,
                     const std::vector<std::int32_t>& counts, std::int64_t n, std::int64_t k,
                     cudaStream_t stream) {
  if (calls == Calls::Grouped) {
    const GroupedOperands operands = grouped_operands(a, b, out, counts, n, k);
    ASSAY_CUDA(cudaDeviceSynchronize());  // the operands are uploaded on the default stream
    cublas.grouped_product(operands, n, k);
    ASSAY_CUDA(cudaStreamSynchronize(stream));  // and freed when they are no longer read
    return;
  }
  std::int64_t row = 0;
  for (std::size_t expert = 0; expert < counts.size(); row += counts[expert], ++expert)
    cublas.product(a + row * k, b + static_cast<std::int64_t>(expert) * n * k, out + row * n, counts[expert],
                   n, k);
}

Candidate run(const Problem& problem, const GpuOptions& options, const std::string& name, Calls calls) {
  if (rounding_of(options.contract, name) != Rounding::Hf)
    throw UsageError("expected contract hf for " + name + ", found " + options.contract);
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
  const DeviceRouting routing = buffers.view();
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
  ASSAY_CUDA(cudaMemcpyAsync(counts.data(), routing.counts, counts.size() * sizeof(std::int32_t),
                             cudaMemcpyDeviceToHost, stream));
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  expert_products(cublas, calls, permuted.data(), device.gate_up_proj.data(), first_gemm.data(), counts,
                  2 * inter, hidden, stream);
  swiglu(first_gemm.data(), intermediate.data(), sizes, stream);
  expert_products(cublas, calls, intermediate.data(), device.down_proj.data(), second_gemm.data(), counts,
                  hidden, inter, stream);
  unpermute_rows(second_gemm.data(), routing.gather_indices, unpermuted.data(), sizes, stream);
  merge(unpermuted.data(), nullptr, routing.topk_weights, out.data(), Rounding::Hf, sizes, stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));

  buffers.verify_guards();
  for (const auto* buffer : {&logits, &permuted, &first_gemm, &intermediate, &second_gemm, &unpermuted, &out,
                             &device.input, &device.gate, &device.gate_up_proj, &device.down_proj})
    buffer->verify_guards();

  Candidate candidate = describe_candidate(name);
  candidate.provenance["cublas"] = cublas.version();
  // cuBLAS chooses its splits of K by shape.
  if (candidate.from_hopper())
    candidate.accumulators = every_product({AccumulatorKind::HopperAnySplit, {}}, true);
  store_routing(candidate, buffers, sizes);
  store_field(candidate, Field::router_logits, logits, sizes);
  store_field(candidate, Field::first_gemm, first_gemm, sizes);
  store_field(candidate, Field::intermediate, intermediate, sizes);
  store_field(candidate, Field::second_gemm, second_gemm, sizes);
  store_field(candidate, Field::hidden_states_unpermute, unpermuted, sizes);
  store_field(candidate, Field::hidden_states, out, sizes);
  return candidate;
}

}  // namespace

Candidate run_gpu_cublas(const Problem& problem, const GpuOptions& options) {
  return run(problem, options, "gpu_cublas", Calls::OnePerExpert);
}

Candidate run_gpu_cublas_grouped(const Problem& problem, const GpuOptions& options) {
  return run(problem, options, "gpu_cublas_grouped", Calls::Grouped);
}

}  // namespace assay
