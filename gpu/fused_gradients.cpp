#include "gpu/fused_gradients.h"

namespace assay::gpu {
namespace {

bool rounds_as_hf(const GpuOptions& options) {
  return rounding_of(options.contract, "gpu_fused") == Rounding::Hf;
}

}  // namespace

FusedGradients::FusedGradients(const Sizes& sizes, const GpuOptions& options, const FieldSet& previous)
    : tiles("row tiles of the backward pass", max_row_tiles(sizes)),
      counters("tile counters of the backward pass", 1),
      d_rows("d_second_gemm", sizes.slots() * sizes.config.hidden_size),
      d_topk_weights("d_topk_weights", sizes.slots()),
      d_intermediate("d_intermediate",
                     elements_if(rounds_as_hf(options), sizes.slots(), sizes.config.moe_intermediate_size)),
      products("products of down's rows",
               elements_if(!rounds_as_hf(options), sizes.slots(), sizes.config.moe_intermediate_size)),
      weighted("weighted activations", elements_if(!rounds_as_hf(options) && !options.dX_only, sizes.slots(),
                                                   sizes.config.moe_intermediate_size)),
      d_down_proj("d_down_proj",
                  elements_if(!options.dX_only, sizes.config.num_experts * sizes.config.hidden_size,
                              sizes.config.moe_intermediate_size),
                  weight_gradient_options(Field::d_down_proj, options.contract, previous)),
      d_first_gemm("d_first_gemm", sizes.slots() * 2 * sizes.config.moe_intermediate_size),
      d_permuted("d_permuted_hidden_states",
                 elements_if(!options.dW_only, sizes.slots(), sizes.config.hidden_size)),
      d_gate_up_proj(
          "d_gate_up_proj",
          elements_if(!options.dX_only, sizes.config.num_experts * 2 * sizes.config.moe_intermediate_size,
                      sizes.config.hidden_size),
          weight_gradient_options(Field::d_gate_up_proj, options.contract, previous)),
      d_logits("d_router_logits", sizes.tokens * sizes.config.num_experts),
      d_logits_padded("d_router_logits in aligned rows",
                      sizes.tokens * padded_experts(sizes.config.num_experts)),
      d_gate("d_gate", elements_if(!options.dX_only, sizes.config.num_experts, sizes.config.hidden_size),
             weight_gradient_options(Field::d_gate, options.contract, previous)),
      d_experts("d_experts_hidden_states", elements_if(options.debug_fields && !options.dW_only, sizes.tokens,
                                                       sizes.config.hidden_size)),
      router_part("router's part of d_input_hidden_states",
                  elements_if(!options.dW_only, sizes.tokens, sizes.config.hidden_size)),
      d_input("d_input_hidden_states",
              elements_if(!options.dW_only, sizes.tokens, sizes.config.hidden_size)) {
  d_down_proj.upload_previous(Field::d_down_proj, previous, sizes);
  d_gate_up_proj.upload_previous(Field::d_gate_up_proj, previous, sizes);
  d_gate.upload_previous(Field::d_gate, previous, sizes);
}

template <class Self, class Visit>
void FusedGradients::for_each_buffer(Self& self, Visit visit) {
  visit(self.tiles);
  visit(self.counters);
  visit(self.products);
  for (auto* buffer : {&self.d_rows, &self.d_topk_weights, &self.d_intermediate, &self.weighted,
                       &self.d_first_gemm, &self.d_permuted, &self.d_logits, &self.d_logits_padded,
                       &self.d_experts, &self.router_part, &self.d_input})
    visit(*buffer);
  for (auto* weights : {&self.d_down_proj, &self.d_gate_up_proj, &self.d_gate}) visit(weights->bytes());
}

void FusedGradients::verify_guards() const {
  for_each_buffer(*this, [](const auto& buffer) { buffer.verify_guards(); });
}

void FusedGradients::poison() {
  for_each_buffer(*this, [](auto& buffer) { buffer.poison(); });
}

DeviceRouting FusedGradients::routing(const DeviceRouting& forward, bool wide) const {
  DeviceRouting mine = forward;
  mine.tiles = tiles.data();
  mine.counters = counters.data();
  mine.wide = wide;
  return mine;
}

std::vector<DeviceBytes> device_results(const FusedGradients& gradients) {
  std::vector<DeviceBytes> results = {bytes_of(gradients.products)};
  for (const auto* buffer :
       {&gradients.d_rows, &gradients.d_topk_weights, &gradients.d_intermediate, &gradients.weighted,
        &gradients.d_first_gemm, &gradients.d_permuted, &gradients.d_logits, &gradients.d_experts,
        &gradients.router_part, &gradients.d_input})
    results.push_back(bytes_of(*buffer));
  for (const auto* weights : {&gradients.d_down_proj, &gradients.d_gate_up_proj, &gradients.d_gate})
    results.push_back(bytes_of(weights->bytes()));
  return results;
}

std::vector<unsigned char> results(const FusedGradients& gradients) {
  return download(device_results(gradients));
}

}  // namespace assay::gpu
