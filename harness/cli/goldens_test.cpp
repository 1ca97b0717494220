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
// They take seconds each.
constexpr const char* kFullSize[] = {"qwen3_30b_a3b", "qwen3_235b_a22b", "qwen3_next_80b"};

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

TEST_SUITE("full-size goldens") {
  TEST_CASE("they pass under their own contract, and no bit differs from the prediction") {
    for (const std::string name : kFullSize) passes_as_predicted(golden(name, "grouped_mm"));
  }

  TEST_CASE("the eager run has the same fields up to the merge, and every bit of its merge is predicted") {
    for (const std::string name : kFullSize) {
      const auto grouped = golden(name, "grouped_mm");
      const auto eager = golden(name, "eager");
      CAPTURE(name);
      CHECK(same_bytes(eager.problem.input, grouped.problem.input));
      CHECK(same_bytes(eager.problem.gate, grouped.problem.gate));
      for (const FieldRow& field : kFields)
        if (field.group == Group::Forward && field.id != Field::hidden_states) {
          CAPTURE(field.name);
          CHECK(same_bytes(eager.candidate.fields.at(field.id), grouped.candidate.fields.at(field.id)));
        }
      Upstream upstream;
      upstream.fields = &eager.candidate.fields;
      upstream.usable.fill(true);
      const auto reference = make_reference(eager.problem, upstream, find_contract(eager.candidate.contract),
                                            eager.candidate.accumulators, true);
      const RowRange rows = all_rows(Field::hidden_states, eager.problem.sizes());
      const auto predicted = reference->predicted(Field::hidden_states, Mode::Isolated, rows);
      const auto out = eager.candidate.fields.at(Field::hidden_states).as<Bf16>();
      REQUIRE(predicted.size() == out.size());
      std::int64_t right = 0;
      for (std::size_t i = 0; i < out.size(); ++i)
        right += !predicted[i].undetermined && predicted[i].bits == out[i].bits;
      CHECK(right == std::ssize(out));
    }
  }

  TEST_CASE("the wrong contract is detected in hidden_states, and nowhere else") {
    fails_in_the_merge_alone(golden("qwen3_30b_a3b", "grouped_mm"), "hf_eager");
  }
}
