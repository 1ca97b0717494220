// Derivations of gradients: the rows of a weight's gradient, block by block; every rounding on the way; what
// cancels; what is held by hashes.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "harness/contract/precision_contract.h"
#include "harness/contract/upstream.h"
#include "reference_cpu/explain/explain.h"
#include "reference_cpu/product/test_products.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;

namespace {

constexpr std::size_t kAllTerms = std::numeric_limits<std::size_t>::max();

/// Experts with more than 16 rows, whose sums reach further blocks, and one without rows.
struct Explained {
  Problem problem;
  PrecisionContract contract;
  Accumulators accumulators = every_product({AccumulatorKind::Hopper, {}});
  Candidate candidate;

  explicit Explained(const PrecisionContract& rule = find_contract("hf"), bool renormalised = true)
      : problem(random_layer(Data::Gaussian, {24, 16, 5, 2, renormalised}, 61, 7)),
        contract(rule),
        candidate(predict_both_passes(problem, contract, accumulators)) {}

  Derivation at(Field field, std::map<std::string, std::int64_t> place, Mode mode = Mode::Isolated) const {
    return explain(problem, candidate, contract, accumulators, true,
                   {field, std::move(place), mode, kAllTerms, candidate.accumulators});
  }
  std::vector<std::int64_t> slots_of(std::int64_t expert) const {
    std::vector<std::int64_t> slots;
    const auto selected = candidate.fields.at(Field::selected_experts).as<std::int32_t>();
    for (std::size_t s = 0; s < selected.size(); ++s)
      if (selected[s] == expert) slots.push_back(static_cast<std::int64_t>(s));
    return slots;
  }
};

}  // namespace

