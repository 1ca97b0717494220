// The plain Eigen layer beside the judge's own values: all of them agree, and one that does not is named.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "harness/contract/upstream.h"
#include "reference_cpu/confirmation.h"
#include "reference_cpu/eigen/plain_problem.h"
#include "reference_cpu/evaluator.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;

namespace {

constexpr MoeConfig kConfig{24, 16, 5, 3, true};
constexpr std::int64_t kTokens = 11;

bool has_values(const FieldRow& field) {
  return field.group == Group::Forward && field.dtype == DType::BFloat16;
}

}  // namespace

TEST_SUITE("confirmation") {
  TEST_CASE("under every contract the plain layer confirms every value that a field is judged by") {
    const Problem problem = plain::eighths(kConfig, kTokens, 3).problem;
    for (const auto name : kContractNames) {
      CAPTURE(name);
      const PrecisionContract& contract = find_contract(name);
      const Candidate candidate = forward(problem, contract);
      const Upstream upstream = usable_upstream(problem, candidate.fields);
      const auto reference = make_reference(problem, upstream, contract, {}, false);
      std::int64_t values = 0;
      for (const FieldRow& field : kFields)
        for (const Mode mode : {Mode::Isolated, Mode::Chained})
          if (has_values(field))
            values += std::ssize(reference->bounded(field.id, mode, all_rows(field.id, problem.sizes())));
      CHECK(reference->confirmed().of == values);
      CHECK(reference->confirmed().values == values);
    }
  }

  TEST_CASE("a value that is off by more than float64 loses ends the judging, with its place") {
    const Problem problem = plain::eighths(kConfig, kTokens, 4).problem;
    const PrecisionContract& contract = find_contract("hf");
    Layer layer;
    layer.problem = &problem;
    layer.contract = &contract;
    FieldFlags asked{};
    asked[static_cast<std::size_t>(Field::hidden_states)] = true;
    Evaluator<Bounded> walk(layer, {}, asked);
    layer.routing =
        get_token_counts_and_gather_indices(kConfig, select_experts(layer, walk.value(Field::router_logits)));
    for (const Field field :
         {Field::topk_weights, Field::first_gemm, Field::intermediate, Field::hidden_states}) {
      CAPTURE(name(field));
      Values<Bounded> values = walk.evaluate(field);
      StepReads reads{};
      for (const Field from : upstream_of(field)) reads[static_cast<std::size_t>(from)] = &walk.value(from);
      const RowRange all{0, rows_of(field, problem.sizes())};
      CHECK(confirm_by_plain_layer(field, layer, reads, values, all).values == std::ssize(values));
      const double right = values[7].ref;
      for (const double wrong : {right + 1e-9, -right, std::numeric_limits<double>::quiet_NaN(),
                                 std::numeric_limits<double>::infinity()}) {
        if (wrong == right) continue;
        values[7].ref = wrong;
        const auto width = width_of(field, problem.sizes());
        const std::string place = std::string(name(field)) + " at " + std::string(axis_name(field, 0)) + " " +
                                  std::to_string(7 / width) + ", " + std::string(axis_name(field, 1)) + " " +
                                  std::to_string(7 % width) + " is ";
        CHECK_THROWS_WITH(confirm_by_plain_layer(field, layer, reads, values, all),
                          doctest::Contains(place.c_str()));
      }
      values[7].ref = right;
      // Some rows by themselves.
      const std::int64_t width = width_of(field, problem.sizes());
      const Values<Bounded> later(values.begin() + 3 * width, values.begin() + 5 * width);
      CHECK(confirm_by_plain_layer(field, layer, reads, later, {3, 5}).values == 2 * width);
    }
  }

  TEST_CASE(
      "where a field is too large for all of it, rows of many experts are compared, the fullest one's too") {
    constexpr MoeConfig kWide{2048, 768, 128, 8, true};
    constexpr std::int64_t kMany = 4096;
    Problem problem;
    problem.config = kWide;
    problem.batch = 1;
    problem.sequence = kMany;
    for (const bool skewed : {false, true}) {
      CAPTURE(skewed);
      std::vector<std::int32_t> selected;
      for (std::int32_t t = 0; t < kMany; ++t)
        for (std::int32_t j = 0; j < 8; ++j)
          selected.push_back((j == 0 && skewed) ? 5 : (t + 16 * j + 6) % 128);
      Layer layer;
      layer.problem = &problem;
      layer.contract = &find_contract("hf");
      layer.routing = get_token_counts_and_gather_indices(kWide, selected);
      for (const Field field : {Field::first_gemm, Field::second_gemm, Field::d_intermediate,
                                Field::d_permuted_hidden_states, Field::d_down_proj, Field::d_gate_up_proj}) {
        CAPTURE(name(field));
        const Sizes sizes = problem.sizes();
        const bool matrix = row(field).rows == RowsAre::ExpertMatrix;
        std::vector<std::int64_t> rows_of_expert(128);
        std::int64_t rows = 0;
        for (const RowRange block : blocks_of(field, sizes))
          for (const auto r : confirmed_rows(field, layer, block)) {
            const auto& offsets = layer.routing.offsets;
            const auto expert = matrix ? r / (rows_of(field, sizes) / 128)
                                       : std::ranges::upper_bound(offsets, r) - offsets.begin() - 1;
            ++rows_of_expert[static_cast<std::size_t>(expert)];
            ++rows;
          }
        const std::int64_t work_of_row =
            width_of(field, sizes) *
            (matrix ? kMany * 8 / 128 : extent(row(*product_of(field)).summed, sizes));
        CHECK(rows * work_of_row > std::int64_t{1} << 29);
        CHECK(rows * work_of_row < std::int64_t{1} << 32);
        CHECK(std::ranges::count_if(rows_of_expert, [](auto n) { return n > 0; }) >= 16);
        if (skewed) CHECK(rows_of_expert[5] == std::ranges::max(rows_of_expert));
      }
    }
  }
}
