// Whom the judge accuses in whole layers: rows in another order are aligned, and a stage that reads broken
// values is not accused.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "harness/cli/judged.h"
#include "harness/cli/problems.h"

using namespace assay;
using namespace assay::cli;

namespace {

/// A golden of an NVIDIA H200 whose experts have up to 33 rows, both passes.
struct RecordedRun {
  GoldenFile file = load_file("golden/data/rows.grouped_mm.h5");
  Candidate& candidate = file.candidate;

  std::span<std::int32_t> integers(Field field) { return candidate.fields.at(field).as<std::int32_t>(); }
  CaseResult judged() { return cli::judged(file.problem, candidate); }

  /// The first row of an expert with at least two.
  std::int64_t row_of_pair() {
    std::int64_t first = 0;
    for (const std::int32_t count : integers(Field::token_counts_by_expert)) {
      if (count >= 2) return first;
      first += count;
    }
    FAIL("no expert has two rows");
    return -1;
  }

  /// Exchanges two rows of every field in expert order.
  void exchange_rows(std::int64_t a, std::int64_t b) {
    const Sizes sizes = file.problem.sizes();
    for (const FieldRow& field : kFields) {
      if (!candidate.fields.has(field.id)) continue;
      const auto width = static_cast<std::size_t>(width_of(field.id, sizes));
      if (field.id == Field::gather_indices)
        std::swap(integers(field.id)[static_cast<std::size_t>(a)],
                  integers(field.id)[static_cast<std::size_t>(b)]);
      else if (field.rows == RowsAre::ExpertOrder) {
        const auto values = candidate.fields.at(field.id).as<Bf16>();
        std::ranges::swap_ranges(values.subspan(static_cast<std::size_t>(a) * width, width),
                                 values.subspan(static_cast<std::size_t>(b) * width, width));
      }
    }
  }
};

std::vector<std::string> above_passed(const CaseResult& result) {
  std::vector<std::string> names;
  for (const FieldResult& field : result.fields)
    if (field.verdict > Verdict::Passed) names.emplace_back(name(field.field));
  return names;
}

using Names = std::vector<std::string>;

bool says(const CaseResult& result, std::string_view words) {
  return result.headline.find(words) != std::string::npos;
}

}  // namespace

