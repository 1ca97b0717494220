// The judge on whole layers: correct results pass, and every planted error turns the right stage red and no
// earlier one.
#include <doctest/doctest.h>

#include <cmath>

#include "harness/cli/judged.h"
#include "harness/cli/pipelines.h"
#include "harness/cli/problems.h"
#include "harness/contract/precision_contract.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;
using namespace assay::cli;

namespace {

/// As an H200 would give it, declared accumulators and all.
Candidate predicted(const Problem& problem, std::string_view contract) {
  Candidate candidate = run_pipeline("predicted", problem, {std::string(contract)});
  candidate.compute_capability = "9.0";
  return candidate;
}

constexpr Field kForward[] = {
    Field::router_logits,          Field::selected_experts, Field::topk_weights,
    Field::token_counts_by_expert, Field::gather_indices,   Field::first_gemm,
    Field::intermediate,           Field::second_gemm,      Field::hidden_states_unpermute,
    Field::hidden_states};

/// One wrong bit in one element. Selections exchange two neighbours' places, which is one wrong index.
void flip(Tensor& tensor, Field field, std::size_t at) {
  if (field == Field::selected_experts) {
    std::swap(tensor.as<std::int32_t>()[at], tensor.as<std::int32_t>()[at + 1]);
  } else if (tensor.dtype() == DType::Int32) {
    tensor.as<std::int32_t>()[at] ^= 1;
  } else {
    tensor.as<Bf16>()[at].bits ^= 1;
  }
}

}  // namespace

