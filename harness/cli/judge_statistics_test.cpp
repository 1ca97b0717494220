// Statistics and vacuity on whole layers: silent on every legal run, loud on errors that hide inside the
// intervals, above all where a kernel gives its final output only.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "harness/cli/judged.h"
#include "harness/cli/mutate/mutation.h"
#include "harness/cli/problems.h"
#include "harness/contract/precision_contract.h"
#include "harness/judge/own_rounding.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

/// What a fused kernel shows: routing and output. Nothing is declared and no GPU named.
Candidate output_only(Candidate candidate) {
  for (const Field gone :
       {Field::first_gemm, Field::intermediate, Field::second_gemm, Field::hidden_states_unpermute})
    candidate.fields.erase(gone);
  candidate.accumulators = {};
  candidate.compute_capability = "";
  return candidate;
}

/// The reference with its intervals changed.
class ChangedReference final : public Reference {
 public:
  using Change = void (*)(Field field, Interval& x);
  ChangedReference(std::unique_ptr<Reference> real, Change change)
      : real_(std::move(real)), change_(change) {}
  LargeVector<Interval> bounded(Field field, Mode mode, RowRange rows) override {
    auto values = real_->bounded(field, mode, rows);
    for (auto& x : values) change_(field, x);
    return values;
  }
  LargeVector<PredictedBits> predicted(Field field, Mode mode, RowRange rows) override {
    return real_->predicted(field, mode, rows);
  }
  std::vector<std::int32_t> expected_integers(Field field) override {
    return real_->expected_integers(field);
  }
  std::vector<std::int32_t> predicted_selection(Mode mode, std::vector<bool>& flags) override {
    return real_->predicted_selection(mode, flags);
  }
  Store store(Field field) const override { return real_->store(field); }
  BoundAccount bound_account(Field field, Mode mode, std::span<const std::int64_t> at) override {
    return real_->bound_account(field, mode, at);
  }
  bool same_in_both_modes(Field field) const override { return real_->same_in_both_modes(field); }
  std::string isolated_from(Field field) const override { return real_->isolated_from(field); }
  const Routing& routing() const override { return real_->routing(); }
  std::vector<Cause> causes(Field) override { return {}; }
  std::string accumulator(Field field) const override { return real_->accumulator(field); }

 private:
  std::unique_ptr<Reference> real_;
  Change change_;
};

ReferenceFactory changed(ChangedReference::Change change) {
  return [change](const Problem& problem, const Upstream& upstream, const PrecisionContract& contract,
                  const Accumulators& accumulators, bool predict, const Engine* engine) {
    return std::unique_ptr<Reference>(std::make_unique<ChangedReference>(
        make_reference(problem, upstream, contract, accumulators, predict, engine), change));
  };
}

/// As it is, but for its causes, which take long at full width.
void unchanged(Field, Interval&) {}

/// Accepts anything.
void lax(Field, Interval& x) {
  x.low = -std::numeric_limits<double>::infinity();
  x.high = std::numeric_limits<double>::infinity();
}

/// Accepts anything near, off by a quarter of an ulp itself, and claims that legal errors are far smaller.
void off(Field field, Interval& x) {
  if (field != Field::first_gemm) return;
  x.ref += 0x1p-9 * std::fabs(x.ref);
  x.low -= std::fabs(x.ref);
  x.high += std::fabs(x.ref);
  x.noise *= 1e-6;
}

}  // namespace

TEST_SUITE("judge_statistics") {
  TEST_CASE("legal runs that show their output only are not suspected, whatever their order of summation") {
    for (const char* name : {"tiny", "odd", "one_sign", "wide", "cancellation", "ties", "hot_expert",
                             "one_token", "all_experts"}) {
      const Problem problem = load_fixture(name);
      for (const auto contract : kKernelContracts)
        for (const Accumulator& order :
             {Accumulator{AccumulatorKind::Fp32Sequential, {}},
              Accumulator{AccumulatorKind::Fp32Pairwise, {}}, Accumulator{AccumulatorKind::Hopper, {}},
              Accumulator{AccumulatorKind::Hopper, {16, 16, 16, 16}}}) {
          const Candidate candidate =
              output_only(predict_forward(problem, find_contract(contract), {order, order, order}));
          const auto result = judged(problem, candidate);
          CAPTURE(name);
          CAPTURE(contract);
          CAPTURE(to_string(order));
          CAPTURE(result.headline);
          CHECK(result.verdict <= Verdict::Mistrusted);
          CHECK(of(result, Field::hidden_states).isolated.verdict == Verdict::Passed);
        }
    }
  }
}