TEST_SUITE("accusation") {
  TEST_CASE("rows of an expert in another order are right where their order is declared free") {
    RecordedRun run;
    const auto row = run.row_of_pair();
    run.exchange_rows(row, row + 1);
    run.candidate.row_order = ExpertRowOrder::Any;
    const CaseResult result = run.judged();
    CHECK(above_passed(result) == Names{});
    CHECK(of(result, Field::first_gemm).chained_bits.differing == 0);
    CHECK(of(result, Field::second_gemm).isolated_bits.binding);
    CHECK_FALSE(of(result, Field::d_down_proj).isolated_bits.binding);  // sums over the rows, in no order
  }

  TEST_CASE("where it is not declared, the indices are suspect and nothing in front of the sums is") {
    RecordedRun run;
    const auto row = run.row_of_pair();
    run.exchange_rows(row, row + 1);
    for (const Field sum : {Field::d_down_proj, Field::d_gate_up_proj}) run.candidate.fields.erase(sum);
    const CaseResult result = run.judged();
    CHECK(above_passed(result) == Names{"gather_indices"});
    CHECK(result.verdict == Verdict::Suspect);
    CHECK(says(result, "row_order any is not declared"));
  }

  TEST_CASE("without indices the rows are aligned by their values") {
    RecordedRun run;
    const auto row = run.row_of_pair();
    run.exchange_rows(row, row + 1);
    run.candidate.fields.erase(Field::gather_indices);
    for (const Field sum : {Field::d_down_proj, Field::d_gate_up_proj}) run.candidate.fields.erase(sum);
    CHECK(above_passed(run.judged()) == Names{"first_gemm"});
    CHECK(says(run.judged(), "found by the rows' values"));
    run.candidate.row_order = ExpertRowOrder::Any;
    const CaseResult free = run.judged();
    CHECK(above_passed(free) == Names{});
    CHECK(of(free, Field::gather_indices).verdict == Verdict::NotMaterialised);
  }

  TEST_CASE("rows that cross experts fail, whatever is declared") {
    RecordedRun run;
    run.candidate.row_order = ExpertRowOrder::Any;
    const auto last = std::ssize(run.integers(Field::gather_indices)) - 1;
    run.exchange_rows(0, last);
    CHECK(run.judged().first_own_error == Field::gather_indices);
    run.candidate.fields.erase(Field::gather_indices);
    CHECK(run.judged().first_own_error == Field::first_gemm);
  }

  TEST_CASE("an inverse permutation is accused alone: what was computed with the right one is right") {
    RecordedRun run;
    const auto gather = run.integers(Field::gather_indices);
    const std::vector<std::int32_t> right(gather.begin(), gather.end());
    for (std::size_t r = 0; r < right.size(); ++r)
      gather[static_cast<std::size_t>(right[r])] = static_cast<std::int32_t>(r);
    const CaseResult result = run.judged();
    CHECK(above_passed(result) == Names{"gather_indices"});
    CHECK(of(result, Field::first_gemm).isolated.verdict == Verdict::NotJudged);
    CHECK(says(result, "what the inputs give, not what this gather_indices would"));
    CHECK_FALSE(says(result, "error of their own"));
  }

  TEST_CASE("logits that were stored as something else are accused alone") {
    RecordedRun run;
    for (Bf16& x : run.candidate.fields.at(Field::router_logits).as<Bf16>())
      x = round_to_bf16(1.0 / (1.0 + std::exp(-to_float(x))));
    const CaseResult result = run.judged();
    CHECK(result.first_own_error == Field::router_logits);
    CHECK(above_passed(result) == Names{"router_logits"});
  }

  TEST_CASE("one id out of range is accused alone, with its value and place") {
    RecordedRun run;
    const auto token = static_cast<std::size_t>(run.file.problem.config.top_k) * 2;
    for (const std::int32_t id : {99, -1}) {
      run.integers(Field::selected_experts)[token] = id;
      const CaseResult result = run.judged();
      CAPTURE(result.headline);
      CHECK(above_passed(result) == Names{"selected_experts"});
      CHECK(says(result, std::to_string(id)));
      CHECK(says(result, "token 2, slot 0"));
    }
  }

  TEST_CASE("an error behind fields that were not written lies in their span") {
    RecordedRun run;
    for (const FieldRow& field : kFields)
      if (field.id != Field::hidden_states && field.id != Field::selected_experts)
        run.candidate.fields.erase(field.id);
    const auto out = run.candidate.fields.at(Field::hidden_states).as<Bf16>();
    for (std::size_t i = 0; i < out.size(); i += 3) out[i] = round_to_bf16(to_float(out[i]) + 0.5 + (i % 7));
    const CaseResult result = run.judged();
    CHECK(result.first_own_error == Field::hidden_states);
    CHECK(result.own_error_place == "between the inputs and hidden_states");
    CHECK(says(result, "the first error lies between the inputs and hidden_states, where "));
    CHECK(says(result, " were not written: "));
  }

  TEST_CASE("NaN and zeros in a lone output may come from any field before it: its span is named") {
    for (const double lost : {std::nan(""), 0.0}) {
      RecordedRun run;
      for (const FieldRow& field : kFields)
        if (field.id != Field::hidden_states) run.candidate.fields.erase(field.id);
      const auto out = run.candidate.fields.at(Field::hidden_states).as<Bf16>();
      const auto width = static_cast<std::size_t>(run.file.problem.config.hidden_size);
      std::ranges::fill(out.subspan(3 * width, width), round_to_bf16(lost));
      const CaseResult result = run.judged();
      CAPTURE(result.headline);
      CHECK(result.own_error_place == "between the inputs and hidden_states");
      CHECK(says(result, lost == 0.0 ? "results are zero for token 3" : "results are NaN for token 3"));
    }
  }
}
