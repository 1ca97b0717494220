// Cause hints on whole layers: wrong results are named with parameters that were found, and noise has no
// cause.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include <fmt/format.h>

#include "harness/cli/mutate/mutation.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/precision_contract.h"
#include "harness/judge/judge.h"
#include "reference_cpu/causes/hypotheses.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

constexpr Field kComputed[] = {Field::router_logits, Field::topk_weights, Field::first_gemm,
                               Field::intermediate,  Field::second_gemm,  Field::hidden_states};

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
  for (std::int64_t i = 0; i < before.size(); ++i)
    to[static_cast<std::size_t>(i)] = change(i / width, i % width, values);
  return judged(problem, wrong, field);
}

/// What a kernel gives that writes its output only.
Candidate output_only(const Candidate& whole) {
  Candidate candidate = whole;
  for (const auto& what : kFields)
    if (what.id != Field::hidden_states) candidate.fields.erase(what.id);
  return candidate;
}

Bf16 scaled(Bf16 x, double factor) { return round_to_bf16(static_cast<double>(to_float(x)) * factor); }

}  // namespace

TEST_SUITE("causes") {
  TEST_CASE("every hypothesis has one row, and every fault that expects one names a row") {
    for (std::size_t i = 0; i < std::size(kHypotheses); ++i) {
      CHECK(find_hypothesis(kHypotheses[i].id) == &kHypotheses[i]);  // ids are unique
      CHECK(!kHypotheses[i].what.empty());
    }
    CHECK(find_hypothesis("none") == nullptr);
    for (const auto& fault : faults())
      for (std::size_t begin = 0; begin < fault.hint.size();) {
        const auto end = std::min(fault.hint.find('|', begin), fault.hint.size());
        const auto* row = find_hypothesis(fault.hint.substr(begin, end - begin));
        CAPTURE(fault.id);
        REQUIRE(row != nullptr);
        CHECK((row->fields & fields_of(fault.shows_in())) != 0);
        begin = end + 1;
      }
  }

  TEST_CASE(
      "at least nine in ten planted faults are named right at the top, by hypotheses of their field's rows") {
    int expected = 0, right = 0;
    for (const auto& fault : faults())
      for (const auto fixture : fault.fixtures.first(1)) {  // `assay mutate` plants them on all
        const Ground ground = make_ground(fixture, "hf", fault.spoil, 0, 0, strikes_backward(fault.fault));
        CaseResult whole;
        judge_declared(ground, faulty_candidate(fault.fault, ground), fault.shows_in(), &whole);
        for (const auto& field : whole.fields) {
          if (field.field != fault.shows_in()) continue;
          for (const auto& cause : field.causes) {
            CAPTURE(fault.id);
            CAPTURE(cause.hypothesis);
            const auto* row = find_hypothesis(cause.hypothesis);
            REQUIRE(row != nullptr);
            CHECK((row->fields & fields_of(field.field)) != 0);
            CHECK(cause.explained >= 0.5);
          }
          if (fault.hint.empty()) continue;
          ++expected;
          right +=
              !field.causes.empty() &&
              fmt::format("|{}|", fault.hint).find(fmt::format("|{}|", field.causes.front().hypothesis)) !=
                  std::string::npos;
        }
      }
    CAPTURE(right);
    CAPTURE(expected);
    CHECK(expected > 90);
    CHECK(right * 10 >= expected * 9);
  }

  TEST_CASE("places and parameters are found") {
    const struct {
      std::string_view fault, fixture, sentence;
    } rows[] = {
        {"gate_up_drops_k_tile", "odd", "the last 64 of K are missing"},
        {"gate_up_drops_k_element", "tiny", "the last element of K is missing"},
        {"gate_up_drops_k_of_expert", "hot_expert", "the last 8 of K are missing for expert 0"},
        {"gate_up_drops_k_block", "odd", "K 16 to 31 are missing"},
        {"gate_up_doubles_k_block", "tiny", "K 16 to 31 are added twice"},
        {"gate_up_scales_k_block", "tiny", "K 16 to 31 are 0.999 times what they should be"},
        {"down_stale_k_block", "odd", "K 16 to 31 use the left operand of K 0 to 15"},
        {"gate_up_last_row_zero", "odd", "results are zero in the last row of each expert"},
        {"gate_up_wrong_expert", "odd",
         "the next expert's weights are used in the last 2 rows of each expert"},
        {"gate_up_columns_unwritten", "tiny", "results are NaN in columns 56 to 63"},
        {"gate_up_columns_shifted", "odd", "columns are shifted by 8 to the left"},
        {"gate_up_scaled", "odd", "results are 1.00391 times what they should be"},
        {"output_scaled", "tiny", "results are 1.0005 times what they should be"},
        {"slot_dropped", "odd", "slot 1 is left out of the sum"},
        {"slot_weights_swapped", "odd", "the weights of slots 0 and 1 are exchanged"},
        {"weights_of_first_tokens", "tiny", "the weights are those of the token 8 before for tokens 8 to 11"},
        {"silu_flushed", "wide", "silu is zero for gates below -6"},
        {"silu_scaled", "odd", "silu is 1.00391 times what it should be"},
        {"down_partials_in_bf16", "odd",
         "the sums of every 16 of K are rounded to bf16 and then added in fp32"},
        {"unpermute_row_of_neighbour", "odd", "slot 19 holds the result of slot 20"},
        {"second_gemm_bit_flipped", "odd", "bit 5 of one element is flipped (row 19, column 36)"},
    };
    for (const auto& [id, fixture, sentence] : rows) {
      const FaultRow& fault = find_fault(id);
      const Ground ground = make_ground(fixture, "hf", fault.spoil);
      CaseResult whole;
      judge_declared(ground, faulty_candidate(fault.fault, ground), fault.shows_in(), &whole);
      for (const auto& field : whole.fields) {
        if (field.field != fault.shows_in()) continue;
        CAPTURE(id);
        REQUIRE(!field.causes.empty());
        CHECK(field.causes.front().sentence == sentence);
        CHECK(whole.headline.find(sentence) != std::string::npos);
      }
    }
  }

  TEST_CASE("an error in a field that was not written is named with that field") {
    const struct {
      std::string_view fault, fixture, contract;
      Field shows;
      bool output_only;
      std::string_view sentence;
    } rows[] = {
        {"gate_up_drops_k_tile", "odd", "fused_fp32", Field::intermediate, false,
         "in first_gemm, which was not written, the last 64 of K are missing"},
        {"gate_up_drops_k_block", "tiny", "fused_fp32", Field::intermediate, false,
         "in first_gemm, which was not written, K 16 to 31 are missing"},
        {"gate_up_drops_k_of_expert", "hot_expert", "fused_fp32", Field::intermediate, false,
         "in first_gemm, which was not written, the last 8 of K are missing for expert 0"},
        {"first_gemm_truncated", "odd", "fused_fp32", Field::intermediate, false,
         "in first_gemm, which was not written, values are truncated toward zero to bf16"},
        {"gate_up_drops_k_element", "odd", "hf", Field::hidden_states, true,
         "in first_gemm, which was not written, the last element of K is missing"},
        {"gate_up_scaled", "odd", "hf", Field::hidden_states, true,
         "in first_gemm, which was not written, results are 1.00391 times what they should be"},
        {"gate_and_up_swapped", "tiny", "hf", Field::hidden_states, true,
         "in intermediate, which was not written, gate and up halves are exchanged"},
        {"down_transposed", "tiny", "hf", Field::hidden_states, true,
         "in second_gemm, which was not written, the weight is read transposed"},
        {"weights_truncated", "tiny", "hf", Field::hidden_states, true,
         "in topk_weights, which was not written, values are truncated toward zero to bf16"},
    };
    for (const auto& [id, fixture, contract, shows, output_only_, sentence] : rows) {
      const Ground ground = make_ground(fixture, contract);
      Candidate candidate = faulty_candidate(find_fault(id).fault, ground);
      if (output_only_) candidate = output_only(candidate);
      CaseResult whole;
      judge_declared(ground, candidate, shows, &whole);
      for (const auto& field : whole.fields) {
        if (field.field != shows) continue;
        CAPTURE(id);
        REQUIRE(!field.causes.empty());
        CHECK(field.causes.front().sentence == sentence);
        CHECK(field.causes.front().every_bit);
        CHECK(whole.headline.find(sentence) != std::string::npos);
      }
    }
  }

  TEST_CASE("what was not written is not blamed for noise, nor searched where the output is right") {
    std::mt19937 random(2);
    for (const char* fixture : {"tiny", "odd", "one_sign"}) {
      const Problem problem = load_fixture(fixture);
      const Candidate right = output_only(predicted(problem));
      CAPTURE(fixture);
      const auto passed = judged(problem, right, Field::hidden_states);
      CHECK(passed.verdict == Verdict::Passed);
      CHECK(passed.causes.empty());
      for (const double size : {0.005, 0.5}) {
        std::normal_distribution<double> noise(0.0, size);
        const auto added = with(
            problem, right, Field::hidden_states, [&](std::int64_t r, std::int64_t c, const auto& values) {
              return scaled(values.row(r)[static_cast<std::size_t>(c)], 1.0 + noise(random));
            });
        std::string found = added.causes.empty() ? "" : added.causes.front().sentence;
        CAPTURE(found);
        CHECK(added.verdict > Verdict::Passed);
        CHECK(added.causes.empty());
      }
    }
  }

  TEST_CASE("bits that another order of summation explains are named with their count") {
    const Problem problem = load_fixture("qwen3_30b_a3b");
    const Accumulator hopper{AccumulatorKind::Hopper, {}};
    for (const auto& [order, hypothesis] :
         {std::pair(Accumulator{AccumulatorKind::Hopper, {1024, 1024}}, "split_k"),
          std::pair(Accumulator{AccumulatorKind::Fp32Sequential, {}}, "fp32_sequential")}) {
      Accumulators accumulators = every_product(hopper);
      accumulators[ProductId::gate_up] = order;
      Candidate candidate = predict_forward(problem, find_contract("hf"), accumulators);
      candidate.accumulators = every_product(hopper);
      const auto result = judged(problem, candidate, Field::first_gemm);
      CAPTURE(hypothesis);
      CHECK(result.verdict == Verdict::Suspect);
      REQUIRE(!result.causes.empty());
      CHECK(result.causes.front().hypothesis == hypothesis);
      CHECK(result.causes.front().every_bit);
      CHECK(result.isolated_bits.cause.find(
                fmt::format("explains all {} of them", result.isolated_bits.differing)) != std::string::npos);
    }
  }

  TEST_CASE("noise has no cause: added, in place of the result, and the result shuffled") {
    std::mt19937 random(1);
    for (const char* fixture : {"tiny", "odd", "one_sign"}) {
      const Problem problem = load_fixture(fixture);
      const Candidate right = predicted(problem);
      for (const Field field : kComputed) {
        for (const double size : {0.005, 0.5}) {
          std::normal_distribution<double> noise(0.0, size);
          const auto added =
              with(problem, right, field, [&](std::int64_t r, std::int64_t c, const auto& values) {
                return scaled(values.row(r)[static_cast<std::size_t>(c)], 1.0 + noise(random));
              });
          std::string found = added.causes.empty() ? "" : added.causes.front().sentence;
          CAPTURE(fixture);
          CAPTURE(name(field));
          CAPTURE(size);
          CAPTURE(found);
          CHECK(added.verdict > Verdict::Passed);
          CHECK(added.causes.empty());
        }
        std::vector<Bf16> shuffled(right.fields.at(field).as<Bf16>().begin(),
                                   right.fields.at(field).as<Bf16>().end());
        std::ranges::shuffle(shuffled, random);
        const auto width = right.fields.at(field).shape()[1];
        const auto mixed = with(problem, right, field, [&](std::int64_t r, std::int64_t c, const auto&) {
          return shuffled[static_cast<std::size_t>(r * width + c)];
        });
        std::string found = mixed.causes.empty() ? "" : mixed.causes.front().sentence;
        CAPTURE(found);
        CHECK(mixed.causes.empty());
        double square = 0.0;
        for (const Bf16 x : shuffled)
          square += static_cast<double>(to_float(x)) * to_float(x) / static_cast<double>(shuffled.size());
        std::normal_distribution<double> unrelated(0.0, std::sqrt(square));
        const auto replaced = with(problem, right, field, [&](std::int64_t, std::int64_t, const auto&) {
          return round_to_bf16(unrelated(random));
        });
        found = replaced.causes.empty() ? "" : replaced.causes.front().sentence;
        CAPTURE(found);
        CHECK(replaced.causes.empty());
      }
    }
  }
}
