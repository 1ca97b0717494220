#include <algorithm>
#include <limits>
#include <set>

#include "harness/judge/diff.h"

namespace assay {
namespace {

template <class T>
std::optional<std::span<const T>> values(const FieldSet& fields, Field field, const Sizes& sizes) {
  if (!fields.has(field)) return std::nullopt;
  const Tensor& tensor = fields.at(field);
  if (tensor.dtype() != DTypeOf<T>::value || tensor.shape() != expected_shape(field, sizes))
    return std::nullopt;
  return tensor.as<T>();
}

using Experts = std::span<const std::int32_t>;
using Logits = std::optional<std::span<const Bf16>>;

std::vector<std::int64_t> without(Experts these, Experts those) {
  std::vector<std::int64_t> left;
  for (const std::int32_t expert : these)
    if (std::ranges::find(those, expert) == those.end()) left.push_back(expert);
  return left;
}

double logit(const Logits& logits, std::int64_t token, std::int64_t expert, const Sizes& sizes) {
  return to_float((*logits)[static_cast<std::size_t>(token * sizes.config.num_experts + expert)]);
}

/// The smallest logit of those that A took alone less the largest of those that B did.
std::optional<double> gap(const Logits& logits, const RoutingParting& one, const Sizes& sizes) {
  if (!logits) return std::nullopt;
  double least = std::numeric_limits<double>::infinity();
  double most = -least;
  for (const auto expert : one.only_a) least = std::min(least, logit(logits, one.token, expert, sizes));
  for (const auto expert : one.only_b) most = std::max(most, logit(logits, one.token, expert, sizes));
  return least - most;
}

/// Between the last expert taken and the first one left; nothing where all are taken.
std::optional<double> margin(const Logits& logits, std::int64_t token, Experts taken, const Sizes& sizes) {
  if (sizes.config.top_k == sizes.config.num_experts) return std::nullopt;
  double least = std::numeric_limits<double>::infinity();
  double most = -least;
  for (std::int32_t expert = 0; expert < sizes.config.num_experts; ++expert) {
    const double one = logit(logits, token, expert, sizes);
    if (std::ranges::find(taken, expert) != taken.end())
      least = std::min(least, one);
    else
      most = std::max(most, one);
  }
  return least - most;
}

}  // namespace

RoutingAgreement compare_routing(const FieldSet& a, const FieldSet& b, const Sizes& sizes) {
  const auto selected_a = values<std::int32_t>(a, Field::selected_experts, sizes);
  const auto selected_b = values<std::int32_t>(b, Field::selected_experts, sizes);
  RoutingAgreement all;
  if (!selected_a || !selected_b) return all;
  const auto in_range = [&](std::int32_t e) { return e >= 0 && e < sizes.config.num_experts; };
  if (!std::ranges::all_of(*selected_a, in_range) || !std::ranges::all_of(*selected_b, in_range)) return all;
  const Logits logits_a = values<Bf16>(a, Field::router_logits, sizes);
  const Logits logits_b = values<Bf16>(b, Field::router_logits, sizes);
  const auto weights_a = values<Bf16>(a, Field::topk_weights, sizes);
  const auto weights_b = values<Bf16>(b, Field::topk_weights, sizes);
  all.tokens = sizes.tokens;
  if (weights_a && weights_b) all.same_weights = 0;
  if (logits_a) all.ties = 0;
  const auto top_k = static_cast<std::size_t>(sizes.config.top_k);
  for (std::int64_t token = 0; token < sizes.tokens; ++token) {
    const std::size_t begin = static_cast<std::size_t>(token) * top_k;
    const Experts of_a = selected_a->subspan(begin, top_k);
    const Experts of_b = selected_b->subspan(begin, top_k);
    all.same_order += std::ranges::equal(of_a, of_b);
    if (logits_a)
      if (const auto distance = margin(logits_a, token, of_a, sizes)) {
        *all.ties += *distance == 0.0;
        if (*distance != 0.0)
          all.smallest_margin = std::min(all.smallest_margin.value_or(*distance), *distance);
      }
    RoutingParting one{token, without(of_a, of_b), without(of_b, of_a), {}, {}};
    if (!one.only_a.empty() || !one.only_b.empty()) {
      one.gap_a = gap(logits_a, one, sizes);
      one.gap_b = gap(logits_b, one, sizes);
      all.partings.push_back(std::move(one));
      continue;
    }
    ++all.same_sets;
    if (!all.same_weights) continue;
    std::multiset<std::pair<std::int32_t, std::uint16_t>> pairs_a;
    std::multiset<std::pair<std::int32_t, std::uint16_t>> pairs_b;
    for (std::size_t j = 0; j < top_k; ++j) {
      pairs_a.emplace(of_a[j], (*weights_a)[begin + j].bits);
      pairs_b.emplace(of_b[j], (*weights_b)[begin + j].bits);
    }
    *all.same_weights += pairs_a == pairs_b;
  }
  return all;
}

}  // namespace assay
