// The backward pass, from the output's gradient to the input's, in the order in which autograd walks it.
#include <algorithm>

#include "gpu/cublas_layer.h"

namespace assay::gpu {
namespace {

// d_rows[r] = rb(d_out[r] W[expert of the row]): the gradient of a product's rows. d_out [S, n] and d_rows
// [S, k] in expert order, weights [E, n, k]; sums over n.
void gradients_of_rows(Cublas& cublas, const bf16* d_out, const bf16* weights, bf16* d_rows,
                       const std::vector<std::int32_t>& counts, std::int64_t n, std::int64_t k) {
  std::int64_t row = 0;
  for (std::size_t expert = 0; expert < counts.size(); row += counts[expert], ++expert)
    cublas.product({d_out + row * n}, {weights + static_cast<std::int64_t>(expert) * n * k, Lies::AlongRows},
                   d_rows + row * k, counts[expert], k, n);
}

// The gradient of one weight: the sum over `rows` rows of d_out[r] x[r]^T, d_out [rows, n], x [rows, k]. It
// is [n, k] and begins at element `first` of d_weight.
void gradient_of_weight(Cublas& cublas, const bf16* d_out, const bf16* x,
                        const WeightGradientBuffer& d_weight, std::int64_t first, float* product,
                        std::int64_t n, std::int64_t k, std::int64_t rows, cudaStream_t stream) {
  const WeightGradient to = d_weight.view();
  if (adds(to.store) && rows == 0) return;  // what was there stays
  const Operand a{d_out, Lies::AlongRows};
  const Operand b{x, Lies::AlongRows};
  if (to.store == GradientStore::Bf16) {
    cublas.product(a, b, static_cast<bf16*>(to.values) + first, n, k, rows);
    return;
  }
  cublas.product(a, b, product, n, k, rows);
  keep_gradient(product, to, first, n * k, stream);
}

// d_out [S, n] and rows [S, k] in expert order, d_weights [E, n, k].
void gradients_of_weights(Cublas& cublas, const bf16* d_out, const bf16* rows,
                          const WeightGradientBuffer& d_weights, float* product,
                          const std::vector<std::int32_t>& counts, std::int64_t n, std::int64_t k,
                          cudaStream_t stream) {
  std::int64_t row = 0;
  for (std::size_t expert = 0; expert < counts.size(); row += counts[expert], ++expert)
    gradient_of_weight(cublas, d_out + row * n, rows + row * k, d_weights,
                       static_cast<std::int64_t>(expert) * n * k, product, n, k, counts[expert], stream);
}

// The largest matrix of one expert, or the router's.
std::int64_t most_weights(const MoeConfig& config) {
  return std::max(2 * config.moe_intermediate_size, config.num_experts) * config.hidden_size;
}

}  // namespace

CublasBackward::CublasBackward(const Sizes& sizes, std::string_view contract, const FieldSet& previous)
    : d_second_gemm("d_second_gemm", sizes.slots() * sizes.config.hidden_size),
      d_topk_weights("d_topk_weights", sizes.slots()),
      d_intermediate("d_intermediate", sizes.slots() * sizes.config.moe_intermediate_size),
      d_down_proj("d_down_proj",
                  sizes.config.num_experts * sizes.config.hidden_size * sizes.config.moe_intermediate_size,
                  weight_gradient_options(Field::d_down_proj, contract, previous)),
      d_first_gemm("d_first_gemm", sizes.slots() * 2 * sizes.config.moe_intermediate_size),
      d_permuted("d_permuted_hidden_states", sizes.slots() * sizes.config.hidden_size),
      d_gate_up_proj(
          "d_gate_up_proj",
          sizes.config.num_experts * 2 * sizes.config.moe_intermediate_size * sizes.config.hidden_size,
          weight_gradient_options(Field::d_gate_up_proj, contract, previous)),
      d_logits("d_router_logits", sizes.tokens * sizes.config.num_experts),
      d_gate("d_gate", sizes.config.num_experts * sizes.config.hidden_size,
             weight_gradient_options(Field::d_gate, contract, previous)),
      d_experts("d_experts_hidden_states", sizes.tokens * sizes.config.hidden_size),
      router_part("router's part of d_input_hidden_states", sizes.tokens * sizes.config.hidden_size),
      d_input("d_input_hidden_states", sizes.tokens * sizes.config.hidden_size),
      product("a weight's product", elements_if(scratch(), 1, most_weights(sizes.config))) {
  d_down_proj.upload_previous(Field::d_down_proj, previous, sizes);
  d_gate_up_proj.upload_previous(Field::d_gate_up_proj, previous, sizes);
  d_gate.upload_previous(Field::d_gate, previous, sizes);
}

bool CublasBackward::scratch() const {
  for (const auto* weights : {&d_down_proj, &d_gate_up_proj, &d_gate})
    if (weights->view().store != GradientStore::Bf16) return true;
  return false;
}

void CublasBackward::verify_guards() const {
  for (const auto* buffer : {&d_second_gemm, &d_topk_weights, &d_intermediate, &d_first_gemm, &d_permuted,
                             &d_logits, &d_experts, &router_part, &d_input})
    buffer->verify_guards();
  for (const auto* weights : {&d_down_proj, &d_gate_up_proj, &d_gate}) weights->bytes().verify_guards();
  product.verify_guards();
}

void run_backward(const DeviceProblem& problem, const CublasForward& forward, const CublasBackward& backward,
                  Cublas& cublas, cudaStream_t stream) {
  const Sizes& sizes = problem.sizes;
  const std::int64_t hidden = sizes.config.hidden_size;
  const std::int64_t inter = sizes.config.moe_intermediate_size;
  const std::int64_t experts = sizes.config.num_experts;
  const DeviceRouting routing = forward.routing.view();
  const auto& counts = forward.counts;
  ASSAY_CHECK(problem.d_out.size() == sizes.tokens * hidden, "expected a gradient of the layer's output");

  merge_grad_rows(problem.d_out.data(), routing.topk_weights, routing.gather_indices,
                  backward.d_second_gemm.data(), sizes, stream);
  merge_grad_weights(problem.d_out.data(), forward.unpermuted.data(), nullptr, backward.d_topk_weights.data(),
                     Rounding::Hf, sizes, stream);

  gradients_of_rows(cublas, backward.d_second_gemm.data(), problem.down_proj.data(),
                    backward.d_intermediate.data(), counts, hidden, inter);
  gradients_of_weights(cublas, backward.d_second_gemm.data(), forward.intermediate.data(),
                       backward.d_down_proj, backward.product.data(), counts, hidden, inter, stream);

  swiglu_grad(backward.d_intermediate.data(), forward.first_gemm.data(), backward.d_first_gemm.data(), sizes,
              stream);

  gradients_of_rows(cublas, backward.d_first_gemm.data(), problem.gate_up_proj.data(),
                    backward.d_permuted.data(), counts, 2 * inter, hidden);
  gradients_of_weights(cublas, backward.d_first_gemm.data(), forward.permuted.data(), backward.d_gate_up_proj,
                       backward.product.data(), counts, 2 * inter, hidden, stream);

  softmax_topk_grad(forward.logits.data(), routing.selected_experts, backward.d_topk_weights.data(),
                    backward.d_logits.data(), nullptr, sizes, stream);
  gradient_of_weight(cublas, backward.d_logits.data(), problem.input.data(), backward.d_gate, 0,
                     backward.product.data(), experts, hidden, sizes.tokens, stream);

  combine(backward.d_permuted.data(), routing.row_of_slot, backward.d_experts.data(), Rounding::Hf, sizes,
          stream);
  cublas.product({backward.d_logits.data()}, {problem.gate.data(), Lies::AlongRows},
                 backward.router_part.data(), sizes.tokens, hidden, experts);
  add_router_part(backward.d_experts.data(), backward.router_part.data(), backward.d_input.data(), sizes,
                  stream);
  ASSAY_CUDA(cudaStreamSynchronize(stream));
}

}  // namespace assay::gpu
