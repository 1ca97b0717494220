// Two sets of weights, compared bit for bit.
#include <algorithm>

#include <fmt/format.h>

#include "golden/checkpoint.h"
#include "harness/contract/error.h"

namespace assay {
namespace {

std::optional<WeightDifference> first_difference(Field field, std::int64_t expert, std::int64_t cols,
                                                 std::span<const Bf16> first, std::span<const Bf16> second) {
  if (first.size() != second.size())
    throw InputError(
        fmt::format("{}, expert {}: {} values against {}", name(field), expert, first.size(), second.size()));
  const auto [a, b] = std::ranges::mismatch(first, second);
  if (a == first.end()) return std::nullopt;
  const auto at = a - first.begin();
  return WeightDifference{field, expert, at / cols, at % cols, *a, *b};
}

}  // namespace

std::string to_string(const WeightDifference& difference) {
  const auto& d = difference;
  const auto expert = d.field == Field::gate ? std::string() : fmt::format("expert {}, ", d.expert);
  return fmt::format("{} differs first at {}row {}, col {}: {:#06x} ({}) against {:#06x} ({})", name(d.field),
                     expert, d.row, d.col, d.first.bits, to_float(d.first), d.second.bits,
                     to_float(d.second));
}

std::optional<WeightDifference> check_weights(const MoeWeights& first, const MoeWeights& second) {
  const auto& a = first.config;
  const auto& b = second.config;
  if (a.hidden_size != b.hidden_size || a.moe_intermediate_size != b.moe_intermediate_size ||
      a.num_experts != b.num_experts)
    throw InputError(
        fmt::format("weights of different sizes: hidden_size {}, moe_intermediate_size {}, num_experts {} "
                    "against {}, {}, {}",
                    a.hidden_size, a.moe_intermediate_size, a.num_experts, b.hidden_size,
                    b.moe_intermediate_size, b.num_experts));
  if (auto difference =
          first_difference(Field::gate, 0, a.hidden_size, first.gate.as<Bf16>(), second.gate.as<Bf16>())) {
    difference->expert = difference->row;  // one row per expert
    return difference;
  }
  for (const Field field : {Field::gate_up_proj, Field::down_proj}) {
    const auto cols = field == Field::gate_up_proj ? a.hidden_size : a.moe_intermediate_size;
    for (std::int64_t expert = 0; expert < a.num_experts; ++expert) {
      const auto mine = first.experts(field, expert);
      const auto other = second.experts(field, expert);
      if (const auto difference = first_difference(field, expert, cols, mine.values, other.values))
        return difference;
    }
  }
  return std::nullopt;
}

}  // namespace assay
