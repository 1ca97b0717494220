#include "reference_cpu/bound_account.h"

#include <algorithm>

#include <fmt/format.h>

#include "reference_cpu/product/element_bound.h"

namespace assay {
namespace {

/// Some rows of `intermediate` as the second product reads them, evaluated anew: the whole of it is not kept.
Values<Bounded> intermediate_rows(const Layer& layer, const Upstream& own,
                                  std::span<const std::int64_t> rows) {
  const MoeConfig& config = layer.config();
  const auto hidden = static_cast<std::size_t>(config.hidden_size),
             width = static_cast<std::size_t>(2 * config.moe_intermediate_size);
  Problem few;  // each row a token of its own
  few.config = config;
  few.sequence = static_cast<std::int64_t>(rows.size());
  few.experts = layer.problem->experts;
  few.input = Tensor(DType::BFloat16, {few.sequence, config.hidden_size});
  Layer part = layer;
  part.problem = &few;
  part.routing = {};
  part.routing.offsets.assign(static_cast<std::size_t>(config.num_experts) + 1, 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int32_t slot = layer.routing.gather[static_cast<std::size_t>(rows[i])],
                       top_k = static_cast<std::int32_t>(config.top_k);
    std::copy_n(layer.problem->input.as<Bf16>().begin() + slot / top_k * config.hidden_size, hidden,
                few.input.as<Bf16>().begin() + static_cast<std::ptrdiff_t>(i * hidden));
    part.routing.gather.push_back(static_cast<std::int32_t>(i) * top_k + slot % top_k);
  }
  for (std::size_t e = 1; e < part.routing.offsets.size(); ++e)
    part.routing.offsets[e] = std::ranges::lower_bound(rows, layer.routing.offsets[e]) - rows.begin();
  Values<Bounded> first(rows.size() * width);
  if (own.has(Field::first_gemm)) {
    const auto all = own.fields->at(Field::first_gemm).as<Bf16>();
    for (std::size_t i = 0; i < first.size(); ++i)
      first[i] = Bounded::exact(to_float(all[static_cast<std::size_t>(rows[i / width]) * width + i % width]));
  } else {
    first = first_gemm<Bounded>(part);
    store_field<Bounded>(Field::first_gemm, part, first);
  }
  auto result = act_and_mul<Bounded>(part, first);
  store_field<Bounded>(Field::intermediate, part, result);
  return result;
}

struct Product {
  Field weights;
  const Accumulator* accumulator;
  std::int64_t k, n;
};

std::optional<Product> product_of(Field field, const Layer& layer) {
  const MoeConfig& c = layer.config();
  switch (field) {
    case Field::router_logits:
      return Product{Field::gate, &layer.declared.router, c.hidden_size, c.num_experts};
    case Field::first_gemm:
      return Product{Field::gate_up_proj, &layer.declared.gate_up, c.hidden_size,
                     2 * c.moe_intermediate_size};
    case Field::second_gemm:
      return Product{Field::down_proj, &layer.declared.down, c.moe_intermediate_size, c.hidden_size};
    default: return std::nullopt;
  }
}

std::vector<BoundPair> pairs_of(Field field, const Product& product, const Layer& layer, const Upstream& own,
                                std::span<const std::int64_t> elements) {
  const auto k = static_cast<std::size_t>(product.k);
  std::vector<std::int64_t> rows;
  for (const auto element : elements) rows.push_back(element / product.n);
  std::ranges::sort(rows);
  rows.erase(std::ranges::unique(rows).begin(), rows.end());
  const bool second = field == Field::second_gemm, stored = own.has(Field::intermediate);
  Values<Bounded> recomputed;
  if (second && !stored) recomputed = intermediate_rows(layer, own, rows);
  const auto left = [&](std::size_t i) {
    if (second && !stored)
      return std::vector<Interval>(recomputed.begin() + static_cast<std::ptrdiff_t>(i * k),
                                   recomputed.begin() + static_cast<std::ptrdiff_t>((i + 1) * k));
    const std::int64_t token =
        field == Field::router_logits
            ? rows[i]
            : layer.routing.gather[static_cast<std::size_t>(rows[i])] / layer.config().top_k;
    const auto values = (second ? own.fields->at(Field::intermediate) : layer.problem->input)
                            .as<Bf16>()
                            .subspan(static_cast<std::size_t>(second ? rows[i] : token) * k, k);
    std::vector<Interval> row;
    for (const Bf16 x : values) row.push_back(Bounded::exact(to_float(x)));
    return row;
  };
  std::vector<BoundPair> pairs(elements.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::vector<Interval> a = left(i);
    const auto expert =
        std::ranges::upper_bound(layer.routing.offsets, rows[i]) - layer.routing.offsets.begin() - 1;
    const ExpertMatrix matrix = field == Field::router_logits
                                    ? ExpertMatrix{layer.problem->gate.as<Bf16>(), nullptr}
                                    : layer.problem->experts(product.weights, expert);
    for (std::size_t e = 0; e < elements.size(); ++e) {
      if (elements[e] / product.n != rows[i]) continue;
      const auto b = matrix.values.subspan(static_cast<std::size_t>(elements[e] % product.n) * k, k);
      const ElementBound bound =
          element_bound(*product.accumulator, layer.contract->product_unit_roundoff(), a, b);
      pairs[e] = {bound.magnitude, bound.a_priori,
                  bound.ordered ? std::optional(bound.running) : std::nullopt};
    }
  }
  return pairs;
}

BoundAccount words_of(Field field, const Layer& layer) {
  const PrecisionContract& contract = *layer.contract;
  const MoeConfig& config = layer.config();
  switch (field) {
    case Field::topk_weights:
      return {fmt::format("expf to {} ulp and its rounded arguments, in numerator and sum; a sum of {} terms "
                          "in any order; two divisions",
                          contract.expf_ulps, config.norm_topk_prob ? config.top_k : config.num_experts),
              "none: this bound serves every order",
              {}};
    case Field::intermediate:
      return {
          fmt::format("expf to {} ulp, an addition and a division, (1 - sigma(a)) e_exp + 2 u of the value{}",
                      contract.expf_ulps,
                      contract.silu == Store::Bf16 ? "; the rounding of silu(a) to bf16 is replayed" : ""),
          "none: there is no sum",
          {}};
    case Field::hidden_states_unpermute: return {"none of its own: a copy", "none: there is no sum", {}};
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

BoundAccount bound_account(Field field, const Layer& layer, const Upstream& own, bool carries,
                           std::span<const std::int64_t> elements) {
  BoundAccount account;
  const double u = layer.contract->product_unit_roundoff();
  if (const auto product = product_of(field, layer)) {
    account.elements = pairs_of(field, *product, layer, own, elements);
    // An operand carried along may be exact all the same: where no error of the stages before survives their
    // roundings.
    const bool exact =
        field != Field::second_gemm || !carries ||
        std::ranges::any_of(account.elements, [](const BoundPair& e) { return e.running.has_value(); });
    account.a_priori = a_priori_words(product->k, u);
    account.running = running_words(*product->accumulator, product->k, u, exact);
  } else {
    account = words_of(field, layer);
  }
  if (carries) account.a_priori += "; and what the stages before allow, carried along";
  return account;
}

}  // namespace assay
