#include "harness/cli/mutate/permuted_order.h"

#include <numeric>
#include <random>

#include "reference_cpu/qwen3_moe.h"

namespace assay::cli {
namespace {

using Order = std::vector<std::size_t>;

/// Fisher and Yates; the engine's numbers are the same everywhere.
Order random_order(std::int64_t n, std::mt19937_64& random) {
  Order order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

/// to[r, c] = from[r, order[c]] of rows as long as `order`.
void gather_columns(std::span<const Bf16> from, const Order& order, std::span<Bf16> to) {
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i - i % order.size() + order[i % order.size()]];
}

Tensor with_columns(const Tensor& from, const Order& order) {
  Tensor to(from.dtype(), from.shape());
  gather_columns(from.as<Bf16>(), order, to.as<Bf16>());
  return to;
}

Order inverse(const Order& order) {
  Order result(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) result[order[i]] = i;
  return result;
}

/// The same order for both halves of the gate and up columns.
Order twice(const Order& order) {
  Order result = order;
  for (const auto i : order) result.push_back(i + order.size());
  return result;
}

}  // namespace

Candidate predict_in_random_order(const Problem& problem, const PrecisionContract& contract,
                                  std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const Order hidden = random_order(problem.config.hidden_size, random);
  const Order middle = random_order(problem.config.moe_intermediate_size, random);
  Problem permuted = problem;
  permuted.input = with_columns(problem.input, hidden);
  permuted.gate = with_columns(problem.gate, hidden);
  permuted.experts = [&](Field field, std::int64_t expert) {
    const ExpertMatrix from = problem.experts(field, expert);
    auto to = std::make_shared<std::vector<Bf16>>(from.values.size());
    if (field == Field::down_proj) {
      gather_columns(from.values, middle, *to);
    } else {
      const Order rows = twice(middle);
      const std::size_t width = hidden.size();
      for (std::size_t r = 0; r < rows.size(); ++r)
        gather_columns(from.values.subspan(rows[r] * width, width), hidden,
                       std::span(*to).subspan(r * width, width));
    }
    return ExpertMatrix{*to, to};
  };
  const Accumulator hopper{AccumulatorKind::Hopper, {}};
  Candidate candidate = predict_forward(permuted, contract, every_product(hopper));
  candidate.accumulators = {};
  for (const Field field : {Field::first_gemm, Field::intermediate}) {
    if (!candidate.fields.has(field)) continue;
    const Order back = inverse(field == Field::first_gemm ? twice(middle) : middle);
    candidate.fields.set(field, with_columns(candidate.fields.at(field), back));
  }
  return candidate;
}

}  // namespace assay::cli
