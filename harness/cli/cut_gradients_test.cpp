// Gradients of weights cut to a part: a wrong matrix stays wrong and in its expert, all others are right.
#include <doctest/doctest.h>

#include "golden/held_tensor.h"
#include "golden/sha256.h"
#include "harness/cli/cut_gradients.h"
#include "harness/cli/problems.h"
#include "harness/contract/layer.h"
#include "harness/judge/judge.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

/// The fixture's layer with one bit of one expert's d_down_proj turned, and the part that keeps that expert.
struct Turned {
  Problem problem = load_fixture("odd");
  const PrecisionContract& contract = find_contract("hf");
  Accumulators accumulators = every_product({AccumulatorKind::Hopper, {}});
  Candidate candidate = predict_both_passes(problem, contract, accumulators);
  std::vector<std::int32_t> selected;
  std::int64_t expert = 0;
  Part part = whole(problem.sizes());

  Turned() {
    const auto ids = candidate.fields.at(Field::selected_experts).as<std::int32_t>();
    selected.assign(ids.begin(), ids.end());
    // The expert with the fewest rows, and the tokens that chose it.
    const auto counts = candidate.fields.at(Field::token_counts_by_expert).as<std::int32_t>();
    expert = -1;
    for (std::int64_t e = 0; e < std::ssize(counts); ++e)
      if (counts[static_cast<std::size_t>(e)] > 0 &&
          (expert < 0 || counts[static_cast<std::size_t>(e)] < counts[static_cast<std::size_t>(expert)]))
        expert = e;
    part.tokens.clear();
    for (std::int64_t token = 0; token < problem.sizes().tokens; ++token)
      for (std::int64_t j = 0; j < problem.config.top_k; ++j)
        if (selected[static_cast<std::size_t>(token * problem.config.top_k + j)] == expert)
          part.tokens.push_back(token);
    const std::int64_t size =
        matrix_rows_of(Field::d_down_proj, problem.sizes()) * width_of(Field::d_down_proj, problem.sizes());
    candidate.fields.at(Field::d_down_proj).as<Bf16>()[static_cast<std::size_t>(expert * size + 5)].bits ^=
        0x40;
  }

  CaseResult judged_part(const Candidate& of, Candidate& cut) const {
    const Problem sub = subproblem(problem, part);
    cut = of;
    cut.fields = *subfields(of.fields, problem.sizes(), selected, part);
    CHECK_FALSE(cut.fields.has(Field::d_down_proj));  // it sums over tokens that left
    cut_weight_gradients(of, problem, selected, part, sub, {contract, accumulators, true}, cut);
    JudgeOptions options;
    options.reference = make_reference;
    options.hash = [](std::span<const std::byte> bytes) { return sha256_hex(bytes); };
    return judge(sub, cut, options);
  }
};

}  // namespace

TEST_SUITE("cut_gradients") {
  TEST_CASE("fewer tokens: the expert's matrix is the candidate's, the others' are what the part gives") {
    const Turned turned;
    REQUIRE(std::ssize(turned.part.tokens) < turned.problem.sizes().tokens);
    Candidate cut;
    const CaseResult result = turned.judged_part(turned.candidate, cut);
    CHECK(result.first_own_error == Field::d_down_proj);
    for (const FieldResult& field : result.fields)
      if (field.field == Field::d_down_proj) {
        CHECK(field.isolated.rejected == 1);
        REQUIRE(field.isolated.worst);
        CHECK(field.isolated.worst->at.front().second == turned.expert);
      } else if (compared(field.verdict)) {
        CAPTURE(name(field.field));
        CHECK(field.verdict == Verdict::Passed);
      }
    CHECK(cut.fields.has(Field::d_gate_up_proj));
    CHECK_FALSE(cut.fields.has(Field::d_gate));  // over all tokens
  }

  TEST_CASE("held by hashes: the wrong hash stays, all others are those of the part") {
    Turned turned;
    for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate}) {
      const std::int64_t rows = field == Field::d_gate ? 1 : matrix_rows_of(field, turned.problem.sizes());
      turned.candidate.held.push_back(
          hold(field, turned.candidate.fields.at(field), {{turned.expert * rows, 1}}));
      turned.candidate.fields.erase(field);
    }
    Candidate cut;
    const CaseResult result = turned.judged_part(turned.candidate, cut);
    CHECK(result.first_own_error == Field::d_down_proj);
    REQUIRE(cut.held.size() == 2);
    for (const HeldField& held : cut.held) CHECK(held.rows.shape()[0] == 1);
    int red = 0;
    for (const FieldResult& field : result.fields) red += field.verdict > Verdict::Passed;
    CHECK(red == 1);
    // Nothing cut, nothing changed.
    Candidate uncut = turned.candidate;
    cut_weight_gradients(turned.candidate, turned.problem, turned.selected, whole(turned.problem.sizes()),
                         turned.problem, {turned.contract, turned.accumulators, true}, uncut);
    CHECK(uncut.held.size() == 3);
  }

  TEST_CASE("an expert that lost a row vouches for nothing: without a whole one the field is left out") {
    Turned turned;
    turned.part.tokens = {0};
    std::vector<std::int32_t> counts(static_cast<std::size_t>(turned.problem.config.num_experts));
    for (const auto e : turned.selected) ++counts[static_cast<std::size_t>(e)];
    const bool whole_expert =
        std::ranges::find(counts, 1) != counts.end() || std::ranges::find(counts, 0) != counts.end();
    Candidate cut;
    const CaseResult result = turned.judged_part(turned.candidate, cut);
    CHECK(result.verdict == Verdict::Passed);
    CHECK(cut.fields.has(Field::d_down_proj) == whole_expert);
  }
}
