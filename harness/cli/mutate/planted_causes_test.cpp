// Causes of planted faults on whole layers: the hypothesis that the catalogue expects, with the place and the
// parameter that were planted.
#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "harness/cli/judged.h"
#include "harness/cli/mutate/grounds.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "reference_cpu/causes/hypotheses.h"

using namespace assay;
using namespace assay::cli;

namespace {

/// What a kernel gives that writes its output only.
Candidate output_only(const Candidate& whole) {
  Candidate candidate = whole;
  for (const auto& what : kFields)
    if (what.id != Field::hidden_states) candidate.fields.erase(what.id);
  return candidate;
}

}  // namespace

TEST_SUITE("planted causes") {
  TEST_CASE("every fault that expects a cause names a hypothesis of the field it shows in") {
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
    Grounds grounds;
    int expected = 0;
    int right = 0;
    for (const auto& fault : faults())
      for (const auto fixture : fault.fixtures.first(1)) {  // `assay mutate` plants them on all
        const Ground& ground = grounds.of(fault, fixture);
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
      std::string_view fault;
      std::string_view fixture;
      std::string_view sentence;
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
        {"gate_up_columns_shifted", "odd", "the columns are rotated by 8 to the left"},
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
      std::string_view fault;
      std::string_view fixture;
      std::string_view contract;
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
        {"first_gemm_truncated", "odd", "hf", Field::intermediate, false,
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
      if (output_only_)
        candidate = output_only(candidate);
      else
        candidate.fields.erase(Field::first_gemm);
      CaseResult whole;
      judge_declared(ground, candidate, shows, &whole);
      for (const auto& field : whole.fields) {
        if (field.field != shows) continue;
        CAPTURE(id);
        REQUIRE(!field.causes.empty());
        CHECK(field.causes.front().sentence == sentence);
        CHECK(field.causes.front().every_bit);
        const std::string prefix = in_unwritten(*field.causes.front().unwritten);
        CHECK(whole.headline.find(std::string(sentence).substr(prefix.size())) != std::string::npos);
        CHECK(whole.headline.starts_with(whole.own_error_place + ", which was not written"));
      }
    }
  }

  TEST_CASE("sums that the contract keeps in registers, rounded: named, however long K is") {
    for (const char* contract : {"vllm", "flashinfer_fused"})
      for (const char* fixture : {"tiny", "odd"}) {  // K of 32 and 40
        const Ground ground = make_ground(fixture, contract);
        const Fault rounded{
            .kind = FaultKind::PartialsBf16, .field = Field::second_gemm, .amount = std::int64_t{1} << 40};
        CaseResult whole;
        judge_declared(ground, faulty_candidate(rounded, ground), Field::hidden_states, &whole);
        CAPTURE(whole.headline);
        CHECK(whole.headline.starts_with(
            "second_gemm, which was not written, is the first stage with an error"));
        CHECK(whole.headline.find(
                  "the sums are rounded to bf16, which the contract keeps (explains every bit)") !=
              std::string::npos);
      }
  }

  TEST_CASE("where a lone output is right, no cause is searched") {
    for (const char* fixture : {"tiny", "odd", "one_sign"}) {
      const Problem problem = load_fixture(fixture);
      Candidate right = run_pipeline("predicted", problem, {"hf"});
      right.compute_capability = "9.0";
      CAPTURE(fixture);
      const auto passed = of(judged(problem, output_only(right)), Field::hidden_states);
      CHECK(passed.verdict == Verdict::Passed);
      CHECK(passed.causes.empty());
    }
  }
}
