// Cause hints on whole layers: wrong results are named with parameters that were found, and noise has no cause.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <random>

#include "harness/cli/mutation.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract.h"
#include "harness/judge.h"
#include "reference_cpu/hypotheses.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr Field kComputed[] = {Field::router_logits, Field::topk_weights, Field::first_gemm, Field::intermediate, Field::second_gemm, Field::hidden_states};

Candidate predicted(const Problem& problem) {
  Candidate candidate = run_pipeline("predicted", problem, {"hf"});
  candidate.compute_capability = "9.0";
  return candidate;
}

FieldResult judged(const Problem& problem, const Candidate& candidate, Field field) {
  JudgeOptions options;
  options.reference = make_reference;
  for (auto& result : judge(problem, candidate, options).fields)
    if (result.field == field) return result;
  FAIL("no such field");
  return {};
}

/// The candidate with `change(row, column, right values)` in the place of every element of the field.
template <class Change>
FieldResult with(const Problem& problem, const Candidate& right, Field field, Change change) {
  Candidate wrong = right;
  const Tensor& before = right.fields.at(field);
  const auto from = before.as<Bf16>();
  const auto to = wrong.fields.at(field).as<Bf16>();
  const std::int64_t width = before.shape()[1];
  const MatrixView<Bf16> values{from, before.shape()[0], width};
  for (std::int64_t i = 0; i < before.size(); ++i) to[static_cast<std::size_t>(i)] = change(i / width, i % width, values);
  return judged(problem, wrong, field);
}

void check_best(const FieldResult& result, std::string_view hypothesis, std::string_view sentence) {
  CAPTURE(name(result.field));
  REQUIRE(result.verdict > Verdict::Passed);
  REQUIRE(!result.causes.empty());
  CHECK(result.causes.front().hypothesis == hypothesis);
  CHECK(result.causes.front().sentence == sentence);
  CHECK(result.causes.front().explained > 0.9);
}

Bf16 scaled(Bf16 x, double factor) { return round_to_bf16(static_cast<double>(to_float(x)) * factor); }

}  // namespace

TEST_SUITE("causes") {
  TEST_CASE("every fault of the catalogue has a hypothesis in the table") {
    for (std::size_t i = 0; i < std::size(kHypotheses); ++i) {
      CHECK(find_hypothesis(kHypotheses[i].id) == &kHypotheses[i]);  // ids are unique
      CHECK(!kHypotheses[i].what.empty());
    }
    CHECK(find_hypothesis("none") == nullptr);
  }

  TEST_CASE("noise has no cause: added, in place of the result, and the result shuffled") {
    std::mt19937 random(1);
    for (const char* fixture : {"tiny", "odd", "wide", "one_sign"}) {
      const Problem problem = load_fixture(fixture);
      const Candidate right = predicted(problem);
      for (const Field field : kComputed) {
        for (const double size : {0.003, 0.05, 1.0}) {
          std::normal_distribution<double> noise(0.0, size);
          const auto added = with(problem, right, field, [&](std::int64_t r, std::int64_t c, const auto& values) { return scaled(values.row(r)[static_cast<std::size_t>(c)], 1.0 + noise(random)); });
          std::string found = added.causes.empty() ? "" : added.causes.front().sentence;
          CAPTURE(fixture);
          CAPTURE(name(field));
          CAPTURE(size);
          CAPTURE(found);
          CHECK(added.verdict > Verdict::Passed);
          CHECK(added.causes.empty());
        }
        std::vector<Bf16> shuffled(right.fields.at(field).as<Bf16>().begin(), right.fields.at(field).as<Bf16>().end());
        std::ranges::shuffle(shuffled, random);
        const auto width = right.fields.at(field).shape()[1];
        const auto mixed = with(problem, right, field, [&](std::int64_t r, std::int64_t c, const auto&) { return shuffled[static_cast<std::size_t>(r * width + c)]; });
        std::string found = mixed.causes.empty() ? "" : mixed.causes.front().sentence;
        CAPTURE(found);
        CHECK(mixed.causes.empty());
        double square = 0.0;
        for (const Bf16 x : shuffled) square += static_cast<double>(to_float(x)) * to_float(x) / static_cast<double>(shuffled.size());
        std::normal_distribution<double> unrelated(0.0, std::sqrt(square));
        const auto replaced = with(problem, right, field, [&](std::int64_t, std::int64_t, const auto&) { return round_to_bf16(unrelated(random)); });
        found = replaced.causes.empty() ? "" : replaced.causes.front().sentence;
        CAPTURE(found);
        CHECK(replaced.causes.empty());
      }
    }
  }
}
