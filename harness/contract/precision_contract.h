// Where an implementation rounds. Two correct implementations differ there, so it is declared and never
// swallowed by a tolerance.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

namespace assay {

enum class Store { Unrounded, Bf16 };  // what happens to a value at a rounding point
enum class Combine {
  Fp32Sum,                 // slots summed in fp32 and rounded once
  Bf16ByExpert,            // K bf16 adds that start from 0, in ascending expert order
  Bf16ByExpertDescending,  // the same, the last expert first
  Bf16AnyOrder,            // the same, slot by slot as they arrive: whatever some order gives
};
/// In which order a weight gradient's sum takes the rows of an expert: as they stand in expert order, or slot
/// by slot (all tokens of slot 0, then those of slot 1, ...). Moves bits, never bounds.
enum class RowOrder { Ascending, BySlot };
/// Where a step finds a value that is stored as well.
enum class From {
  Memory,     // as it is stored
  Registers,  // before that rounding
};
/// Where a slot's weight enters the gradients behind it.
enum class WeightSide {
  OutputGradient,  // d_second_gemm = weight * d_hidden_states is stored, and both gradients of down read it
  // d_intermediate is the fp32 sum of d_hidden_states and down_proj times the weight, kept in registers
  // through SwiGLU's gradient; d_down_proj sums d_hidden_states times rb(weight * activation), the activation
  // recomputed in fp32 from first_gemm as stored. d_second_gemm is never formed.
  AfterProduct,
};
/// What d_topk_weights is summed from, for each slot.
enum class WeightGradientFrom {
  OutputDotRow,  // d_hidden_states * second_gemm, over H
  // Activation * (d_hidden_states down_proj), over I, both in fp32: the activation recomputed from first_gemm
  // as stored, the product before the weight. In the order of row_sum_quad.h.
  Activation,
};
enum class TieRule { Any, LowestIndex };       // order and choice among equal probabilities
enum class ExpertRowOrder { Ascending, Any };  // of an expert's slots, in fields in expert order

/// "any", "lowest_index", as written in files.
std::string_view name(TieRule rule);
/// Reads what `name` writes. Throws UsageError listing the valid rules.
TieRule parse_tie_rule(std::string_view text);

/// One member per rounding point of the layer. Unless a row says otherwise it is HuggingFace's: everything
/// stored is bf16, slots are summed in fp32, slots of the input's gradient are added in bf16. A weight's
/// gradient is the product, or where the problem has gradients of before (Problem::previous) the product
/// added to them in fp32. That a slot's dX is summed in two halves is an accumulator's matter:
/// hopper_split(I).
struct PrecisionContract {
  std::string_view name;
  std::string_view summary;
  // Not rounded, router_logits and topk_weights are stored in float32, and read so.
  Store logits = Store::Bf16;   // before the choice and the fp32 softmax
  Store weights = Store::Bf16;  // after renormalisation
  Store first_gemm = Store::Bf16;
  From swiglu_reads = From::Memory;  // first_gemm, in forward
  Store silu = Store::Bf16;          // before the product with the up half
  Store intermediate = Store::Bf16;
  Store second_gemm = Store::Bf16;
  Store weighted = Store::Bf16;  // weight * value, before the sum over slots
  Store output = Store::Bf16;
  Combine combine = Combine::Fp32Sum;
  // Backward.
  WeightSide weight_side = WeightSide::OutputGradient;
  WeightGradientFrom d_weights_from = WeightGradientFrom::OutputDotRow;
  Store d_weighted = Store::Bf16;  // d_hidden_states * second_gemm, before d_topk_weights sums it over H
  Store d_silu = Store::Bf16;      // d_intermediate * up half, before the derivative of silu
  Combine d_input_combine = Combine::Bf16ByExpert;  // slots of d_experts_hidden_states
  Store d_logits = Store::Bf16;                     // d_router_logits, stored: bf16 or, unrounded, float32
  Store weight_gradients = Store::Bf16;             // d_gate_up_proj, d_down_proj, d_gate, stored: bf16
                                                    // or, unrounded, float32
  RowOrder weight_gradient_rows = RowOrder::Ascending;  // of an expert
  Store gradients = Store::Bf16;                        // all others, stored, and the router's part of dX
  TieRule ties = TieRule::Any;
  // Largest error of expf: CUDA programming guide, mathematical functions.
  double expf_ulps = 2.0;
  // Of the products' and sums' accumulators: 2^-24 for fp32.
  double unit_roundoff = 0x1p-24;
  // Of products' a-priori bounds: 2 on tensor cores that align 8 products (candidate.h).
  double product_slack = 1.0;
  Store weight_products = Store::Bf16;  // of weight gradients, before they are added to gradients of before
  double product_unit_roundoff() const { return product_slack * unit_roundoff; }
};

inline constexpr std::array<PrecisionContract, 15> kContracts = {{
    {.name = "hf",
     .summary = "HuggingFace grouped_mm and Unsloth's torch reference: everything stored is bf16, slots "
                "summed in fp32"},
    {.name = "hf_eager",
     .summary = "HuggingFace eager: slots combined by bf16 adds in ascending expert order",
     .combine = Combine::Bf16ByExpert,
     .d_input_combine = Combine::Bf16ByExpertDescending,
     .weight_gradient_rows = RowOrder::BySlot},
    {.name = "hf_fp32_merge",
     .summary = "hf, but weight times value stays fp32 in the sum over slots: the merge is a product of "
                "weights and rows",
     .weighted = Store::Unrounded,
     .d_weighted = Store::Unrounded,
     .d_input_combine = Combine::Fp32Sum},
    {.name = "fused_fp32",
     .summary = "a kernel that keeps SwiGLU and the merge in fp32 registers; backward reads first_gemm "
                "alone, and applies the weight after the product",
     .swiglu_reads = From::Registers,
     .silu = Store::Unrounded,
     .weighted = Store::Unrounded,
     .weight_side = WeightSide::AfterProduct,
     .d_weights_from = WeightGradientFrom::Activation,
     .d_weighted = Store::Unrounded,
     .d_silu = Store::Unrounded,
     .d_input_combine = Combine::Fp32Sum},
    {.name = "unsloth",
     .summary = "Unsloth's Triton kernels: hf, but slots of the input's gradient are summed in fp32",
     .d_input_combine = Combine::Fp32Sum},
    {.name = "flashinfer_fused",
     .summary = "FlashInfer's fused mode: fp32 up to the weighted row, which is added to the output in bf16, "
                "slot by slot as they arrive",
     .swiglu_reads = From::Registers,
     .silu = Store::Unrounded,
     .second_gemm = Store::Unrounded,
     .combine = Combine::Bf16AnyOrder,
     .d_silu = Store::Unrounded},
    {.name = "fp32_logits",
     .summary = "hf, but router_logits stay float32, and the choice and the softmax read them so",
     .logits = Store::Unrounded,
     .d_logits = Store::Unrounded},
    {.name = "vllm",
     .summary = "vLLM's Triton layer, by reading: hf, but topk_weights stay float32 and weigh the second "
                "product before its one rounding",
     .weights = Store::Unrounded,
     .second_gemm = Store::Unrounded},
    {.name = "vllm_fp32_logits",
     .summary = "vllm behind a gate that hands on float32 logits, by reading",
     .logits = Store::Unrounded,
     .weights = Store::Unrounded,
     .second_gemm = Store::Unrounded,
     .d_logits = Store::Unrounded},
    {.name = "sglang",
     .summary = "SGLang's Triton layer, by reading: vllm, but silu stays fp32",
     .weights = Store::Unrounded,
     .silu = Store::Unrounded,
     .second_gemm = Store::Unrounded,
     .d_silu = Store::Unrounded},
    {.name = "sglang_fp32_logits",
     .summary = "sglang behind a gate that hands on float32 logits, by reading",
     .logits = Store::Unrounded,
     .weights = Store::Unrounded,
     .silu = Store::Unrounded,
     .second_gemm = Store::Unrounded,
     .d_silu = Store::Unrounded,
     .d_logits = Store::Unrounded},
    {.name = "hf_in_place_grads",
     .summary = "hf, but weight gradients are added to those of before in the kernel: fp32 accumulator plus "
                "bf16, rounded once",
     .weight_products = Store::Unrounded},
    {.name = "hf_added_main_grads",
     .summary = "hf with float32 weight gradients (main_grad), to which each pass's bf16 ones are added",
     .weight_gradients = Store::Unrounded},
    {.name = "hf_main_grads",
     .summary =
         "hf with float32 weight gradients (main_grad), in which the kernels accumulate: never rounded "
         "to bf16",
     .weight_gradients = Store::Unrounded,
     .weight_products = Store::Unrounded},
    {.name = "fp64",
     .summary = "float64 but for the softmax, routing replayed: the exporter's oracle",
     .logits = Store::Unrounded,
     .weights = Store::Unrounded,
     .first_gemm = Store::Unrounded,
     .silu = Store::Unrounded,
     .intermediate = Store::Unrounded,
     .second_gemm = Store::Unrounded,
     .weighted = Store::Unrounded,
     .output = Store::Unrounded,
     .d_weighted = Store::Unrounded,
     .d_silu = Store::Unrounded,
     .d_input_combine = Combine::Fp32Sum,
     .d_logits = Store::Unrounded,
     .weight_gradients = Store::Unrounded,
     .gradients = Store::Unrounded,
     .unit_roundoff = 0x1p-53,
     .weight_products = Store::Unrounded},
}};

inline constexpr auto kContractNames = [] {
  std::array<std::string_view, kContracts.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kContracts[i].name;
  return names;
}();
/// Those that a kernel can follow: all but the last, the oracle's.
inline constexpr std::span<const std::string_view> kKernelContracts =
    std::span(kContractNames).first<kContracts.size() - 1>();
static_assert(kContracts.back().name == "fp64");
static_assert(std::ranges::all_of(kContracts,
                                  [](const PrecisionContract& contract) {
                                    return contract.d_weights_from != WeightGradientFrom::Activation ||
                                           contract.weight_side == WeightSide::AfterProduct;
                                  }),
              "only a product without the weight in it gives the weight's gradient");

/// The contract of that name. Throws UsageError listing the valid names.
const PrecisionContract& find_contract(std::string_view name);

}  // namespace assay
