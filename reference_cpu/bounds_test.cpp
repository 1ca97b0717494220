// Bounds of products: numbers worked by hand, brute force in every declared order, what the running bound
// rejects, exactness.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include "reference_cpu/product/test_products.h"
#include "reference_cpu/qwen3_moe.h"
#include "reference_cpu/reference_run.h"
#include "reference_cpu/stages.h"

using namespace assay;

namespace {

/// The running bound of one element, term by term in float64: the definition, sharing nothing with the
/// kernels.
double running_by_definition(const ProductExample& e, std::int64_t row, std::int64_t column,
                             const Accumulator& accumulator) {
  const auto term = [&](std::int64_t k) {
    return static_cast<double>(to_float(e.left[static_cast<std::size_t>(row * e.k + k)])) *
           to_float(e.right[static_cast<std::size_t>(column * e.k + k)]);
  };
  const Summation order = summation(accumulator, e.k);
  double bound = 0.0;
  double total = 0.0;
  double sum = 0.0;
  if (order.rule == StepRule::RoundTree) {
    const std::function<double(std::int64_t, std::int64_t)> node = [&](std::int64_t begin,
                                                                       std::int64_t count) {
      if (count == 1) return term(begin);
      std::int64_t half = 1;
      while (half * 2 < count) half *= 2;
      const double s = node(begin, half) + node(begin + half, count - half);
      bound += 0x1p-24 * std::fabs(s);
      return s;
    };
    node(0, e.k);
    return bound;
  }
  const std::int64_t step = order.rule == StepRule::RoundEach   ? 1
                            : order.rule == StepRule::Truncate8 ? 8
                                                                : 16;
  for (const auto& stretch : order.stretches) {
    for (std::int64_t k = stretch.begin; k < stretch.end; k += step) {
      double largest = std::fabs(sum);
      for (std::int64_t i = k; i < std::min(k + step, stretch.end); ++i) {
        largest = std::max(largest, std::fabs(term(i)));
        sum += term(i);
      }
      bound += step == 1 ? 0x1p-24 * std::fabs(sum) : 0x1p-23 * std::fabs(sum) + 0x1p-21 * largest;
    }
    if (!stretch.closes) continue;
    total += sum;
    sum = 0.0;
    if (order.stretches.size() > 1) bound += 0x1p-24 * std::fabs(total);
  }
  return bound;
}

}  // namespace

