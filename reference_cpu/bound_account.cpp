#include "reference_cpu/bound_account.h"

#include <algorithm>

#include <fmt/format.h>

#include "reference_cpu/product/element_bound.h"
#include "reference_cpu/product/layer_product.h"

namespace assay {
namespace {

/// Both bounds of some elements [rows, n] of a product.
std::vector<BoundPair> pairs_of(ProductId id, const Layer& layer, const Values<Bounded>* left,
                                std::span<const std::int64_t> elements) {
  const auto prepared = prepare_product<Bounded>(id, layer, left);
  const auto& product = prepared.product;
  const auto k = static_cast<std::size_t>(product.k);
  std::vector<BoundPair> pairs;
  for (const auto element : elements) {
    const std::int64_t r = element / product.n;
    const auto group = std::ranges::upper_bound(prepared.offsets, r) - prepared.offsets.begin() - 1;
    const auto source = static_cast<std::size_t>(prepared.source[static_cast<std::size_t>(r)]);
    const auto a = product.left.subspan(source * k, k);
    const ExpertMatrix matrix = product.weights(group);
    const auto b = matrix.values.subspan(static_cast<std::size_t>(element % product.n) * k, k);
    const ElementBound bound = element_bound(product.accumulator, product.unit_roundoff, a, b);
    pairs.push_back(
        {bound.magnitude, bound.a_priori, bound.ordered ? std::optional(bound.running) : std::nullopt});
  }
  return pairs;
}

BoundAccount words_of(Field field, const Layer& layer) {
  const PrecisionContract& contract = *layer.contract;
  const MoeConfig& config = layer.config();
  switch (find_step(field)->kind) {
    case StepKind::Weights:
      return {fmt::format("expf to {} ulp and its rounded arguments, in numerator and sum; a sum of {} terms "
                          "in any order; two divisions",
                          contract.expf_ulps, config.norm_topk_prob ? config.top_k : config.num_experts),
              "none: this bound serves every order",
              {}};
    case StepKind::Swiglu:
      return {
          fmt::format("expf to {} ulp, an addition and a division, (1 - sigma(a)) e_exp + 2 u of the value{}",
                      contract.expf_ulps,
                      contract.silu == Store::Bf16 ? "; the rounding of silu(a) to bf16 is replayed" : ""),
          "none: there is no sum",
          {}};
    case StepKind::Unpermute: return {"none of its own: a copy", "none: there is no sum", {}};
    default:
      if (contract.combine == Combine::Bf16ByExpert)
        return {fmt::format("none of its own: {} additions in ascending expert order, each a declared "
                            "rounding to bf16 that is replayed",
                            config.top_k),
                "none: the order is part of the contract",
                {}};
      return {fmt::format("gamma_{} sum |w y| for adding {} products in any order{}",
                          slot_sum_length(contract, config.top_k), config.top_k,
                          contract.weighted == Store::Unrounded
                              ? ", or as one product of weights and rows on a tensor core"
                              : ""),
              "none: this bound serves every order",
              {}};
  }
}

}  // namespace

BoundAccount bound_account(Field field, const Layer& layer, const Values<Bounded>* left, bool carries,
                           std::span<const std::int64_t> elements) {
  BoundAccount account;
  const double u = layer.contract->product_unit_roundoff();
  if (const auto product = product_of(field)) {
    if (!elements.empty()) account.elements = pairs_of(*product, layer, left, elements);
    // An operand carried along may be exact all the same: where no error of the stages before survives their
    // roundings.
    const bool exact =
        upstream_of(field).empty() || !carries ||
        std::ranges::any_of(account.elements, [](const BoundPair& e) { return e.running.has_value(); });
    const std::int64_t k = extent(row(*product).summed, layer.problem->sizes());
    account.a_priori = a_priori_words(k, u);
    account.running = running_words(layer.declared[*product], k, u, exact);
  } else {
    account = words_of(field, layer);
  }
  if (carries) account.a_priori += "; and what the stages before allow, carried along";
  return account;
}

}  // namespace assay