TEST_SUITE("judge_statistics output") {
  TEST_CASE("errors before the output are seen in the output alone") {
    const auto output_of = [](const Ground& ground, const char* id) {
      const auto result = judged(ground.problem, output_only(faulty_candidate(find_fault(id).fault, ground)),
                                 "", changed(unchanged));
      CAPTURE(id);
      CAPTURE(result.headline);
      const auto& output = of(result, Field::hidden_states);
      CHECK(output.isolated.statistics.units == "tokens");
      CHECK_FALSE(output.isolated.statistics.suspicion.empty());
      CHECK(output.verdict >= Verdict::Suspect);
      CHECK(result.first_own_error == Field::hidden_states);
      return output;
    };
    const Ground small = make_ground("odd", "hf");
    for (const char* id :
         {"down_sums_in_bf16", "second_gemm_truncated", "first_gemm_truncated", "silu_scaled"})
      output_of(small, id);
  }

  TEST_CASE(
      "a last rounding at random is seen in the output alone, though a quarter of all elements an ulp off is "
      "no "
      "more than sums of 2,048 terms are expected to show") {
    for (const auto contract : {"hf", "fused_fp32"}) {
      const Ground ground = make_ground("long", contract, Spoil::Nothing, 0, 48);
      const auto output_of = [&](FaultKind kind, Field field) {
        const auto result =
            judged(ground.problem, output_only(faulty_candidate({.kind = kind, .field = field}, ground)), "",
                   changed(unchanged));
        CAPTURE(contract);
        CAPTURE(result.headline);
        CHECK(result.verdict == Verdict::Suspect);
        CHECK(result.first_own_error == Field::hidden_states);
        const auto& output = of(result, Field::hidden_states);
        CHECK(output.isolated.rejected == 0);
        return output.isolated.statistics;
      };
      const Statistics random = output_of(FaultKind::RoundStochastic, Field::hidden_states);
      REQUIRE(random.tests.size() == 3);
      CHECK(random.tests.back().beyond);
      if (ground.contract == "hf") CHECK_FALSE((random.tests[0].beyond || random.tests[1].beyond));
      CHECK(random.tests.back().observed > 0.2);
      CHECK(random.tests.back().expected < 0.1);
      CHECK(random.suspicion.find("errors are proportional to a value's own last place") !=
            std::string::npos);
      // Of a stage that is not written it is a carried error, and there is too much of it.
      const Statistics upstream = output_of(FaultKind::RoundStochastic, Field::second_gemm);
      CHECK(upstream.tests[1].beyond);
      CHECK_FALSE(upstream.tests.back().beyond);

      const Candidate right = output_only(ground.right);
      const auto result = judged(ground.problem, right, "", changed(unchanged));
      CHECK(result.verdict == Verdict::Passed);
      const auto& own = of(result, Field::hidden_states).isolated.statistics.tests.back();
      CHECK(own.measure == kOwnRounding);
      CHECK(own.observed < own.expected);
      CHECK(own.log10_chance == 0.0);
    }
  }

  TEST_CASE(
      "float32 logits that are a little too small, or miss a thousandth of one block of K, lie inside every "
      "interval of 2,048 terms: the statistics see them") {
    constexpr Fault kTooSmall = {
        .kind = FaultKind::ScaleValues, .field = Field::router_logits, .scale = -0x1p-14};
    constexpr Fault kBlockScaled = {.kind = FaultKind::ScaleKBlock,
                                    .field = Field::router_logits,
                                    .amount = 16,
                                    .scale = -0.001,
                                    .first = 16};
    for (const auto contract : {"fp32_logits", "vllm_fp32_logits", "sglang_fp32_logits"}) {
      const Ground ground = make_ground("long", contract, Spoil::Nothing, 0, 48);
      CAPTURE(contract);
      const auto undeclared = [&](Candidate candidate) {
        candidate.accumulators = {};
        candidate.compute_capability = "";
        return judged(ground.problem, candidate, "", changed(unchanged));
      };
      CHECK(undeclared(ground.right).verdict == Verdict::Passed);
      for (const Fault& fault : {kTooSmall, kBlockScaled}) {
        const auto result = undeclared(faulty_candidate(fault, ground));
        CAPTURE(result.headline);
        const auto& logits = of(result, Field::router_logits);
        CHECK(logits.isolated.rejected == 0);
        CHECK_FALSE(logits.isolated.statistics.suspicion.empty());
        CHECK(logits.verdict == Verdict::Suspect);
        CHECK(result.first_own_error == Field::router_logits);
      }
    }
  }

  TEST_CASE(
      "at full width the worst case admits every element of a truncated product: the statistics of the "
      "output alone see it") {
    const Ground wide = make_ground("qwen3_30b_a3b", "hf");
    for (const char* id :
         {"down_sums_in_bf16", "first_gemm_truncated", "intermediate_truncated", "second_gemm_truncated"}) {
      const auto result = judged(wide.problem, output_only(faulty_candidate(find_fault(id).fault, wide)), "",
                                 changed(unchanged));
      const auto& output = of(result, Field::hidden_states);
      CAPTURE(id);
      CHECK(output.isolated.rejected == 0);
      CHECK(output.verdict == Verdict::Suspect);
      CHECK(result.first_own_error == Field::hidden_states);
    }
    for (const auto kind :
         {AccumulatorKind::Hopper, AccumulatorKind::Fp32Sequential, AccumulatorKind::Fp32Pairwise}) {
      const Accumulator order{kind, {}};
      const auto result =
          judged(wide.problem,
                 output_only(predict_forward(wide.problem, find_contract("hf"), {order, order, order})), "",
                 changed(unchanged));
      CAPTURE(to_string(order));
      CHECK(result.verdict == Verdict::Passed);
    }
  }
}

