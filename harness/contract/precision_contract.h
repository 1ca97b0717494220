// Where an implementation rounds. Two correct implementations differ there, so it is declared and never
// swallowed by a tolerance.
#pragma once

#include <array>
#include <span>
#include <string_view>

namespace assay {

enum class Store { Unrounded, Bf16 };  // what happens to a value at a rounding point
enum class Combine {
  Fp32Sum,
  Bf16ByExpert
};  // slots summed in fp32 and rounded once; or K bf16 adds in ascending expert order
enum class TieRule { Any, LowestIndex };  // order and choice among equal probabilities

/// "any", "lowest_index", as written in files.
std::string_view name(TieRule rule);
/// Reads what `name` writes. Throws UsageError listing the valid rules.
TieRule parse_tie_rule(std::string_view text);

/// One member per rounding point of the forward layer (design section 3).
struct PrecisionContract {
  std::string_view name;
  std::string_view summary;
  Store logits;   // before the fp32 softmax
  Store weights;  // after renormalisation
  Store first_gemm;
  Store silu;  // before the product with the up half
  Store intermediate;
  Store second_gemm;
  Store weighted;  // weight * value, before the sum over slots
  Store output;
  Combine combine;
  Combine d_input_combine;
  TieRule ties;
  double expf_ulps;      // largest error of expf: CUDA programming guide, mathematical functions (2 ulp)
  double unit_roundoff;  // of the products' and sums' accumulators: 2^-24 for fp32
  double product_slack =
      1.0;  // of products' a-priori bounds: 2 on tensor cores that align 8 products (candidate.h)
  double product_unit_roundoff() const { return product_slack * unit_roundoff; }
};

// clang-format off
inline constexpr std::array<PrecisionContract, 5> kContracts = {{
  {"hf",         "HuggingFace grouped_mm and Unsloth's torch reference: everything stored is bf16, slots summed in fp32",
   Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16,
   Combine::Fp32Sum, Combine::Bf16ByExpert, TieRule::Any, 2.0, 0x1p-24},
  {"hf_eager",   "HuggingFace eager: slots combined by bf16 adds in ascending expert order",
   Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16,
   Combine::Bf16ByExpert, Combine::Bf16ByExpert, TieRule::Any, 2.0, 0x1p-24},
  {"hf_fp32_merge", "hf, but weight times value stays fp32 in the sum over slots: the merge is a product of weights and rows",
   Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Bf16, Store::Unrounded, Store::Bf16,
   Combine::Fp32Sum, Combine::Bf16ByExpert, TieRule::Any, 2.0, 0x1p-24},
  {"fused_fp32", "a kernel that keeps SwiGLU and the merge in fp32 registers",
   Store::Bf16, Store::Bf16, Store::Unrounded, Store::Unrounded, Store::Bf16, Store::Bf16, Store::Unrounded, Store::Bf16,
   Combine::Fp32Sum, Combine::Fp32Sum, TieRule::Any, 2.0, 0x1p-24},
  {"fp64",       "float64 but for the softmax, routing replayed: the exporter's oracle",
   Store::Unrounded, Store::Unrounded, Store::Unrounded, Store::Unrounded, Store::Unrounded, Store::Unrounded, Store::Unrounded, Store::Unrounded,
   Combine::Fp32Sum, Combine::Fp32Sum, TieRule::Any, 2.0, 0x1p-53},
}};
// clang-format on

inline constexpr auto kContractNames = [] {
  std::array<std::string_view, kContracts.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kContracts[i].name;
  return names;
}();
/// Those that a kernel can follow: all but the last, the oracle's.
inline constexpr std::span<const std::string_view> kKernelContracts =
    std::span(kContractNames).first<kContracts.size() - 1>();
static_assert(kContracts.back().name == "fp64");

/// The contract of that name. Throws UsageError listing the valid names.
const PrecisionContract& find_contract(std::string_view name);

}  // namespace assay