TEST_SUITE("whole layers") {
  TEST_CASE("one wrong bit in one element of any field turns that field red and no earlier one") {
    for (const char* name : {"tiny", "odd"}) {
      const Problem problem = load_fixture(name);
      const Candidate right = predicted(problem, "hf");
      REQUIRE(judged(problem, right).verdict == Verdict::Passed);
      for (const Field field : kForward) {
        const auto size = static_cast<std::size_t>(right.fields.at(field).size());
        for (const std::size_t at : {std::size_t{0}, size / 2, size - 2}) {
          Candidate wrong = right;
          flip(wrong.fields.at(field), field, at);
          const CaseResult result = judged(problem, wrong);
          CAPTURE(assay::name(field));
          CAPTURE(at);
          CHECK(result.verdict > Verdict::Passed);
          CHECK(of(result, field).verdict > Verdict::Passed);
          REQUIRE(result.first_own_error.has_value());
          CHECK(*result.first_own_error == field);
          for (const Field earlier : kForward) {
            if (earlier == field) break;
            CHECK(of(result, earlier).verdict <= Verdict::Passed);
          }
        }
      }
    }
  }

  TEST_CASE("both bounds of every rounded field are in the result: worked by hand for one row of ones") {
    // One token, one expert: 32 terms, all 1 but the last, which is 2^-60. Steps of 16 leave 16 and 31; the
    // largest addends are 1 and 16.
    Problem problem;
    problem.name = "ones";
    problem.config = {32, 1, 1, 1, true};
    problem.sequence = 1;
    const auto ones = [](Shape shape) {
      Tensor tensor(DType::BFloat16, std::move(shape));
      for (Bf16& x : tensor.as<Bf16>()) x = round_to_bf16(1.0);
      return tensor;
    };
    problem.input = ones({1, 32});
    problem.input.as<Bf16>()[31] = round_to_bf16(0x1p-60);
    problem.gate = ones({1, 32});
    problem.experts = stored_experts(std::make_shared<Tensor>(ones({1, 2, 32})),
                                     std::make_shared<Tensor>(ones({1, 32, 1})));
    const auto near = [](double expected) { return doctest::Approx(expected).epsilon(1e-4); };
    Candidate candidate = predicted(problem, "hf");
    const CaseResult declared = judged(problem, candidate);
    REQUIRE(declared.verdict == Verdict::Passed);
    for (const Field field : {Field::router_logits, Field::first_gemm}) {
      const Judgement& judgement = of(declared, field).isolated;
      CHECK(judgement.worst->magnitude == near(31));
      CHECK(judgement.worst->a_priori == near(32 * 0x1p-24 * 31));
      CHECK(judgement.worst->running == near(0x1p-23 * (16 + 31) + 0x1p-21 * (1 + 16)));
      CHECK(judgement.worst->delta == near(judgement.worst->running));
      CHECK(judgement.bounds.typical == near(32 * 0x1p-24 * 31 / (0x1p-23 * (16 + 31) + 0x1p-21 * (1 + 16))));
      CHECK(judgement.bounds.running.starts_with("hopper, in its own order: each of 2 steps of 16 products"));
    }
    candidate.accumulators = {};
    const Judgement open = of(judged(problem, candidate), Field::first_gemm).isolated;
    CHECK(open.worst->delta == near(32 * 0x1p-24 * 31));
    CHECK(open.worst->running == 0.0);
    CHECK(open.bounds.typical == near(1.0));
    CHECK(open.bounds.running == "none: no order of summation is declared");
  }

  TEST_CASE("of every rounded field the bound in force is the smaller of the two, isolated and chained") {
    for (const auto contract : kKernelContracts) {
      const Problem problem = load_fixture("odd");
      const CaseResult result = judged(problem, predicted(problem, contract));
      for (const FieldResult& field : result.fields)
        for (const Judgement* judgement : {&field.isolated, &field.chained}) {
          if (row(field.field).dtype != DType::BFloat16 || judgement->elements == 0) continue;
          CAPTURE(assay::name(field.field));
          CAPTURE(contract);
          CHECK_FALSE(judgement->bounds.a_priori.empty());
          CHECK_FALSE(judgement->bounds.running.empty());
          REQUIRE(judgement->worst);
          const Element& e = *judgement->worst;
          const double smaller = e.running > 0.0 ? std::min(e.a_priori, e.running) : e.a_priori;
          if (e.delta > 0.0) CHECK(e.delta == doctest::Approx(smaller).epsilon(1e-3));
          const bool product = row(field.field).stage == Stage::Router ||
                               row(field.field).stage == Stage::GateUp ||
                               row(field.field).stage == Stage::Down;
          CHECK((judgement->bounds.sampled + judgement->bounds.exact > 0) == product);
          if (product && field.field != Field::second_gemm) CHECK(judgement->bounds.typical > 1.0);
        }
    }
  }

  TEST_CASE("NaN, Inf, missing, misshapen and out-of-range fields are verdicts, not errors") {
    const Problem problem = load_fixture("odd");
    const Candidate right = predicted(problem, "hf");
    Candidate wrong = right;
    wrong.fields.at(Field::second_gemm).as<Bf16>()[5].bits = 0x7fc0;
    CHECK(of(judged(problem, wrong), Field::second_gemm).verdict == Verdict::NonFinite);
    wrong = right;
    for (auto& x : wrong.fields.at(Field::hidden_states).as<Bf16>()) x.bits = 0x7fc0;
    CHECK(of(judged(problem, wrong), Field::hidden_states).verdict == Verdict::NonFinite);
    wrong = right;
    wrong.fields.set(Field::first_gemm, Tensor(DType::BFloat16, {3, 3}));
    CHECK(of(judged(problem, wrong), Field::first_gemm).verdict == Verdict::WrongShape);
    CHECK(of(judged(problem, wrong), Field::intermediate).upstream == "first_gemm");
    wrong = right;
    wrong.fields.set(Field::topk_weights,
                     Tensor(DType::Float64, right.fields.at(Field::topk_weights).shape()));
    CHECK(of(judged(problem, wrong), Field::topk_weights).verdict == Verdict::WrongDtype);
    wrong = right;
    wrong.fields.at(Field::selected_experts).as<std::int32_t>()[4] = 7;  // E = 7: one beyond
    const auto result = judged(problem, wrong);
    CHECK(of(result, Field::selected_experts).verdict == Verdict::Failed);
    CHECK(*result.first_own_error == Field::selected_experts);
    wrong = right;
    for (const Field gone :
         {Field::first_gemm, Field::intermediate, Field::second_gemm, Field::gather_indices})
      wrong.fields.erase(gone);
    CHECK(judged(problem, wrong).verdict == Verdict::Passed);
    Candidate nothing;
    CHECK(judged(problem, nothing).verdict == Verdict::NotMaterialised);
    CHECK(exit_code(judged(problem, nothing).verdict) == ExitCode::NothingCompared);
  }

  TEST_CASE("a NaN or Inf in one token's input passes where it must come out, and fails where it must not") {
    for (const std::uint16_t bits : {std::uint16_t{0x7fc0}, std::uint16_t{0x7f80}}) {
      Problem problem = load_fixture("odd");
      problem.input.as<Bf16>()[5].bits = bits;  // token 0
      const Candidate right = predicted(problem, "hf");
      CAPTURE(bits);
      CHECK(is_nan(right.fields.at(Field::hidden_states).as<Bf16>()[0]));
      const auto passing = judged(problem, right);
      CAPTURE(passing.headline);
      CHECK(passing.verdict == Verdict::Passed);
      Candidate lost = right;  // the NaN is swallowed
      lost.fields.at(Field::hidden_states).as<Bf16>()[0] = Bf16{};
      CHECK(of(judged(problem, lost), Field::hidden_states).isolated.verdict == Verdict::Failed);
      Candidate spread = right;  // the NaN reaches another token
      spread.fields.at(Field::hidden_states)
          .as<Bf16>()[static_cast<std::size_t>(problem.config.hidden_size) * 3]
          .bits = 0x7fc0;
      CHECK(of(judged(problem, spread), Field::hidden_states).isolated.verdict == Verdict::NonFinite);
    }
  }

  TEST_CASE("an expert selected twice for a token is no selection") {
    const Problem problem = load_fixture("odd");
    Candidate wrong = predicted(problem, "hf");
    const auto selected = wrong.fields.at(Field::selected_experts).as<std::int32_t>();
    selected[4] = selected[3];
    const auto result = judged(problem, wrong);
    CHECK(of(result, Field::selected_experts).isolated.verdict == Verdict::Failed);
    CHECK(*result.first_own_error == Field::selected_experts);
  }

  TEST_CASE("a Hopper candidate that declares nothing is predicted for information, never held to it") {
    const Problem problem = load_fixture("odd");
    const Accumulator order{AccumulatorKind::Fp32Sequential, {}};
    Candidate candidate = predict_forward(problem, find_contract("hf"), {order, order, order});
    candidate.accumulators = {};
    candidate.compute_capability = "9.0";
    const auto open = judged(problem, candidate);
    CHECK(open.verdict == Verdict::Passed);
    CHECK(of(open, Field::first_gemm).isolated_bits.available);
    CHECK_FALSE(of(open, Field::first_gemm).isolated_bits.binding);
    candidate.compute_capability = "";
    CHECK_FALSE(of(judged(problem, candidate), Field::first_gemm).isolated_bits.available);
  }

  TEST_CASE("zeros, a row-permuted copy and a half-scaled copy of every rounded field are rejected") {
    const Problem problem = load_fixture("odd");
    const Candidate right = predicted(problem, "hf");
    for (const Field field : kForward) {
      if (row(field).dtype != DType::BFloat16) continue;
      CAPTURE(name(field));
      Candidate zeros = right;
      Candidate permuted = right;
      Candidate halved = right;
      const auto values = right.fields.at(field).as<Bf16>();
      const auto width = static_cast<std::size_t>(right.fields.at(field).shape()[1]);
      for (std::size_t i = 0; i < values.size(); ++i) {
        zeros.fields.at(field).as<Bf16>()[i] = Bf16{};
        permuted.fields.at(field).as<Bf16>()[i] = values[(i + width) % values.size()];
        halved.fields.at(field).as<Bf16>()[i] = round_to_bf16(0.5f * to_float(values[i]));
      }
      for (const auto* wrong : {&zeros, &permuted, &halved})
        CHECK(of(judged(problem, *wrong), field).isolated.verdict == Verdict::Failed);
    }
  }

  TEST_CASE("correct layers pass on every small fixture, in both arithmetics and every contract") {
    for (const auto& name : matching_fixtures({"*"})) {
      if (name.starts_with("qwen3")) continue;
      const Problem problem = load_fixture(name);
      for (const auto contract : kKernelContracts) {
        // Contracts differ in where a sum is rounded, not in its length: "exact" shows it where every sum is
        // exact, "long" where it has 2,048 terms, and both at once take ten times what all the others do.
        if (name == "exact_wide" && contract != "hf" && contract != "fused_fp32") continue;
        CAPTURE(name);
        CAPTURE(contract);
        CHECK(judged(problem, predicted(problem, contract)).verdict == Verdict::Passed);
        Candidate reference = run_pipeline("reference_cpu", problem, {std::string(contract)});
        CHECK(judged(problem, reference).verdict == Verdict::Passed);
      }
    }
  }

  TEST_CASE("legal orders of summation pass: sequential, pairwise, the tensor core, split in four") {
    for (const char* name : {"tiny", "odd", "one_sign", "cancellation", "wide"}) {
      const Problem problem = load_fixture(name);
      for (const Accumulator& order :
           {Accumulator{AccumulatorKind::Fp32Sequential, {}}, Accumulator{AccumulatorKind::Fp32Pairwise, {}},
            Accumulator{AccumulatorKind::Hopper, {}},
            Accumulator{AccumulatorKind::Hopper, {16, 16, 16, 16}}}) {
        Candidate candidate = predict_forward(problem, find_contract("hf"), {order, order, order});
        candidate.accumulators = {};  // judged by bounds alone
        CAPTURE(name);
        CAPTURE(to_string(order));
        CHECK(judged(problem, candidate).verdict == Verdict::Passed);
      }
    }
  }
}