TEST_SUITE("judge_statistics") {
  TEST_CASE("bits that are all as predicted leave nothing to suspect; the same bits undeclared are") {
    const Problem problem = load_fixture("odd");
    Candidate candidate = make_ground("odd", "hf").right;
    const auto declared = judged(problem, candidate, "", changed(off));
    CHECK(of(declared, Field::first_gemm).isolated.statistics.explained);
    CHECK(of(declared, Field::first_gemm).isolated.verdict == Verdict::Passed);
    candidate.accumulators = {};
    candidate.compute_capability = "";
    const auto open = judged(problem, candidate, "", changed(off));
    CHECK(of(open, Field::first_gemm).isolated.verdict == Verdict::Suspect);
    CHECK(open.first_own_error == Field::first_gemm);
    CHECK(open.headline.find("of any legal order of summation") != std::string::npos);
  }

  TEST_CASE("a judge that accepts anything mistrusts itself, unless bits bind") {
    const Ground ground = make_ground("odd", "hf");
    Candidate candidate = ground.right;
    const auto bound = judged(ground.problem, candidate, "", changed(lax));
    CHECK(bound.verdict == Verdict::Passed);
    const auto& vacuity = of(bound, Field::second_gemm).vacuity;
    CHECK(!vacuity.empty());
    for (const auto& check : vacuity) CHECK(check.reason == "predicted bits");
    candidate.accumulators = {};
    candidate.compute_capability = "";
    const auto result = judged(ground.problem, candidate, "", changed(lax));
    CHECK(result.verdict == Verdict::Mistrusted);
    CHECK(of(result, Field::second_gemm).verdict == Verdict::Mistrusted);
    CHECK(of(result, Field::second_gemm).notes.back() ==
          "wrong copies of the reference (zeros, rows rotated by one, half-scaled, columns shifted by one) "
          "would have passed this very check");
    CHECK(of(result, Field::gather_indices).verdict == Verdict::Passed);
    CHECK(result.headline.find("could not have failed") != std::string::npos);
  }

  TEST_CASE("data that tell nothing are listed, not mistrusted") {
    const auto result = judged(load_fixture("zeros"), make_ground("zeros", "hf").answers.reference);
    CHECK(result.verdict == Verdict::Passed);
    for (const auto& check : of(result, Field::first_gemm).vacuity)
      CHECK(check.reason == "equals the reference");
    const auto tied = judged(load_fixture("all_tied"), make_ground("all_tied", "hf").answers.reference);
    CHECK(tied.verdict == Verdict::Passed);
    for (const auto& check : of(tied, Field::selected_experts).vacuity)
      CHECK(check.outcome != VacuityOutcome::WouldPass);
  }
}
