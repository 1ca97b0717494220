// Derivations against the reference that judges: for sampled elements of every field they have its interval,
// verdict and bits, their sums end in the predicted value, and their bounds add up.
#include "reference_cpu/explain/explain.h"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "harness/contract/error.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/upstream.h"
#include "reference_cpu/product/test_products.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"

using namespace assay;

namespace {

/// Nothing a power of two.
const MoeConfig kOdd{72, 40, 7, 3, true};
const MoeConfig kNotRenormalised{72, 40, 7, 3, false};

Problem odd() { return random_layer(Data::Gaussian, kOdd, 13, 12); }

Accumulators all(const char* text) {
  const auto one = parse_accumulator(text);
  return every_product(one);
}

/// Axis names of flat element `index`, as a user would give them.
std::map<std::string, std::int64_t> place_of(Field field, const Sizes& sizes, std::int64_t index) {
  const Shape shape = expected_shape(field, sizes);
  std::map<std::string, std::int64_t> at;
  for (std::size_t axis = shape.size(); axis-- > 0; index /= shape[axis])
    at[std::string(axis_name(field, axis))] = index % shape[axis];
  return at;
}

/// Every field that carries rounded values.
std::vector<Field> rounded_fields() {
  std::vector<Field> fields;
  for (const StepRow& step : kSteps)
    if (step.stored != nullptr) fields.push_back(step.made);
  return fields;
}

double half_width(const Interval& x) { return std::max(x.high - x.ref, x.ref - x.low); }

}  // namespace

