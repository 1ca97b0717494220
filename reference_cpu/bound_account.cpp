#include "reference_cpu/bound_account.h"

#include <algorithm>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "reference_cpu/product/element_bound.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

BoundPair pair_of(const ElementBound& bound) {
  return {bound.magnitude, bound.a_priori, bound.ordered ? std::optional(bound.running) : std::nullopt};
}

/// Both bounds of some elements [rows, n] of a product that sums over rows.
std::vector<BoundPair> pairs_of_gradient(ProductId id, const Layer& layer, const Values<Bounded>* left,
                                         const Values<Bounded>* right,
                                         std::span<const std::int64_t> elements) {
  const Sizes sizes = layer.problem->sizes();
  const std::int64_t n = width_of(row(id).made, sizes);
  const std::int64_t rows_of_matrix = width_of(row(id).left, sizes);
  std::vector<BoundPair> pairs;
  std::int64_t at = -1;
  PreparedProduct<Bounded> prepared;
  std::vector<Interval> b;
  for (const auto element : elements) {
    if (const std::int64_t r = element / n; r != at) {  // elements of one row come one after the other
      const std::int64_t in_matrix = r % rows_of_matrix;
      prepared = prepare_weight_gradient<Bounded>(id, layer, r / rows_of_matrix, {in_matrix, in_matrix + 1},
                                                  left, right);
      at = r;
    }
    b.clear();
    for (std::int64_t k = 0; k < prepared.product.k; ++k)
      b.push_back(prepared.right[static_cast<std::size_t>(k * n + element % n)]);
    pairs.push_back(pair_of(element_bound(prepared.product.accumulator, prepared.product.unit_roundoff,
                                          prepared.product.left, std::span<const Interval>(b))));
  }
  return pairs;
}

/// Both bounds of some elements [rows, n] of any other product.
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
    const auto b = right_column(id, product.weights(group), product.k, product.n, element % product.n);
    pairs.push_back(
        pair_of(element_bound(product.accumulator, product.unit_roundoff, a, std::span<const Bf16>(b))));
  }
  return pairs;
}

BoundAccount any_order_words(std::int64_t top_k) {
  return {
      fmt::format("none of its own: {} additions to bf16 in any order, each rounding replayed in every order",
                  top_k),
      "none: this bound serves every order",
      {}};
}

BoundAccount words_of(Field field, const Layer& layer) {
  const PrecisionContract& contract = *layer.contract;
  const MoeConfig& config = layer.config();
  switch (find_step(field, contract)->kind) {
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
    case StepKind::WeightedRows:
      return {"none of its own: a product of two stored values", "none: there is no sum", {}};
    case StepKind::RowDots:
      return {fmt::format(
                  "C(n) sum |d y| for adding n = {} products in any order{}", config.hidden_size,
                  contract.d_weighted == Store::Bf16 ? "; the rounding of products to bf16 is replayed" : ""),
              "none: this bound serves every order",
              {}};
    case StepKind::ActivationDots:
      return {
          fmt::format("C(n) sum |a p| for adding n = {} products in any order, each rounded or fused with "
                      "its addition; what silu and the product p, which is in no memory, allow, carried "
                      "along",
                      config.moe_intermediate_size),
          "none: this bound serves every order",
          {}};
    case StepKind::SwigluGrad:
      return {
          fmt::format("expf to {} ulp, an addition and a division in sigma(a), and six more operations of "
                      "2^-24 each{}",
                      contract.expf_ulps,
                      contract.d_silu == Store::Bf16
                          ? "; the rounding of the gradient times the up half to bf16 is replayed"
                          : ""),
          "none: there is no sum",
          {}};
    case StepKind::SoftmaxGrad:
      return {
          fmt::format("expf to {} ulp and its rounded arguments; sums of {} and of {} terms in any order; "
                      "divisions and products of 2^-24 each",
                      contract.expf_ulps, config.top_k, config.num_experts),
          "none: this bound serves every order",
          {}};
    case StepKind::Combine:
      if (contract.d_input_combine == Combine::Bf16AnyOrder) return any_order_words(config.top_k);
      if (contract.d_input_combine != Combine::Fp32Sum)
        return {
            fmt::format("none of its own: {} additions by expert, each a declared rounding to bf16 that is "
                        "replayed",
                        config.top_k),
            "none: the order is part of the contract",
            {}};
      return {
          fmt::format("gamma_{} sum |dx| for adding {} rows in any order", config.top_k - 1, config.top_k),
          "none: this bound serves every order",
          {}};
    case StepKind::AddRouter:
      return {fmt::format("{}, of the router's product, whose rounding is replayed; one addition",
                          a_priori_words(config.num_experts, contract.product_unit_roundoff())),
              "none: this bound serves every order",
              {}};
    case StepKind::Merge:
      if (contract.combine == Combine::Bf16AnyOrder) return any_order_words(config.top_k);
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
    case StepKind::Product:  // bound_account has these words
    case StepKind::Selection:
    case StepKind::Counts:
    case StepKind::Order: break;
  }
  throw InputError(fmt::format("{} is not a field of rounded values", name(field)));
}

}  // namespace

BoundAccount bound_account(Field field, const Layer& layer, const Values<Bounded>* left,
                           const Values<Bounded>* right, bool carries,
                           std::span<const std::int64_t> elements) {
  BoundAccount account;
  const double u = layer.contract->product_unit_roundoff();
  if (const auto product = product_of(field)) {
    const bool over_rows = row(*product).left_lies == Lies::AlongRows;
    if (!elements.empty())
      account.elements = over_rows ? pairs_of_gradient(*product, layer, left, right, elements)
                                   : pairs_of(*product, layer, left, elements);
    // An operand carried along may be exact all the same: where no error of the stages before survives their
    // roundings.
    const bool exact =
        upstream_of(field, *layer.contract).empty() || !carries ||
        std::ranges::any_of(account.elements, [](const BoundPair& e) { return e.running.has_value(); });
    const std::int64_t k = row(*product).summed == Dim::S
                               ? std::int64_t{std::ranges::max(layer.routing.counts)}
                               : extent(row(*product).summed, layer.problem->sizes());
    account.a_priori = a_priori_words(k, u);
    account.running = running_words(layer.declared[*product], k, u, exact);
    if (row(*product).summed == Dim::S) account.a_priori += " for the expert with the most rows";
    if (layer.problem->previous.has(field))
      account.a_priori += layer.contract->weight_products == Store::Bf16
                              ? "; the product's rounding to bf16 and one fp32 addition to what was there "
                                "before are declared, and replayed"
                              : "; one fp32 addition to what was there before is declared, and replayed";
  } else {
    account = words_of(field, layer);
  }
  if (carries) account.a_priori += "; and what the stages before allow, carried along";
  return account;
}

}  // namespace assay
