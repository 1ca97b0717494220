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

using namespace assay;
using namespace assay::cli;

TEST_SUITE("goldens") {
  constexpr const char* kGoldens[] = {
      "tiny", "odd", "rows", "one_choice", "qwen3_30b_a3b", "qwen3_235b_a22b", "qwen3_next_80b"};

  TEST_CASE(
      "HuggingFace's runs on an H200 pass under their own contract, and no bit differs from the prediction") {
    for (const std::string name : kGoldens)
      for (const std::string implementation : {"grouped_mm", "eager"}) {
        const auto file = load_file("golden/data/" + name + "." + implementation + ".h5");
        const auto result = judged(file.problem, file.candidate);
        CAPTURE(file.candidate.name);
        CHECK(result.verdict == Verdict::Passed);
        for (const auto& field : result.fields)
          for (const auto* bits : {&field.isolated_bits, &field.chained_bits}) {
            CHECK(bits->differing == 0);
            CHECK(bits->undetermined == 0);
            const bool exact =
                row(field.field).match == Match::Exact && row(field.field).dtype == DType::Int32;
            if (!exact && compared(field.verdict))
              CHECK(bits->as_predicted == element_count(expected_shape(field.field, file.problem.sizes())));
          }
      }
  }

  TEST_CASE("the wrong contract is detected in hidden_states, and nowhere else") {
    for (const std::string name : kGoldens) {
      if (name == "one_choice") continue;  // one slot a token: there is no order to combine them in
      for (const auto& [implementation, wrong] :
           {std::pair("grouped_mm", "hf_eager"), std::pair("eager", "hf")}) {
        if (name.starts_with("qwen3") && implementation == std::string_view("eager"))
          continue;  // once each: they take seconds
        const auto file = load_file("golden/data/" + name + "." + implementation + ".h5");
        const auto result = judged(file.problem, file.candidate, wrong);
        CAPTURE(file.candidate.name);
        CHECK(result.verdict == Verdict::Failed);
        CHECK(*result.first_own_error == Field::hidden_states);
        CHECK(of(result, Field::hidden_states).isolated.rejected > 0);
      }
    }
  }

  TEST_CASE(
      "the predicted golden equals the captured one, field for field, bit for bit, the order of ties "
      "included") {
    for (const std::string name : kGoldens)
      for (const auto& [implementation, contract] :
           {std::pair("grouped_mm", "hf"), std::pair("eager", "hf_eager")}) {
        const auto file = load_file("golden/data/" + name + "." + implementation + ".h5");
        const Candidate made = run_pipeline("predicted", file.problem, {contract});
        for (const FieldRow& field : kFields) {
          if (field.group != Group::Forward) continue;
          CAPTURE(file.candidate.name);
          CAPTURE(field.name);
          const auto a = file.candidate.fields.at(field.id).bytes();
          const auto b = made.fields.at(field.id).bytes();
          CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
        }
      }
  }

  TEST_CASE("the float64 oracle agrees with our own float64 layer") {
    for (const std::string name : {"tiny", "odd", "rows", "one_choice"})
      for (const std::string implementation : {"grouped_mm", "eager"}) {
        const auto file = load_file("golden/data/" + name + "." + implementation + ".h5");
        const auto result = check_oracle(file.problem, file.candidate);
        REQUIRE(result.has_value());
        CHECK(result->verdict == Verdict::Passed);
        auto wrong = file.candidate;
        wrong.oracle.at(Field::second_gemm).as<double>()[3] *= 1.0 + 1e-9;
        CHECK(*check_oracle(file.problem, wrong)->first_own_error == Field::second_gemm);
      }
  }
}
