#include "gpu/cublas_layer.h"

namespace assay::gpu {
namespace {

// out[row] = a[row] b[expert of the row]^T. a [S, k] and out [S, n] in expert order, b [E, n, k].
void expert_products(Cublas& cublas, CublasCalls calls, const bf16* a, const bf16* b, bf16* out,
                     const std::vector<std::int32_t>& counts, std::int64_t n, std::int64_t k,
                     cudaStream_t stream) {
  if (calls == CublasCalls::Grouped) {
    const GroupedOperands operands = grouped_operands(a, b, out, counts, n, k);
    ASSAY_CUDA(cudaDeviceSynchronize());  // the operands are uploaded on the default stream
    cublas.grouped_product(operands, n, k);
    ASSAY_CUDA(cudaStreamSynchronize(stream));  // and freed when they are no longer read
    return;
  }
  std::int64_t row = 0;
  for (std::size_t expert = 0; expert < counts.size(); row += counts[expert], ++expert)
    cublas.product({a + row * k}, {b + static_cast<std::int64_t>(expert) * n * k}, out + row * n,
                   counts[expert], n, k);
}

}  // namespace

CublasForward::CublasForward(const Sizes& sizes)
    : routing(sizes),
      logits("router_logits", sizes.tokens * sizes.config.num_experts),
      permuted("permuted input", sizes.slots() * sizes.config.hidden_size),
      first_gemm("first_gemm", sizes.slots() * 2 * sizes.config.moe_intermediate_size),
      intermediate("intermediate", sizes.slots() * sizes.config.moe_intermediate_size),
      second_gemm("second_gemm", sizes.slots() * sizes.config.hidden_size),
      unpermuted("hidden_states_unpermute", sizes.slots() * sizes.config.hidden_size),
      out("hidden_states", sizes.tokens * sizes.config.hidden_size),
      counts(static_cast<std::size_t>(sizes.config.num_experts)) {}

void CublasForward::verify_guards() const {
  routing.verify_guards();
  for (const auto* buffer : {&logits, &permuted, &first_gemm, &intermediate, &second_gemm, &unpermuted, &out})
    buffer->verify_guards();
}

void run_forward(const DeviceProblem& problem, CublasForward& forward, Cublas& cublas, CublasCalls calls,
                 cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  const DeviceRouting routing = forward.routing.view();
  cublas.product({problem.input.data()}, {problem.gate.data()}, forward.logits.data(), sizes.tokens,
                 sizes.config.num_experts, hidden);
  softmax_topk(forward.logits.data(), routing, sizes, stream);
  order_by_expert(routing, sizes, stream);
  permute_rows(problem.input.data(), routing.row_of_slot, forward.permuted.data(), sizes, stream);

  ASSAY_CUDA(cudaMemcpyAsync(forward.counts.data(), routing.counts,
                             forward.counts.size() * sizeof(std::int32_t), cudaMemcpyDeviceToHost, stream));
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  expert_products(cublas, calls, forward.permuted.data(), problem.gate_up_proj.data(),
                  forward.first_gemm.data(), forward.counts, 2 * inter, hidden, stream);
  swiglu(forward.first_gemm.data(), forward.intermediate.data(), sizes, stream);
  expert_products(cublas, calls, forward.intermediate.data(), problem.down_proj.data(),
                  forward.second_gemm.data(), forward.counts, hidden, inter, stream);
  unpermute_rows(forward.second_gemm.data(), routing.gather_indices, forward.unpermuted.data(), sizes,
                 stream);
  merge(forward.unpermuted.data(), nullptr, routing.topk_weights, forward.out.data(), Rounding::Hf, sizes,
        stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
}

}  // namespace assay::gpu