TEST_SUITE("explain") {
  TEST_CASE("interval, bits and verdict are the judge's, in every field, mode and contract") {
    for (const MoeConfig& config : {kOdd, kNotRenormalised}) {
      const Problem problem = random_layer(Data::Gaussian, config, 13, 12);
      for (const auto contract_name : kKernelContracts) {
        const auto& contract = find_contract(contract_name);
        const auto accumulators = all("hopper");
        const Candidate candidate = predict_both_passes(problem, contract, accumulators);
        const auto upstream = usable_upstream(problem, candidate.fields);
        for (const Field field : rounded_fields()) {
          if (!candidate.fields.has(field)) continue;
          for (const Mode mode : {Mode::Isolated, Mode::Chained}) {
            const auto reference = make_reference(problem, upstream, contract, accumulators, true);
            const auto intervals = reference->bounded(field, mode, all_rows(field, problem.sizes()));
            const auto predicted = reference->predicted(field, mode, all_rows(field, problem.sizes()));
            const std::int64_t size = candidate.fields.at(field).size();
            for (const std::int64_t index : {size / 3, size - 1}) {
              CAPTURE(config.norm_topk_prob);
              CAPTURE(contract_name);
              CAPTURE(name(field));
              CAPTURE(index);
              const auto d =
                  explain(problem, candidate, contract, accumulators, true,
                          {field, place_of(field, problem.sizes(), index), mode, 4, candidate.accumulators});
              const auto& interval = intervals[static_cast<std::size_t>(index)];
              CHECK(d.value.ref == interval.ref);
              CHECK(d.value.low == interval.low);
              CHECK(d.value.high == interval.high);
              REQUIRE(d.predicted);
              CHECK(d.predicted->bits == predicted[static_cast<std::size_t>(index)].bits);
              const DType dtype = dtype_of(field, contract);
              const StoredSpan stored(candidate.fields.at(field), dtype);
              CHECK(d.out_bits == stored[static_cast<std::size_t>(index)].bits());
              CHECK(d.verdict == Verdict::Passed);
              CHECK(d.accepted_count >= 1);
              // The last step or sum leads to the predicted bits, through the last rounding.
              std::optional<float> last;
              if (!d.steps.empty())
                last = d.steps.back().predicted;
              else if (!d.sums.empty())
                last = d.sums.back().running;
              if (last)
                CHECK(stored_as(dtype, *last).bits() == d.predicted->bits);
              else
                CHECK(field == Field::hidden_states_unpermute);
              double bound = 0.0;
              for (const auto& part : d.bound) bound += part.value;
              if (!d.bound.empty() && std::isfinite(bound) && mode == Mode::Isolated &&
                  field != Field::intermediate)
                CHECK(half_width(d.value) <= bound * (1.0 + 0x1p-8) + 4 * 0x1p-53 * std::fabs(d.value.ref));
            }
          }
        }
      }
    }
  }

  TEST_CASE("an order that was only assumed narrows no interval, here as in a verification") {
    const Problem problem = odd();
    const auto& contract = find_contract("hf");
    const Candidate candidate = predict_forward(problem, contract, all("hopper"));
    const auto upstream = usable_upstream(problem, candidate.fields);
    for (const char* accumulator : {"hopper_any_split", "hopper"}) {
      const auto intervals =
          make_reference(problem, upstream, contract, all(accumulator), true)
              ->bounded(Field::first_gemm, Mode::Isolated, all_rows(Field::first_gemm, problem.sizes()));
      const std::int64_t index = 1234;
      const auto d = explain(
          problem, candidate, contract, all(accumulator), true,
          {Field::first_gemm, place_of(Field::first_gemm, problem.sizes(), index), Mode::Isolated, 1, {}});
      CAPTURE(accumulator);
      CHECK(d.value.high == intervals[index].high);
      CHECK(d.accumulator == "hopper");
      CHECK(d.running.empty() == (std::string_view(accumulator) != "hopper"));
    }
  }

  TEST_CASE("partial sums agree with the vector kernels for every accumulator and length of K") {
    const Problem problem = random_layer(Data::HeavyTail, kOdd, 16, 22);
    const auto& contract = find_contract("hf");
    for (const char* accumulator :
         {"fp32_sequential", "fp32_pairwise", "hopper", "hopper_split(32, 40)", "hopper_split(16, 16, 8)"}) {
      const auto accumulators = all(accumulator);
      const Candidate candidate = predict_forward(problem, contract, accumulators);
      for (const Field field : {Field::router_logits, Field::first_gemm, Field::second_gemm}) {
        const auto out = candidate.fields.at(field).as<Bf16>();
        for (std::size_t index = 0; index < out.size(); index += out.size() / 50 + 1) {
          const auto d = explain(problem, candidate, contract, accumulators, true,
                                 {field, place_of(field, problem.sizes(), static_cast<std::int64_t>(index)),
                                  Mode::Isolated, 1, candidate.accumulators});
          CAPTURE(accumulator);
          CAPTURE(name(field));
          CAPTURE(index);
          REQUIRE(!d.sums.empty());
          REQUIRE(d.sums.back().running);
          CHECK(round_to_bf16(*d.sums.back().running).bits == out[index].bits);
          CHECK(d.sums.back().end == d.terms);
        }
      }
    }
  }

  TEST_CASE("the tensor core by hand: alignment to the largest exponent, 25 fractional bits, truncation") {
    // 1 + 15 2^-25: three units of the last place remain where 3.75 would be exact (NUMERICS 4).
    std::vector<float> a(16, 0x1p-25f);
    a[0] = 1.0f;
    const std::vector<double> exact(a.begin(), a.end());
    const std::vector<double> exact_ones(16, 1.0);
    const std::vector<float> ones(16, 1.0f);
    const auto sums = partial_sums({exact, exact_ones, a, ones}, parse_accumulator("hopper"));
    REQUIRE(sums.size() == 1);
    CHECK(*sums[0].running == 1.0f + 3 * 0x1p-23f);
    CHECK(sums[0].exponent == 0);
    CHECK(sums[0].exact == 1.0 + 15 * 0x1p-25);
    // fp32, one after the other: each addend is a quarter of a unit and rounds away.
    CHECK(*partial_sums({exact, exact_ones, a, ones}, parse_accumulator("fp32_sequential"))[0].running ==
          1.0f);
    CHECK_FALSE(partial_sums({exact, exact_ones, {}, {}}, parse_accumulator("unknown"))[0].running);
  }

  TEST_CASE("all terms add up to the reference, and the largest come first") {
    const Problem problem = odd();
    const auto& contract = find_contract("hf");
    const Candidate candidate = predict_forward(problem, contract, all("hopper"));
    const auto d = explain(problem, candidate, contract, all("hopper"), true,
                           {Field::second_gemm,
                            {{"row", 7}, {"col", 3}},
                            Mode::Isolated,
                            std::numeric_limits<std::size_t>::max(),
                            candidate.accumulators});
    CHECK(static_cast<std::int64_t>(d.largest.size()) == problem.config.moe_intermediate_size);
    double sum = 0.0;
    double magnitude = 0.0;
    double before = std::numeric_limits<double>::infinity();
    for (const auto& term : d.largest) {
      CHECK(std::fabs(term.a * term.b) <= before);
      before = std::fabs(term.a * term.b);
      sum += term.a * term.b;
      magnitude += before;
    }
    CHECK(std::fabs(sum - d.value.ref) <= 64 * 0x1p-53 * magnitude);
    CHECK(std::fabs(magnitude - d.magnitude) <= 64 * 0x1p-53 * magnitude);
  }

  TEST_CASE("a wrong bit is rejected, a legal neighbour that was not predicted is suspect") {
    const Problem problem = odd();
    const auto& contract = find_contract("hf");
    Candidate candidate = predict_forward(problem, contract, all("hopper"));
    const auto intervals =
        make_reference(problem, usable_upstream(problem, candidate.fields), contract, all("hopper"), true)
            ->bounded(Field::first_gemm, Mode::Isolated, all_rows(Field::first_gemm, problem.sizes()));
    const auto out = candidate.fields.at(Field::first_gemm).as<Bf16>();
    const auto ask = [&](std::size_t index, bool binding) {
      return explain(
          problem, candidate, contract, all("hopper"), true,
          {Field::first_gemm, place_of(Field::first_gemm, problem.sizes(), static_cast<std::int64_t>(index)),
           Mode::Isolated, 1, binding ? candidate.accumulators : Accumulators{}});
    };
    int rejected = 0;
    int suspect = 0;
    for (std::size_t i = 0; i < out.size() && (rejected == 0 || suspect == 0); ++i) {
      const Bf16 low = round_to_bf16(intervals[i].low);
      const Bf16 high = round_to_bf16(intervals[i].high);
      const Bf16 right = out[i];
      if (low == high) {
        out[i].bits ^= 1;
        CHECK(ask(i, true).verdict == Verdict::Failed);
        ++rejected;
      } else {
        out[i] = right == low ? high : low;
        CHECK(ask(i, true).verdict == Verdict::Suspect);
        CHECK(ask(i, false).verdict == Verdict::Passed);
        ++suspect;
      }
      out[i] = right;
    }
    CHECK(rejected > 0);
    CHECK(suspect > 0);
    out[5].bits = 0x7fc0;
    CHECK(ask(5, true).verdict == Verdict::NonFinite);
  }

  TEST_CASE("the ranking names the border of the selection, and a wrong choice is rejected") {
    const Problem problem = odd();
    const auto& contract = find_contract("hf");
    Candidate candidate = predict_forward(problem, contract, all("hopper"));
    const Question question{
        Field::selected_experts, {{"token", 4}, {"slot", 0}}, Mode::Isolated, 1, candidate.accumulators};
    const auto right = explain(problem, candidate, contract, all("hopper"), true, question);
    CHECK(right.verdict == Verdict::Passed);
    REQUIRE(right.ranking.size() == 7);
    double total = 0.0;
    for (std::size_t i = 0; i < right.ranking.size(); ++i) {
      const auto& e = right.ranking[i];
      total += e.probability;
      CHECK((e.slot >= 0) == (i < 3));
      CHECK(e.slot == e.predicted_slot);
      if (i > 0) CHECK(e.logit <= right.ranking[i - 1].logit);
      CHECK(e.gap == e.logit - right.ranking[i < 3 ? 3 : 2].logit);
    }
    CHECK(std::fabs(total - 1.0) < 1e-12);
    auto& chosen = candidate.fields.at(Field::selected_experts).as<std::int32_t>()[4 * 3 + 2];
    chosen = static_cast<std::int32_t>(right.ranking[6].expert);
    CHECK(explain(problem, candidate, contract, all("hopper"), true, question).verdict == Verdict::Failed);
  }

  TEST_CASE("a field that is missing, or no forward field, is said") {
    const Problem problem = odd();
    const auto& contract = find_contract("hf");
    Candidate candidate = predict_forward(problem, contract, all("hopper"));
    candidate.fields.erase(Field::intermediate);
    const auto d =
        explain(problem, candidate, contract, all("hopper"), true,
                {Field::second_gemm, {{"row", 0}, {"col", 0}}, Mode::Isolated, 1, candidate.accumulators});
    CHECK(d.from == "intermediate");
    CHECK(d.verdict == Verdict::Passed);
    const auto missing =
        explain(problem, candidate, contract, all("hopper"), true,
                {Field::intermediate, {{"row", 0}, {"col", 0}}, Mode::Isolated, 1, candidate.accumulators});
    CHECK(missing.verdict == Verdict::NotMaterialised);
    CHECK_FALSE(missing.out);
    const auto ask = [&](const Problem& of, Field field, std::map<std::string, std::int64_t> at) {
      return explain(of, candidate, contract, all("hopper"), true,
                     {field, std::move(at), Mode::Isolated, 1, candidate.accumulators});
    };
    CHECK_THROWS_AS(ask(problem, Field::gate, {{"expert", 0}, {"col", 0}}), UsageError);
    Problem without = problem;
    without.output_gradient = {};
    CHECK_THROWS_AS(ask(without, Field::d_gate, {{"expert", 0}, {"col", 0}}), UsageError);
    CHECK(ask(problem, Field::d_gate, {{"expert", 0}, {"col", 0}}).verdict == Verdict::NotMaterialised);
  }
}
