#include "gpu/selfcheck_products.h"

#include <random>
#include <span>
#include <vector>

#include "gpu/engine/tensor_core_model.h"
#include "harness/contract/error.h"

namespace assay::gpu {
namespace {

/// The candidate's routing as a product's operands need it.
struct SampledRouting {
  std::span<const std::int32_t> gather;    // [S]
  std::span<const std::int32_t> selected;  // [T, K]
  std::vector<std::int64_t> first_row;     // [E + 1]
  std::int64_t top_k;

  SampledRouting(const Candidate& candidate, const Sizes& sizes)
      : gather(candidate.fields.at(Field::gather_indices).as<std::int32_t>()),
        selected(candidate.fields.at(Field::selected_experts).as<std::int32_t>()),
        first_row{0},
        top_k(sizes.config.top_k) {
    for (const std::int32_t count : candidate.fields.at(Field::token_counts_by_expert).as<std::int32_t>())
      first_row.push_back(first_row.back() + count);
  }
  std::int64_t token_of(std::int64_t row) const { return gather[static_cast<std::size_t>(row)] / top_k; }
  std::int64_t expert_of(std::int64_t row) const {
    return selected[static_cast<std::size_t>(gather[static_cast<std::size_t>(row)])];
  }
};

/// An operand's matrix [rows, width], of one expert where experts have their own.
struct SampledMatrix {
  std::span<const Bf16> values;
  std::int64_t width;
  std::shared_ptr<const void> owner;
  bool gathered;  // its rows are tokens where the product's are routed rows

  Bf16 at(std::int64_t row, std::int64_t column) const {
    return values[static_cast<std::size_t>(row * width + column)];
  }
};

SampledMatrix matrix_of(const Problem& problem, const Candidate& candidate, Field field, std::int64_t expert,
                        bool routed) {
  const std::int64_t width = width_of(field, problem.sizes());
  const bool gathered = routed && row(field).rows == RowsAre::Tokens;
  if (row(field).rows == RowsAre::ExpertMatrix) {
    const ExpertMatrix matrix = problem.experts(field, expert);
    return {matrix.values, width, matrix.owner, false};
  }
  if (field == Field::input_hidden_states) return {problem.input.as<Bf16>(), width, nullptr, gathered};
  if (field == Field::gate) return {problem.gate.as<Bf16>(), width, nullptr, false};
  return {candidate.fields.at(field).as<Bf16>(), width, nullptr, gathered};
}

/// The terms of one element: `fixed` is its row of the left operand, or of the right one, `first` where K
/// begins among the rows of an operand that lies along them.
std::vector<Bf16> terms(const SampledMatrix& matrix, Lies lies, std::int64_t fixed, std::int64_t first,
                        std::int64_t length, const SampledRouting& routing) {
  std::vector<Bf16> values;
  const auto row_of = [&](std::int64_t r) { return matrix.gathered ? routing.token_of(r) : r; };
  for (std::int64_t k = 0; k < length; ++k)
    values.push_back(lies == Lies::AlongColumns ? matrix.at(row_of(fixed), k)
                                                : matrix.at(row_of(first + k), fixed));
  return values;
}

}  // namespace

std::int64_t count_samples_that_differ(const Problem& problem, const Candidate& candidate, ProductId product,
                                       int samples) {
  const Sizes sizes = problem.sizes();
  const ProductRow& shape = row(product);
  const SampledRouting routing(candidate, sizes);
  const auto made = candidate.fields.at(shape.made).as<Bf16>();
  const std::int64_t width = width_of(shape.made, sizes);
  const std::int64_t rows = rows_of(shape.made, sizes);
  const bool over_rows = shape.summed == Dim::S;
  const bool routed = over_rows || row(shape.made).rows == RowsAre::ExpertOrder;
  std::mt19937_64 random(1);
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  std::int64_t wrong = 0;
  for (int i = 0; i < samples; ++i) {
    const std::int64_t r = below(rows);
    const std::int64_t n = below(width);
    // A weight gradient's rows are those of an expert's matrix, and it sums over the expert's rows.
    const std::int64_t rows_of_matrix = over_rows ? rows / sizes.config.num_experts : 0;
    std::int64_t expert = 0;
    if (routed) expert = over_rows ? r / rows_of_matrix : routing.expert_of(r);
    const std::int64_t first = over_rows ? routing.first_row[static_cast<std::size_t>(expert)] : 0;
    const std::int64_t length = over_rows ? routing.first_row[static_cast<std::size_t>(expert) + 1] - first
                                          : extent(shape.summed, sizes);
    const std::int64_t left_row = over_rows ? r % rows_of_matrix : r;
    const auto a = terms(matrix_of(problem, candidate, shape.left, expert, routed), shape.left_lies, left_row,
                         first, length, routing);
    const auto b = terms(matrix_of(problem, candidate, shape.right, expert, over_rows), shape.right_lies, n,
                         first, length, routing);
    wrong += round_to_bf16(tensor_core_dot(a, b)) != made[static_cast<std::size_t>(r * width + n)];
  }
  return wrong;
}

}  // namespace assay::gpu
