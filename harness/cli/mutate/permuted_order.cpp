#include "harness/cli/mutate/permuted_order.h"

#include <numeric>
#include <optional>
#include <random>
#include <utility>

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

/// Orders of a layer's axes. The output's H is none that the layer ties to its input's.
struct AxisOrders {
  Order input;   // H, of what is routed
  Order middle;  // I
  Order halves;  // 2I
  Order output;  // H, of what is merged
  Order one = {0};

  AxisOrders back() const { return {inverse(input), inverse(middle), inverse(halves), inverse(output)}; }
};

/// How rows and columns of the field's matrices move; nothing where it has none of these axes.
std::optional<std::pair<const Order&, const Order&>> moved(Field field, const AxisOrders& orders) {
  using Axes = std::pair<const Order&, const Order&>;
  switch (field) {
    case Field::input_hidden_states:
    case Field::gate:
    case Field::d_permuted_hidden_states:
    case Field::d_experts_hidden_states:
    case Field::d_input_hidden_states:
    case Field::d_gate: return Axes(orders.one, orders.input);
    case Field::gate_up_proj:
    case Field::d_gate_up_proj: return Axes(orders.halves, orders.input);
    case Field::first_gemm:
    case Field::d_first_gemm: return Axes(orders.one, orders.halves);
    case Field::intermediate:
    case Field::d_intermediate: return Axes(orders.one, orders.middle);
    case Field::down_proj:
    case Field::d_down_proj: return Axes(orders.output, orders.middle);
    case Field::second_gemm:
    case Field::hidden_states_unpermute:
    case Field::hidden_states:
    case Field::d_hidden_states:
    case Field::d_second_gemm: return Axes(orders.one, orders.output);
    default: return std::nullopt;
  }
}

/// to[r, c] = from[rows[r], columns[c]] of each matrix.
template <class T>
void gather(std::span<const T> from, const Order& rows, const Order& columns, std::span<T> to) {
  const std::size_t matrix = rows.size() * columns.size();
  for (std::size_t begin = 0; begin < from.size(); begin += matrix)
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (std::size_t c = 0; c < columns.size(); ++c)
        to[begin + r * columns.size() + c] = from[begin + rows[r] * columns.size() + columns[c]];
}

Tensor gathered(Field field, const Tensor& from, const AxisOrders& orders) {
  const auto axes = moved(field, orders);
  if (!axes || from.size() == 0) return from;
  Tensor to(from.dtype(), from.shape());
  if (from.dtype() == DType::Float32)
    gather(from.as<float>(), axes->first, axes->second, to.as<float>());
  else
    gather(from.as<Bf16>(), axes->first, axes->second, to.as<Bf16>());
  return to;
}

FieldSet gathered(const FieldSet& from, const AxisOrders& orders) {
  FieldSet to;
  for (const FieldRow& field : kFields)
    if (from.has(field.id)) to.set(field.id, gathered(field.id, from.at(field.id), orders));
  return to;
}

}  // namespace

Candidate predict_in_random_order(const Problem& problem, const PrecisionContract& contract,
                                  std::uint64_t seed) {
  std::mt19937_64 random(seed);
  AxisOrders orders;
  orders.input = random_order(problem.config.hidden_size, random);
  orders.middle = random_order(problem.config.moe_intermediate_size, random);
  orders.halves = twice(orders.middle);
  orders.output = random_order(problem.config.hidden_size, random);
  Problem permuted = problem;
  permuted.input = gathered(Field::input_hidden_states, problem.input, orders);
  permuted.output_gradient = gathered(Field::d_hidden_states, problem.output_gradient, orders);
  permuted.gate = gathered(Field::gate, problem.gate, orders);
  permuted.previous = gathered(problem.previous, orders);
  permuted.experts = [&](Field field, std::int64_t expert) {
    const ExpertMatrix from = problem.experts(field, expert);
    auto to = std::make_shared<std::vector<Bf16>>(from.values.size());
    const auto axes = moved(field, orders);
    gather(from.values, axes->first, axes->second, std::span(*to));
    return ExpertMatrix{*to, to};
  };
  permuted.experts = cached_experts(permuted.experts, std::size_t{1} << 28);
  Candidate candidate = predict_both_passes(permuted, contract, every_product({AccumulatorKind::Hopper, {}}));
  candidate.accumulators = {};
  candidate.fields = gathered(candidate.fields, orders.back());
  return candidate;
}

}  // namespace assay::cli
