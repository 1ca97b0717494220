// An engine is believed only as far as sampled rows go: right values are taken, wrong ones refused, declined
// products computed here.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "harness/contract/element_constants.h"
#include "harness/contract/engine.h"
#include "harness/contract/error.h"
#include "harness/contract/kept_at_hand.h"
#include "reference_cpu/product/product.h"

using namespace assay;

namespace {

constexpr std::int64_t kRows = 6;
constexpr std::int64_t kTerms = 40;
constexpr std::int64_t kColumns = 5;

struct Example {
  std::vector<Bf16>
      right;  // [kColumns, kTerms]: of many sizes, so that no sum is proven exact and intervals have a width
  std::vector<Interval> intervals;
  std::vector<PredictedValue> predictions;
  std::vector<std::int32_t> source = {5, 4, 3, 2, 1, 0};
  std::vector<std::int64_t> offsets = {0, 2, 2, 6};

  Example() {
    for (std::int64_t i = 0; i < kColumns * kTerms; ++i)
      right.push_back(round_to_bf16(std::exp(3.0 * std::cos(static_cast<double>(i)))));
    for (std::int64_t i = 0; i < kRows * kTerms; ++i) {
      const float x = to_float(round_to_bf16(std::sin(static_cast<double>(i))));
      intervals.push_back({x, x, x, 0.0});
      predictions.push_back({x, false});
    }
  }

  template <class Value>
  GroupedProduct<Value> product(const std::vector<Value>& left, const Engine* engine = nullptr) const {
    GroupedProduct<Value> p;
    p.engine = engine;
    p.left = left;
    p.source = source;
    p.offsets = offsets;
    p.k = kTerms;
    p.n = kColumns;
    p.weights = [this](std::int64_t) { return ExpertMatrix{right, nullptr}; };
    p.accumulator = {AccumulatorKind::Hopper, {}};
    return p;
  }
};

/// Gives `values` back, with one element changed by `change`.
template <class Value>
auto replay(const LargeVector<Value>& values, std::size_t at, std::function<void(Value&)> change) {
  return [=](const GroupedProduct<Value>&, std::span<Value> out) {
    std::copy(values.begin(), values.end(), out.begin());
    change(out[at]);
    return true;
  };
}

}  // namespace

