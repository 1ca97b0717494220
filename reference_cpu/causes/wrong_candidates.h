// Right candidates made wrong in one field, for tests of what is said of them.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "harness/contract/upstream.h"
#include "reference_cpu/causes/causes.h"
#include "reference_cpu/product/test_products.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

namespace assay {

inline Candidate predicted(const Problem& problem,
                           const Accumulators& accumulators = every_product(kHopper)) {
  return predict_forward(problem, find_contract("hf"), accumulators);
}

/// Of the candidate's field, beside a reference on the tensor core's accumulator.
inline std::vector<Cause> causes_of(const Problem& problem, const Candidate& candidate, Field field) {
  const auto upstream = usable_upstream(problem, candidate.fields);
  return make_reference(problem, upstream, find_contract("hf"), every_product(kHopper), true)->causes(field);
}

inline std::string first_sentence(const std::vector<Cause>& causes) {
  return causes.empty() ? "" : causes.front().sentence;
}

/// The candidate with `change(row, column, right values)` in the place of every element of the field.
template <class Change>
std::vector<Cause> causes_with(const Problem& problem, const Candidate& right, Field field, Change change) {
  Candidate wrong = right;
  const auto from = right.fields.at(field).as<Bf16>();
  const auto to = wrong.fields.at(field).as<Bf16>();
  const Sizes sizes = problem.sizes();
  const MatrixView<Bf16> values{from, rows_of(field, sizes), width_of(field, sizes)};
  for (std::int64_t r = 0; r < values.rows; ++r)
    for (std::int64_t c = 0; c < values.cols; ++c)
      to[static_cast<std::size_t>(r * values.cols + c)] = change(r, c, values);
  CHECK_FALSE(std::ranges::equal(from, to));
  return causes_of(problem, wrong, field);
}

/// `out` as the isolated prediction of a field gives it from the candidate's other fields.
inline void predict_again(const Problem& problem, Candidate& candidate, Field field) {
  const auto upstream = usable_upstream(problem, candidate.fields);
  const auto bits = make_reference(problem, upstream, find_contract("hf"), every_product(kHopper), true)
                        ->predicted(field, Mode::Isolated, all_rows(field, problem.sizes()));
  std::ranges::transform(bits, candidate.fields.at(field).as<Bf16>().begin(),
                         [](const PredictedBits& b) { return Bf16{static_cast<std::uint16_t>(b.bits)}; });
}

/// The candidate with nothing but some fields.
inline Candidate only(const Candidate& candidate, std::initializer_list<Field> kept) {
  Candidate few = candidate;
  for (const auto& what : kFields)
    if (std::ranges::find(kept, what.id) == kept.end()) few.fields.erase(what.id);
  return few;
}

}  // namespace assay