TEST_SUITE("bounds") {
  TEST_CASE("numbers worked by hand") {
    CHECK(product_bound_constant(1) == 0x1p-24 / (1.0 - 0x1p-24));
    CHECK(product_bound_constant(2048) == doctest::Approx(2048.0 / (16777216.0 - 2048.0)).epsilon(1e-15));
    CHECK(granularity(6.0) == 2.0);
    CHECK(granularity(-0.40625) == 0.03125);
    CHECK(granularity(1.0) == 1.0);
    CHECK(std::isinf(granularity(0.0)));
    CHECK(granularity(INFINITY) == 0.0);
    CHECK(granularity(NAN) == 0.0);
    // 32 terms 1, the last 2^-60, which no proof of exactness covers: prefixes 16 and 31 + 2^-60, the largest
    // addend 1, then 16.
    std::vector<float> ones(32, 1.0f);
    std::vector<float> last(32, 1.0f);
    last[31] = 0x1p-60f;
    const double by_hand = 0x1p-23 * (16 + 31) + 0x1p-21 * (1 + 16);
    CHECK(width(multiply<Interval>(of_values(ones, last), kHopper)[0]) ==
          doctest::Approx(by_hand).epsilon(1e-4));
    // In two halves: prefixes 16 and 15, largest addends 1 and 1, totals 16 and 31.
    const double halves = 0x1p-23 * (16 + 15) + 0x1p-21 * 2 + 0x1p-24 * (16 + 31);
    CHECK(width(multiply<Interval>(of_values(ones, last), {AccumulatorKind::Hopper, {16, 16}})[0]) ==
          doctest::Approx(halves).epsilon(1e-4));
    // One by one: prefixes 1, 2, ..., 31, 31.
    CHECK(width(multiply<Interval>(of_values(ones, last), {AccumulatorKind::Fp32Sequential, {}})[0]) ==
          doctest::Approx(0x1p-24 * (31 * 32 / 2 + 31)).epsilon(1e-4));
    // No declared order: 32 / 2^24 times the sum of magnitudes.
    CHECK(width(multiply<Interval>(of_values(ones, last), {})[0]) ==
          doctest::Approx(32 * 0x1p-24 * 31).epsilon(1e-4));
  }

  TEST_CASE("the kernels' running bound is the definition's, inflated by less than a thousandth") {
    for (const auto& accumulator : declared_orders()) {
      const auto e = random_example(Data::Gaussian, 3, 300, 19, 4);
      const auto out = multiply<Interval>(e, accumulator);
      INFO(to_string(accumulator));
      for (std::int64_t r = 0; r < e.rows; ++r)
        for (std::int64_t c = 0; c < e.n; ++c) {
          const double expected = running_by_definition(e, r, c, accumulator);
          const double found = width(out[static_cast<std::size_t>(r * e.n + c)]);
          CHECK(found >= expected);
          CHECK(found <= expected * 1.001);
        }
    }
  }

  TEST_CASE("every accumulator lies inside its own bound, on data of every kind") {
    for (const auto& accumulator : declared_orders())
      for (const Data data : {Data::Gaussian, Data::OneSign, Data::Octave, Data::HeavyTail, Data::Cancelling})
        for (const std::int64_t k : {1, 2, 8, 9, 16, 17, 100, 161, 768, 4096}) {
          const auto e = random_example(data, 6, k, 33, static_cast<unsigned>(k) + 17);
          const auto bounded = multiply<Interval>(e, accumulator);
          const auto predicted = multiply<PredictedValue>(e, accumulator);
          std::int64_t outside = 0;
          double closest = 0.0;
          for (std::size_t i = 0; i < bounded.size(); ++i) {
            outside += !(bounded[i].low <= predicted[i].value && predicted[i].value <= bounded[i].high);
            if (width(bounded[i]) > 0.0)
              closest = std::max(closest, std::fabs(predicted[i].value - bounded[i].ref) / width(bounded[i]));
          }
          INFO(fmt::format("{}, data {}, {} terms: {} outside, largest error {:.3f} of the bound",
                           to_string(accumulator), static_cast<int>(data), k, outside, closest));
          CHECK(outside == 0);
        }
  }

  TEST_CASE(
      "every accumulator lies inside the a-priori bound; one that aligns 8 products inside twice of it") {
    for (const auto& accumulator : declared_orders())
      for (const std::int64_t k : {16, 300, 4096}) {
        const auto e = random_example(Data::OneSign, 4, k, 20, 5);
        const auto bounded = multiply<Interval>(e, {});
        const auto predicted = multiply<PredictedValue>(e, accumulator);
        const double slack = accumulator.kind == AccumulatorKind::Ampere ? 2.0 : 1.0;
        for (std::size_t i = 0; i < bounded.size(); ++i)
          CHECK(std::fabs(predicted[i].value - bounded[i].ref) <= slack * width(bounded[i]));
      }
  }

  TEST_CASE(
      "slots summed as one product on a tensor core stay inside the bound of fp32 products; K - 1 roundings "
      "would not cover two slots") {
    PrecisionContract contract = find_contract("hf_fp32_merge");
    std::int64_t beyond_additions = 0;
    for (const auto& [accumulator, slack] :
         {std::pair{kHopper, 1.0}, std::pair{Accumulator{AccumulatorKind::Ampere, {}}, 2.0}})
      for (const Data data : {Data::Gaussian, Data::OneSign, Data::Octave, Data::HeavyTail, Data::Cancelling})
        for (const std::int64_t k : {1, 2, 3, 4, 8, 9, 10, 16, 17, 22, 33, 64}) {
          contract.product_slack = slack;
          const auto e = random_example(data, 40, k, 50, 8);
          const auto summed = multiply<PredictedValue>(e, accumulator);
          for (std::int64_t i = 0; i < e.rows * e.n; ++i) {
            double exact = 0.0;
            double magnitude = 0.0;
            for (std::int64_t j = 0; j < k; ++j) {
              const double term =
                  static_cast<double>(to_float(e.left[static_cast<std::size_t>(i / e.n * k + j)])) *
                  to_float(e.right[static_cast<std::size_t>(i % e.n * k + j)]);
              exact += term;
              magnitude += std::fabs(term);
            }
            const double error = std::fabs(summed[static_cast<std::size_t>(i)].value - exact);
            if (error > gamma(slot_sum_length(contract, k)) * magnitude)
              FAIL_CHECK(fmt::format("{}, data {}, {} slots: off by {}", to_string(accumulator),
                                     static_cast<int>(data), k, error));
            beyond_additions += k == 2 && slack == 1.0 && error > gamma(k - 1) * magnitude;
          }
        }
    CHECK(beyond_additions > 0);
    CHECK(slot_sum_length(find_contract("hf"), 8) == 7);
  }

  TEST_CASE(
      "the running bound is narrower by far, and rejects a K block scaled by 0.999, which the a-priori bound "
      "accepts") {
    const auto e = random_example(Data::Gaussian, 16, 2048, 48, 9);
    auto faulty = e;
    const auto declared = multiply<Interval>(e, kHopper);
    const auto any_order = multiply<Interval>(e, {});
    // 16 of 2048 elements of K, each row's share of the sum too small by a thousandth: beyond bf16, so scaled
    // after the product.
    const auto right = multiply<PredictedValue>(e, kHopper);
    for (std::int64_t r = 0; r < e.rows; ++r)
      for (std::int64_t k = 0; k < e.k; ++k)
        if (k < 512 || k >= 528) faulty.left[static_cast<std::size_t>(r * e.k + k)] = Bf16{};
    const auto block = multiply<PredictedValue>(faulty, kHopper);
    std::int64_t rejected = 0;
    std::int64_t rejected_a_priori = 0;
    double narrower = 0.0;
    for (std::size_t i = 0; i < declared.size(); ++i) {
      const double value = right[i].value - 0.001 * block[i].value;
      rejected += !(declared[i].low <= value && value <= declared[i].high);
      rejected_a_priori += !(any_order[i].low <= value && value <= any_order[i].high);
      narrower += width(any_order[i]) / width(declared[i]);
    }
    narrower /= static_cast<double>(declared.size());
    MESSAGE(fmt::format(
        "{} of {} rejected by the running bound, {} by the a-priori bound, which is {:.1f} times as wide",
        rejected, declared.size(), rejected_a_priori, narrower));
    CHECK(narrower > 10.0);
    CHECK(rejected > static_cast<std::int64_t>(declared.size() / 2));
    CHECK(rejected_a_priori * 4 < rejected);
  }

  TEST_CASE("the wrong order is outside the running bound of the declared one for some element") {
    // One sign, wide range: the order decides which small terms are cut.
    const auto e = random_example(Data::HeavyTail, 16, 2048, 48, 3);
    const auto bounded = multiply<Interval>(e, {AccumulatorKind::Fp32Pairwise, {}});
    const auto other = multiply<PredictedValue>(e, kHopper);
    std::int64_t outside = 0;
    for (std::size_t i = 0; i < bounded.size(); ++i)
      outside += !(bounded[i].low <= other[i].value && other[i].value <= bounded[i].high);
    CHECK(outside > 0);
  }

  TEST_CASE(
      "an element whose terms are multiples of q with a sum below 2^24 q has no width, and every order gives "
      "it") {
    std::vector<float> a(2000);
    std::vector<float> b(2000);
    for (std::size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<float>(static_cast<int>(i * 37 % 129) - 64);
      b[i] = static_cast<float>(static_cast<int>(i * 53 % 65) - 32) * 0.25f;
    }
    const auto e = of_values(a, b);
    for (const Accumulator& accumulator : {Accumulator{}, kHopper}) {
      const auto exact = multiply<Interval>(e, accumulator)[0];
      CHECK(exact.low == exact.ref);
      CHECK(exact.high == exact.ref);
      CHECK(exact.noise == 0.0);
    }
    for (const auto& order : declared_orders())
      CHECK(multiply<PredictedValue>(e, order)[0].value == multiply<Interval>(e, {})[0].ref);
  }

  TEST_CASE("exactness ends where the sum of magnitudes reaches 2^24 q") {
    // 1 and 1023 terms of 128 * 128: q = 1, the sum of magnitudes 2^24 - 16383. One term more makes it 2^24
    // + 1.
    std::vector<float> a(1024, 128.0f);
    std::vector<float> b(1024, 128.0f);
    a[0] = b[0] = 1.0f;
    CHECK(width(multiply<Interval>(of_values(a, b), {})[0]) == 0.0);
    a.resize(1025, 128.0f);
    b.resize(1025, 128.0f);
    CHECK(width(multiply<Interval>(of_values(a, b), {})[0]) > 0.0);
    a[0] = b[0] = NAN;
    CHECK(std::isnan(multiply<Interval>(of_values(a, b), {})[0].ref));
    CHECK(width(multiply<Interval>(of_values({0.0f, 0.0f}, {3.0f, 5.0f}), {})[0]) == 0.0);
    CHECK(std::isnan(multiply<Interval>(of_values({0.0f, 0.0f}, {INFINITY, 5.0f}), {})[0].ref));
  }

  TEST_CASE(
      "an undeclared order keeps the a-priori bound, also where a Hopper order is assumed for the "
      "prediction") {
    const auto problem = random_layer(Data::Gaussian, {256, 64, 8, 2, true}, 8, 1);
    const auto candidate = predict_forward(problem, find_contract("hf"), {kHopper, kHopper, kHopper});
    Upstream upstream;
    upstream.fields = &candidate.fields;
    upstream.usable.fill(true);
    const Accumulator assumed{AccumulatorKind::HopperAnySplit, {}};
    const auto undeclared =
        make_reference(problem, upstream, find_contract("hf"), every_product(assumed), true);
    const auto declared =
        make_reference(problem, upstream, find_contract("hf"), {kHopper, kHopper, kHopper}, true);
    const RowRange rows = all_rows(Field::first_gemm, problem.sizes());
    undeclared->predicted(Field::first_gemm, Mode::Isolated, rows);  // resolves the split
    const auto wide = undeclared->bounded(Field::first_gemm, Mode::Isolated, rows);
    const auto narrow = declared->bounded(Field::first_gemm, Mode::Isolated, rows);
    std::int64_t narrower = 0;
    for (std::size_t i = 0; i < wide.size(); ++i) narrower += width(narrow[i]) < 0.5 * width(wide[i]);
    CHECK(narrower > static_cast<std::int64_t>(wide.size()) / 2);
  }
}
