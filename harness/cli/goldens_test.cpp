// The committed runs of HuggingFace's layer: they pass, every bit as predicted, and the wrong contract is
// seen.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "harness/cli/judged.h"
#include "harness/cli/oracle_check.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/precision_contract.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr const char* kSmall[] = {"tiny", "odd", "rows", "one_choice"};

GoldenFile golden(const std::string& name, const std::string& implementation) {
  return load_file("golden/data/" + name + "." + implementation + ".h5");
}

void passes_as_predicted(const GoldenFile& file) {
  const auto result = judged(file.problem, file.candidate);
  CAPTURE(file.candidate.name);
  CHECK(result.verdict == Verdict::Passed);
  for (const auto& field : result.fields)
    for (const auto* bits : {&field.isolated_bits, &field.chained_bits}) {
      CHECK(bits->differing == 0);
      CHECK(bits->undetermined == 0);
      const bool exact = row(field.field).match == Match::Exact && row(field.field).dtype == DType::Int32;
      if (!exact && compared(field.verdict))
        CHECK(bits->as_predicted == element_count(expected_shape(field.field, file.problem.sizes())));
    }
}

void fails_in_the_merge_alone(const GoldenFile& file, std::string_view wrong) {
  const auto result = judged(file.problem, file.candidate, wrong);
  CAPTURE(file.candidate.name);
  CHECK(result.verdict == Verdict::Failed);
  CHECK(*result.first_own_error == Field::hidden_states);
  CHECK(of(result, Field::hidden_states).isolated.rejected > 0);
}

/// The merge from the eager run's own fields: the bounds of the other contract reject some of it.
void other_merge_is_rejected(const GoldenFile& eager) {
  CAPTURE(eager.candidate.name);
  Upstream upstream;
  upstream.fields = &eager.candidate.fields;
  upstream.usable.fill(true);
  const auto reference =
      make_reference(eager.problem, upstream, find_contract("hf"), eager.candidate.accumulators, false);
  const auto bounded = reference->bounded(Field::hidden_states, Mode::Isolated,
                                          all_rows(Field::hidden_states, eager.problem.sizes()));
  const auto out = eager.candidate.fields.at(Field::hidden_states).as<Bf16>();
  std::int64_t rejected = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float value = to_float(out[i]);
    rejected +=
        value < to_float(round_to_bf16(bounded[i].low)) || value > to_float(round_to_bf16(bounded[i].high));
  }
  CHECK(rejected > 0);
}

/// Of a real layer, whose judging takes seconds: what is predicted of a run is judged with it.
void grouped_run_passes(const std::string& name) { passes_as_predicted(golden(name, "grouped_mm")); }
void eager_run_passes(const std::string& name) {
  const GoldenFile eager = golden(name, "eager");
  passes_as_predicted(eager);
  other_merge_is_rejected(eager);
}

bool same_bytes(const Tensor& a, const Tensor& b) { return std::ranges::equal(a.bytes(), b.bytes()); }

}  // namespace

TEST_SUITE("goldens") {
  TEST_CASE(
      "HuggingFace's runs on an H200 pass under their own contract, and no bit differs from the prediction") {
    for (const std::string name : kSmall)
      for (const std::string implementation : {"grouped_mm", "eager"})
        passes_as_predicted(golden(name, implementation));
  }

  TEST_CASE("the wrong contract is detected in hidden_states, and nowhere else") {
    for (const std::string name : kSmall) {
      if (name == "one_choice") continue;  // one slot a token: there is no order to combine them in
      fails_in_the_merge_alone(golden(name, "grouped_mm"), "hf_eager");
      fails_in_the_merge_alone(golden(name, "eager"), "hf");
    }
  }

  TEST_CASE(
      "the predicted golden equals the captured one, field for field, bit for bit, the order of ties "
      "included") {
    for (const std::string name : kSmall)
      for (const auto& [implementation, contract] :
           {std::pair("grouped_mm", "hf"), std::pair("eager", "hf_eager")}) {
        const auto file = golden(name, implementation);
        const Candidate made = run_pipeline("predicted", file.problem, {contract});
        for (const FieldRow& field : kFields) {
          if (field.group != Group::Forward) continue;
          CAPTURE(file.candidate.name);
          CAPTURE(field.name);
          CHECK(same_bytes(file.candidate.fields.at(field.id), made.fields.at(field.id)));
        }
      }
  }

  TEST_CASE("the float64 oracle agrees with our own float64 layer") {
    for (const std::string name : kSmall)
      for (const std::string implementation : {"grouped_mm", "eager"}) {
        const auto file = golden(name, implementation);
        const auto result = check_oracle(file.problem, file.candidate);
        REQUIRE(result.has_value());
        CHECK(result->verdict == Verdict::Passed);
        auto wrong = file.candidate;
        wrong.oracle.at(Field::second_gemm).as<double>()[3] *= 1.0 + 1e-9;
        CHECK(*check_oracle(file.problem, wrong)->first_own_error == Field::second_gemm);
      }
  }
}

TEST_SUITE("golden 30b") {
  TEST_CASE(
      "both runs pass under their own contract, every bit as predicted; the other's merge is rejected") {
    grouped_run_passes("qwen3_30b_a3b");
    eager_run_passes("qwen3_30b_a3b");
  }
}

TEST_SUITE("golden 235b") {
  TEST_CASE("the grouped_mm run passes under its own contract, every bit as predicted") {
    grouped_run_passes("qwen3_235b_a22b");
  }
}

TEST_SUITE("eager 235b") {
  TEST_CASE("the eager run passes under its own contract, every bit as predicted; hf's merge is rejected") {
    eager_run_passes("qwen3_235b_a22b");
  }
}

TEST_SUITE("golden 80b") {
  TEST_CASE(
      "both runs pass under their own contract, every bit as predicted; the other's merge is rejected") {
    grouped_run_passes("qwen3_next_80b");
    eager_run_passes("qwen3_next_80b");
  }
}