TEST_SUITE("engine") {
  TEST_CASE("right values are taken over and counted; an engine's error far below the bound is allowed") {
    const Example e;
    const auto right = grouped_product(e.product(e.intervals));
    const auto tiny = [](Interval& x) { x.ref += 1e-4 * (x.high - x.ref); };
    const Engine engine{"test", 0, replay<Interval>(right, 0, tiny), nullptr};
    const auto taken = grouped_product(e.product(e.intervals, &engine));
    CHECK(engine.taken->products == 1);
    CHECK(taken[0].ref != right[0].ref);
    CHECK(taken[7].ref == right[7].ref);
  }

  TEST_CASE("a wrong value, interval, noise or bit in a sampled row is refused") {
    const Example e;
    const auto intervals = grouped_product(e.product(e.intervals));
    const auto predictions = grouped_product(e.product(e.predictions));
    const std::function<void(Interval&)> wrong[] = {
        [](Interval& x) { x.ref += 1e-2 * (x.high - x.ref); }, [](Interval& x) { x.low = x.ref; },
        [](Interval& x) { x.high = x.ref; }, [](Interval& x) { x.noise = 1.01 * x.noise + 1.0; },
        [](Interval& x) { x.ref = NAN; }};
    for (const auto& change : wrong)
      for (const std::size_t row : {0, 1, 2, 5}) {  // first and last rows of both filled groups
        const Engine engine{"test", 0, replay<Interval>(intervals, row * kColumns + 3, change), nullptr};
        CHECK_THROWS_AS(grouped_product(e.product(e.intervals, &engine)), InputError);
      }
    const std::function<void(PredictedValue&)> wrong_bits[] = {
        [](PredictedValue& x) { x.value = std::nextafter(x.value, 1e9f); },
        [](PredictedValue& x) { x.undetermined = true; }};
    for (const auto& change : wrong_bits) {
      const Engine engine{"test", 0, nullptr, replay<PredictedValue>(predictions, 5 * kColumns, change)};
      CHECK_THROWS_AS(grouped_product(e.product(e.predictions, &engine)), InputError);
    }
  }

  TEST_CASE("kept intervals are taken with what they lacked, and refused where a sampled row is wrong") {
    const Example e;
    CommonErrors errors{std::vector<double>(kRows, 1e-3), std::vector<double>(kColumns), false};
    errors.of_rows[1] = 0.0;
    errors.of_columns[3] = 2e-3;
    const auto products = grouped_product(e.product(e.intervals));
    for (const bool above_underflow : {false, true}) {
      errors.above_underflow = above_underflow;
      const auto completed = [&](const GroupedProduct<Interval>& product, const CommonErrors& asked) {
        CHECK(asked.above_underflow == above_underflow);
        LargeVector<Interval> out = products;
        for (std::size_t i = 0; i < out.size(); ++i) {
          const auto n = static_cast<std::size_t>(product.n);
          out[i] = with_common_error(out[i], asked.of_rows[i / n] + asked.of_columns[i % n]);
          if (asked.above_underflow) out[i] = with_noise_above_underflow(out[i]);
        }
        return out;
      };
      Engine engine{"test", 0, nullptr, nullptr};
      CHECK(kept_product(e.product(e.intervals, &engine), errors) == nullptr);
      engine.kept = [&](const auto&, const auto&) { return nullptr; };
      CHECK(kept_product(e.product(e.intervals, &engine), errors) == nullptr);
      engine.kept = [&](const auto& product, const auto& asked) {
        return kept_at_hand(completed(product, asked));
      };
      const auto kept = kept_product(e.product(e.intervals, &engine), errors);
      REQUIRE(kept != nullptr);
      CHECK(kept->elements == kRows * kColumns);
      CHECK(engine.taken->products == 1);
      const std::function<void(Interval&)> wrong[] = {[](Interval& x) { x.ref += 1e-2 * (x.high - x.ref); },
                                                      [](Interval& x) { x.low = x.ref; },
                                                      [](Interval& x) { x.high = x.ref; },
                                                      [](Interval& x) { x.noise *= 1.01f; },
                                                      [](Interval& x) { x.mean *= 0.98f; },
                                                      [](Interval& x) { x.ref = NAN; }};
      for (const auto& change : wrong)
        for (const std::size_t row : {0, 1, 2, 5}) {
          engine.kept = [&](const auto& product, const auto& asked) {
            auto lie = completed(product, asked);
            change(lie[row * kColumns + 3]);
            return kept_at_hand(std::move(lie));
          };
          CHECK_THROWS_AS(kept_product(e.product(e.intervals, &engine), errors), InputError);
        }
      // One that forgets what they lacked.
      engine.kept = [&](const auto&, const auto&) { return kept_at_hand(products); };
      CHECK_THROWS_AS(kept_product(e.product(e.intervals, &engine), errors), InputError);
    }
  }

  TEST_CASE("a matrix along its rows and one of values are offered, too, and believed no further") {
    const Example e;
    const auto expected = grouped_product(e.product(e.predictions));
    std::vector<Bf16> turned;  // [kTerms, kColumns]
    std::vector<PredictedValue> values;
    for (std::int64_t k = 0; k < kTerms; ++k)
      for (std::int64_t n = 0; n < kColumns; ++n) {
        turned.push_back(e.right[static_cast<std::size_t>(n * kTerms + k)]);
        values.push_back({to_float(turned.back()), false});
      }
    const auto nothing = [](PredictedValue&) {};
    const auto one_bit = [](PredictedValue& x) { x.value = std::nextafter(x.value, 1e9f); };
    for (const bool of_values : {false, true}) {
      const auto product = [&](const Engine& engine) {
        auto p = e.product(e.predictions, &engine);
        p.right_lies = Lies::AlongRows;
        p.weights = [&](std::int64_t) { return ExpertMatrix{turned, nullptr}; };
        if (of_values) {
          p.weights = nullptr;
          p.right = values;
        }
        return p;
      };
      const Engine right{"test", 0, nullptr, replay<PredictedValue>(expected, 0, nothing)};
      grouped_product(product(right));
      CHECK(right.taken->products == 1);
      const Engine wrong{"test", 0, nullptr, replay<PredictedValue>(expected, 0, one_bit)};
      CHECK_THROWS_AS(grouped_product(product(wrong)), InputError);
    }
  }

  TEST_CASE(
      "an engine that leaves rows with an undetermined operand to fp32 keeps the declared order there") {
    Example e;
    const auto plain = grouped_product(e.product(e.predictions));
    e.predictions[kTerms + 3].undetermined = true;  // row 4 of the result
    const auto ours = grouped_product(e.product(e.predictions));
    const auto as_gpus = [&](const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto source = static_cast<std::size_t>(product.source[i / kColumns]);
        const bool open =
            std::ranges::any_of(product.left.subspan(source * kTerms, kTerms), &PredictedValue::undetermined);
        out[i] = open ? PredictedValue{0.0f, true} : plain[i];
      }
      return true;
    };
    const Engine engine{"test", 0, nullptr, as_gpus};
    const auto theirs = grouped_product(e.product(e.predictions, &engine));
    CHECK(engine.taken->products == 1);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      CHECK(theirs[i].undetermined == (i / kColumns == 4));
      CHECK(theirs[i].undetermined == ours[i].undetermined);
      CHECK(theirs[i].value == ours[i].value);
    }
  }

  TEST_CASE("declined, small and planted products are computed by the CPU") {
    const Example e;
    const auto right = grouped_product(e.product(e.predictions));
    int offers = 0;
    const auto decline = [&](const GroupedProduct<PredictedValue>&, std::span<PredictedValue>) {
      return ++offers < 0;
    };
    const Engine declining{"test", 0, nullptr, decline};
    CHECK(grouped_product(e.product(e.predictions, &declining))[0].value == right[0].value);
    CHECK(offers == 1);
    auto planted = e.product(e.predictions, &declining);
    planted.fault = {FaultKind::DropLastK, Field::first_gemm, 8, 0};
    grouped_product(planted);
    const Engine for_larger{"test", kRows * kTerms * kColumns + 1, nullptr, decline};
    grouped_product(e.product(e.predictions, &for_larger));
    CHECK(offers == 1);
    CHECK(declining.taken->products + for_larger.taken->products == 0);
  }
}