TEST_SUITE("explain gradients") {
  TEST_CASE("an element of a weight's gradient names its rows, and sums them in blocks of 16") {
    for (const char* contract : {"hf", "hf_eager"}) {
      const Explained e(find_contract(contract));
      for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj}) {
        for (std::int64_t expert = 0; expert < e.problem.config.num_experts; ++expert) {
          CAPTURE(contract);
          CAPTURE(name(field));
          CAPTURE(expert);
          const auto d = e.at(field, {{"expert", expert}, {"row", 5}, {"col", 3}});
          auto slots = e.slots_of(expert);
          CHECK(d.verdict == Verdict::Passed);
          REQUIRE(d.terms == std::ssize(slots));
          if (slots.empty()) {
            CHECK(d.out == 0.0);
            CHECK(d.accepted_count == 1);
            continue;
          }
          if (e.contract.weight_gradient_rows == RowOrder::BySlot)
            std::ranges::stable_sort(slots, {}, [](std::int64_t s) { return s % 2; });
          double sum = 0.0;
          for (const auto& term : d.largest) {
            CHECK(term.token * 2 + term.slot == slots[static_cast<std::size_t>(term.k)]);
            CHECK(term.product == term.a * term.b);
            sum += term.product;
          }
          CHECK(std::fabs(sum - d.value.ref) <= 64 * 0x1p-53 * d.magnitude);
          REQUIRE(std::ssize(d.sums) == (d.terms + 15) / 16);
          CHECK(d.sums.front().end == std::min<std::int64_t>(16, d.terms));
          CHECK(d.sums.back().end == d.terms);
          REQUIRE(d.sums.back().running);
          CHECK(round_to_bf16(*d.sums.back().running).bits == d.out_bits);
        }
      }
    }
  }

  TEST_CASE("the gradient of the gate sums over all tokens, that of the input adds the router's part") {
    const Explained e;
    const auto d_gate = e.at(Field::d_gate, {{"expert", 2}, {"col", 3}});
    CHECK(d_gate.terms == 61);
    CHECK(std::ssize(d_gate.sums) == 4);
    CHECK(d_gate.largest.front().token >= 0);
    CHECK(d_gate.largest.front().slot == -1);
    const auto d_input = e.at(Field::d_input_hidden_states, {{"token", 60}, {"col", 23}});
    CHECK(d_input.terms == e.problem.config.num_experts);
    REQUIRE(d_input.steps.size() == 4);  // experts' part, router's, rounded, their sum
    CHECK(d_input.steps[1].value.ref == doctest::Approx(d_input.sums.back().exact).epsilon(1e-12));
    CHECK(d_input.steps[0].value.ref + d_input.steps[2].value.ref == d_input.value.ref);
    CHECK(round_to_bf16(*d_input.steps[2].predicted).bits ==
          round_to_bf16(*d_input.sums.back().running).bits);
  }

  TEST_CASE("SwiGLU's gradient shows each declared rounding, of both halves") {
    for (const Store store : {Store::Bf16, Store::Unrounded}) {
      PrecisionContract contract = find_contract("hf");
      contract.silu = contract.d_silu = store;
      const Explained e(contract);
      for (const std::int64_t col : {3, 16 + 3}) {
        const auto d = e.at(Field::d_first_gemm, {{"row", 40}, {"col", col}});
        CAPTURE(col);
        CHECK(d.verdict != Verdict::Failed);
        const bool rounds = (col < 16 ? e.contract.d_silu : e.contract.silu) == Store::Bf16;
        CHECK(std::ranges::count(d.steps, std::string("a declared rounding"), &DerivationStep::formula) ==
              rounds);
        const double a = d.steps[1].value.ref;
        const double s = 1.0 / (1.0 + std::exp(-a));
        const double d_of = d.steps[0].value.ref;
        const double by_hand =
            col < 16 ? d_of * d.steps[2].value.ref * s * (1.0 + a * (1.0 - s)) : d_of * a * s;
        CHECK(d.value.ref == doctest::Approx(by_hand).epsilon(rounds ? 0x1p-8 : 1e-12));
      }
    }
  }

  TEST_CASE(
      "a logit's gradient goes through the softmax, and is 0 for who was not chosen among renormalised") {
    for (const bool renormalised : {true, false}) {
      const Explained e(find_contract("hf"), renormalised);
      const std::int64_t token = 11;
      const auto selected = e.candidate.fields.at(Field::selected_experts).as<std::int32_t>().subspan(22, 2);
      for (std::int64_t expert = 0; expert < 5; ++expert) {
        const auto d = e.at(Field::d_router_logits, {{"token", token}, {"expert", expert}});
        CAPTURE(renormalised);
        CAPTURE(expert);
        CHECK(d.verdict == Verdict::Passed);
        REQUIRE(d.slots.size() == 2);
        // w_i (g_i - sum w g): by hand from the weights and gradients that are shown.
        double mean = 0.0;
        double own = 0.0;
        double weight = d.steps.front().value.ref;
        for (const auto& slot : d.slots) mean += slot.product.ref;
        for (const auto& slot : d.slots)
          if (slot.expert == expert) {
            own = slot.value.ref;
            weight = slot.weight->ref;
          }
        const bool chosen = std::ranges::find(selected, expert) != selected.end();
        const double by_hand = chosen || !renormalised ? weight * (own - mean) : 0.0;
        CHECK(std::fabs(d.value.ref - by_hand) <= 1e-13);
        CHECK(d.remarks.size() == (renormalised && !chosen ? 1u : 0u));
      }
    }
  }

  TEST_CASE("a token's cut predicts what the whole predicts, although torch's sum of a row knows its place") {
    const Explained e;
    const auto reference = make_reference(e.problem, usable_upstream(e.problem, e.candidate.fields),
                                          e.contract, e.accumulators, true);
    for (const Field field : {Field::d_topk_weights, Field::d_router_logits, Field::d_input_hidden_states}) {
      const auto bits = reference->predicted(field, Mode::Chained, all_rows(field, e.problem.sizes()));
      for (std::int64_t token = 0; token < 61; token += 7) {
        const auto d = e.at(field, {{"token", token}, {std::string(axis_name(field, 1)), 1}}, Mode::Chained);
        const auto index = static_cast<std::size_t>(token * width_of(field, e.problem.sizes()) + 1);
        CAPTURE(name(field));
        CHECK(d.predicted->bits == bits[index].bits);
        CHECK(round_to_bf16(*d.steps.back().predicted).bits == d.predicted->bits);
      }
    }
  }

  TEST_CASE("of a gradient held by hashes the stored rows are judged, others are derived all the same") {
    Explained e;
    Tensor all = e.candidate.fields.at(Field::d_down_proj);
    const auto values = all.as<Bf16>();
    HeldField held{Field::d_down_proj, DType::BFloat16, all.shape(), {}, {{24, 2}, {50, 1}}, {}};
    held.rows = Tensor(DType::BFloat16, {3, 16});
    std::ranges::copy(values.subspan(24 * 16, 32), held.rows.as<Bf16>().begin());
    std::ranges::copy(values.subspan(50 * 16, 16), held.rows.as<Bf16>().begin() + 32);
    e.candidate.fields.erase(Field::d_down_proj);
    e.candidate.held.push_back(std::move(held));
    // Row 50 of the field is row 2 of expert 2's matrix.
    const auto stored = e.at(Field::d_down_proj, {{"expert", 2}, {"row", 2}, {"col", 7}});
    CHECK(stored.out_bits == values[50 * 16 + 7].bits);
    CHECK(stored.verdict == Verdict::Passed);
    const auto missing = e.at(Field::d_down_proj, {{"expert", 2}, {"row", 3}, {"col", 7}});
    CHECK(missing.verdict == Verdict::NotMaterialised);
    CHECK(missing.sentence == "the candidate's field is held by its hashes, and this row is not stored");
    CHECK(missing.predicted->bits == values[51 * 16 + 7].bits);
  }

  TEST_CASE("main gradients are float32 values: neighbours, bits and intervals are of that type") {
    for (const char* contract : {"hf_main_grads", "hf_added_main_grads"}) {
      const Explained e(find_contract(contract));
      const bool rounds = e.contract.weight_products == Store::Bf16;
      const auto busiest = [&] {
        std::int64_t best = 0;
        for (std::int64_t x = 1; x < 5; ++x)
          if (e.slots_of(x).size() > e.slots_of(best).size()) best = x;
        return best;
      }();
      for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj}) {
        CAPTURE(contract);
        CAPTURE(name(field));
        const auto d = e.at(field, {{"expert", busiest}, {"row", 5}, {"col", 3}});
        CHECK(d.dtype == DType::Float32);
        CHECK(d.verdict == Verdict::Passed);
        REQUIRE(d.out);
        CHECK(d.out_bits == std::bit_cast<std::uint32_t>(static_cast<float>(*d.out)));
        CHECK(d.predicted->bits == d.out_bits);
        CHECK(d.steps.size() == (rounds ? 2u : 0u));  // the product, rounded to bf16
        CHECK((d.out_bits & 0xffffu) == (rounds ? 0u : d.out_bits & 0xffffu));
        REQUIRE(!d.accepted.empty());
        CHECK(d.accepted.front() == d.low);
        if (d.accepted.size() > 1)
          CHECK(static_cast<float>(d.accepted[1]) ==
                std::nextafter(static_cast<float>(d.low), std::numeric_limits<float>::infinity()));
        if (!rounds) CHECK(d.accepted_count > 1);
      }
    }
  }

  TEST_CASE("a gradient that is added to what was there shows the product, its rounding and the addition") {
    for (const char* contract : {"hf", "hf_in_place_grads", "hf_added_main_grads", "hf_main_grads"}) {
      Explained e(find_contract(contract));
      for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate}) {
        Tensor before(DType::BFloat16, expected_shape(field, e.problem.sizes()));
        const auto values = before.as<Bf16>();
        for (std::size_t i = 0; i < values.size(); ++i)
          values[i] = round_to_bf16(0.25f + static_cast<float>(i % 7));
        e.problem.previous.set(field, std::move(before));
      }
      e.candidate = predict_both_passes(e.problem, e.contract, e.accumulators);
      const bool rounds = e.contract.weight_products == Store::Bf16;
      for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate})
        for (std::int64_t expert = 0; expert < 5; ++expert) {
          std::map<std::string, std::int64_t> place = {{"expert", expert}, {"col", 3}};
          if (field != Field::d_gate) place["row"] = 5;
          const auto d = e.at(field, place);
          CAPTURE(contract);
          CAPTURE(name(field));
          CAPTURE(expert);
          CHECK(d.verdict == Verdict::Passed);
          CHECK(d.predicted->bits == d.out_bits);
          REQUIRE(d.steps.size() >= (rounds ? 4u : 3u));
          const auto steps = std::span(d.steps).last(rounds ? 4 : 3);
          CHECK(steps[0].what == "p: this pass's gradient");
          CHECK(steps[0].value.ref == doctest::Approx(d.sums.empty() ? 0.0 : d.sums.back().exact));
          const double before = steps[steps.size() - 2].value.ref;
          const std::size_t row =
              field == Field::d_gate
                  ? static_cast<std::size_t>(expert)
                  : static_cast<std::size_t>(expert * matrix_rows_of(field, e.problem.sizes()) + 5);
          const auto width = static_cast<std::size_t>(width_of(field, e.problem.sizes()));
          CHECK(before == 0.25 + static_cast<double>((row * width + 3) % 7));
          const Interval kept = steps[rounds ? 1 : 0].value;
          CHECK(std::fabs(d.value.ref - (kept.ref + before)) <= 0x1p-23 * std::fabs(d.value.ref));
          CHECK(stored_as(d.dtype, *steps.back().predicted).bits() == d.out_bits);
          double parts = 0.0;
          for (const auto& part : d.bound) parts += part.value;
          CHECK(parts >= radius(d.value));
        }
    }
  }

  TEST_CASE(
      "fields that a kernel forms otherwise, the weight after the product, are derived as it forms them") {
    const Explained e(find_contract("fused_fp32"));
    for (const std::int64_t col : {3, 16 + 3}) {
      const auto d = e.at(Field::d_first_gemm, {{"row", 40}, {"col", col}});
      CAPTURE(col);
      CHECK(d.verdict == Verdict::Passed);
      REQUIRE(d.steps.size() > 4);
      CHECK(d.steps[2].what == "d = p w");
      CHECK(d.steps[2].value.ref ==
            doctest::Approx(d.steps[0].value.ref * d.steps[1].value.ref).epsilon(1e-6));
      CHECK(round_to_bf16(*d.steps.back().predicted).bits == d.out_bits);
    }
    const auto dot = e.at(Field::d_topk_weights, {{"token", 11}, {"slot", 1}});
    CHECK(dot.verdict == Verdict::Passed);
    CHECK(dot.terms == 16);
    CHECK(dot.sums.back().exact == doctest::Approx(dot.value.ref).epsilon(1e-6));
    CHECK(round_to_bf16(*dot.steps.back().predicted).bits == dot.out_bits);
    double parts = 0.0;
    for (const auto& part : dot.bound) parts += part.value;
    CHECK(parts >= radius(dot.value));
    for (std::int64_t expert = 0; expert < 5; ++expert) {
      const auto d = e.at(Field::d_down_proj, {{"expert", expert}, {"row", 5}, {"col", 3}});
      CAPTURE(expert);
      CHECK(d.verdict == Verdict::Passed);
      CHECK(d.terms == std::ssize(e.slots_of(expert)));
      CHECK(d.operands.starts_with("a: d_hidden_states, b: w times the activation"));
      if (d.terms == 0) continue;
      CHECK(d.sums.back().exact == doctest::Approx(d.value.ref).epsilon(1e-12));
      CHECK(round_to_bf16(*d.sums.back().running).bits == d.out_bits);
    }
    // No kernel stores it, so there is nothing to judge.
    const auto late = e.at(Field::d_intermediate, {{"row", 40}, {"col", 3}});
    CHECK(late.verdict == Verdict::NotMaterialised);
    CHECK(late.terms == 24);
    CHECK(late.steps.back().value.ref == doctest::Approx(late.value.ref).epsilon(1e-6));
    CHECK(late.steps[0].value.ref == doctest::Approx(late.sums.back().exact).epsilon(1e-6));
  }
}
