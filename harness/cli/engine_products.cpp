#include "harness/cli/engine_products.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "harness/contract/element_constants.h"
#include "reference_cpu/product/product.h"
#include "reference_cpu/product/product_by_engine.h"

namespace assay::cli {
namespace {

struct ProductShape {
  const char* why;
  std::int64_t k;
  std::int64_t n;
  std::int64_t left_rows;
  std::vector<std::int64_t> rows;  // of each group
};

// clang-format off
const ProductShape kShapes[] = {
    {"one of everything",                   1,    1,   1,  {1}},
    {"one below a step",                    15,   3,   2,  {2}},
    {"one step",                            16,   16,  4,  {3, 1}},
    {"one above a step, empty groups",      17,   33,  9,  {0, 5, 0, 0, 12, 0}},
    {"tails of K, columns and rows",        200,  101, 40, {65, 1, 33, 0, 64}},
    {"the router of 30B-A3B",               2048, 128, 70, {70}},
    {"the second product of 30B-A3B",       768,  256, 90, {31, 32, 0, 27}},
    {"an expert's gradient",                257,  150, 70, {70}},
    {"long",                                8192, 40,  12, {12}},
};
// clang-format on

using DrawValue = std::function<float(std::mt19937_64&)>;

float normal(std::mt19937_64& random) { return std::normal_distribution<float>()(random); }
float scaled(std::mt19937_64& random, int lowest, int highest) {
  return std::ldexp(normal(random),
                    static_cast<int>(random() % static_cast<std::uint64_t>(highest - lowest + 1)) + lowest);
}

struct DrawnData {
  const char* name;
  DrawValue draw;
};

const DrawnData kData[] = {
    {"normal", normal},
    {"one sign", [](std::mt19937_64& r) { return std::fabs(normal(r)); }},
    {"wide", [](std::mt19937_64& r) { return scaled(r, -20, 20); }},
    {"half zeros", [](std::mt19937_64& r) { return r() % 2 == 0 ? 0.0f : normal(r); }},
    {"all zero", [](std::mt19937_64&) { return 0.0f; }},
    {"alignments at the edge of what was measured", [](std::mt19937_64& r) { return scaled(r, -56, -46); }},
    {"sums near overflow", [](std::mt19937_64& r) { return scaled(r, 58, 63); }},
    {"small integers", [](std::mt19937_64& r) { return static_cast<float>(static_cast<int>(r() % 7) - 3); }},
    {"few subnormal, Inf and NaN",
     [](std::mt19937_64& r) {
       const auto choice = r() % 997;
       if (choice == 0) return 0x1p-130f;
       if (choice == 1) return std::numeric_limits<float>::infinity();
       if (choice == 2) return std::numeric_limits<float>::quiet_NaN();
       return normal(r);
     }},
};

/// The value with an interval around it, or in a fifth of the cases without.
Interval uncertain_value(double value, std::mt19937_64& random) {
  const double radius = std::fabs(value) * 0x1p-9 * static_cast<double>(random() % 5);
  return {value, value - radius, value + 0.5 * radius, 0.25 * radius};
}

struct DrawnOperands {
  std::vector<Bf16> left;                // [left_rows, k]
  std::vector<std::vector<Bf16>> right;  // per group [n, k]
  std::vector<std::int32_t> source;
  std::vector<std::int64_t> offsets;
};

DrawnOperands operands(const ProductShape& shape, const DrawnData& data, std::mt19937_64& random) {
  DrawnOperands made;
  const auto fill = [&](std::vector<Bf16>& values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) values.push_back(round_to_bf16(data.draw(random)));
  };
  fill(made.left, shape.left_rows * shape.k);
  made.offsets.push_back(0);
  for (const auto rows : shape.rows) {
    fill(made.right.emplace_back(), rows == 0 ? 0 : shape.n * shape.k);
    for (std::int64_t r = 0; r < rows; ++r)
      made.source.push_back(
          static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(shape.left_rows)));
    made.offsets.push_back(static_cast<std::int64_t>(made.source.size()));
  }
  return made;
}

template <class Value>
GroupedProduct<Value> product_of(const ProductShape& shape, const DrawnOperands& from,
                                 const std::vector<Value>& left) {
  GroupedProduct<Value> product;
  product.left = left;
  product.source = from.source;
  product.offsets = from.offsets;
  product.k = shape.k;
  product.n = shape.n;
  product.weights = [&from](std::int64_t group) {
    return ExpertMatrix{from.right[static_cast<std::size_t>(group)], nullptr};
  };
  return product;
}

bool same(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
bool same(const Interval& a, const Interval& b) {
  return same(a.ref, b.ref) && same(a.low, b.low) && same(a.high, b.high) && same(a.noise, b.noise) &&
         same(a.mean, b.mean);
}
bool same(const PredictedValue& a, const PredictedValue& b) {
  return a.undetermined == b.undetermined &&
         (std::bit_cast<std::uint32_t>(a.value) == std::bit_cast<std::uint32_t>(b.value) ||
          (std::isnan(a.value) && std::isnan(b.value)));
}

void declined(const std::string& what, ProductComparison& all) {
  std::printf("  declined: %s\n", what.c_str());
  ++all.declined;
}

template <class Value>
void count(const std::string& what, std::span<const Value> ours, std::span<const Value> theirs, bool verbose,
           ProductComparison& all) {
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) differing += !same(ours[i], theirs[i]);
  if (differing > 0 && verbose)
    std::printf("  %s: %lld of %zu differ\n", what.c_str(), static_cast<long long>(differing), ours.size());
  ++all.products;
  all.elements += static_cast<std::int64_t>(ours.size());
  all.differing += differing;
}

template <class Value>
void compare_as_it_is(const std::string& what, const GroupedProduct<Value>& product,
                      const std::function<bool(const GroupedProduct<Value>&, std::span<Value>)>& by_engine,
                      bool verbose, ProductComparison& all) {
  const LargeVector<Value> ours = grouped_product(product);  // offered to no engine
  LargeVector<Value> theirs(ours.size());
  if (!by_engine(product, theirs)) return declined(what, all);
  count<Value>(what, ours, theirs, verbose, all);
}

/// Kept intervals, with common errors of some rows and columns: all of them, and scattered ones.
void compare_kept(const std::string& what, const GroupedProduct<Interval>& product, const Engine& engine,
                  std::mt19937_64& random, bool verbose, ProductComparison& all) {
  const auto n = static_cast<std::size_t>(product.n);
  CommonErrors errors{std::vector<double>(product.source.size()), std::vector<double>(n), random() % 2 == 0};
  for (auto* shares : {&errors.of_rows, &errors.of_columns})
    for (double& share : *shares)
      if (random() % 3 != 0) share = std::fabs(scaled(random, -20, 2));
  const auto kept = engine.kept(product, errors);
  if (!kept) return declined("kept, " + what, all);
  LargeVector<Interval> ours = grouped_product(product);
  for (std::size_t i = 0; i < ours.size(); ++i) {
    ours[i] = with_common_error(ours[i], errors.of_rows[i / n] + errors.of_columns[i % n]);
    if (errors.above_underflow) ours[i] = with_noise_above_underflow(ours[i]);
  }
  LargeVector<Interval> theirs(ours.size());
  kept->bring(std::vector<std::int64_t>{0}, kept->elements, theirs);
  count<Interval>("kept, " + what, ours, theirs, verbose, all);
  const std::int64_t neighbours = 1 + static_cast<std::int64_t>(random() % n);
  std::vector<std::int64_t> starts;
  LargeVector<Interval> expected;
  for (int i = 0; i < 50; ++i) {
    starts.push_back(
        static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(kept->elements - neighbours + 1)));
    expected.insert(expected.end(), ours.begin() + starts.back(), ours.begin() + starts.back() + neighbours);
  }
  theirs.resize(expected.size());
  kept->bring(starts, neighbours, theirs);
  count<Interval>("kept, scattered, " + what, expected, theirs, verbose, all);
}

/// The same numbers as a matrix [n, k] and as one [k, n].
template <class Value>
void compare_one(const std::string& what, GroupedProduct<Value> product,
                 const std::function<bool(const GroupedProduct<Value>&, std::span<Value>)>& by_engine,
                 bool verbose, ProductComparison& all) {
  compare_as_it_is(what, product, by_engine, verbose, all);
  product.right_lies = Lies::AlongRows;
  compare_as_it_is("along its rows, " + what, product, by_engine, verbose, all);
}

/// One group's matrix as values instead of weights: how a weight's gradient has its right operand.
PredictedValue exactly(Bf16 x, PredictedValue) { return {to_float(x), false}; }
Interval exactly(Bf16 x, Interval) {
  const double value = to_float(x);
  return {value, value, value, 0.0f};
}
template <class Value>
void compare_values(const std::string& what, GroupedProduct<Value> product,
                    const std::function<bool(const GroupedProduct<Value>&, std::span<Value>)>& by_engine,
                    const Engine& engine, std::mt19937_64& random, bool verbose, ProductComparison& all) {
  const ExpertMatrix matrix = product.weights(0);
  std::vector<Value> right;
  for (const Bf16 x : matrix.values) right.push_back(exactly(x, Value{}));
  product.weights = nullptr;
  product.right = right;
  const std::int64_t declined_before = all.declined;
  compare_one<Value>("right operand of values, " + what, product, by_engine, verbose, all);
  if constexpr (std::is_same_v<Value, Interval>) {
    compare_kept("right operand of values, " + what, product, engine, random, verbose, all);
    // A NaN's interval is not its value, and columns beside it are exact: such a matrix may be left to the
    // CPU.
    if (std::ranges::any_of(matrix.values, [](Bf16 x) { return std::isnan(to_float(x)); }))
      all.declined = declined_before;
  }
}

/// Both operands with errors, but for some elements of either, and one group of rows: a weight's gradient in
/// a chain.
void compare_two_sided(const std::string& what, GroupedProduct<Interval> product, const Engine& engine,
                       std::mt19937_64& random, bool verbose, ProductComparison& all) {
  const ExpertMatrix matrix = product.weights(0);
  std::vector<Interval> right;
  for (const Bf16 x : matrix.values) right.push_back(uncertain_value(to_float(x), random));
  // Sixteen columns without errors are summed in another way, which the engine leaves to the CPU.
  for (std::size_t i = 0; i < right.size(); i += 7)
    right[i] = {right[i].ref, right[i].ref - 0x1p-20, right[i].ref + 0x1p-19, 0x1p-22};
  product.weights = nullptr;
  product.right = right;
  compare_one<Interval>("both operands uncertain, " + what, product, engine.bounded, verbose, all);
  compare_kept("both operands uncertain, " + what, product, engine, random, verbose, all);
}

}  // namespace

ProductComparison compare_products(const Engine& engine, bool verbose) {
  ProductComparison all;
  std::mt19937_64 random(7);
  const auto predicts = [&](const GroupedProduct<PredictedValue>& product, std::span<PredictedValue> out) {
    return predict_by_engine(engine, product, out);
  };
  for (const auto& shape : kShapes)
    for (const auto& data : kData) {
      const DrawnOperands made = operands(shape, data, random);
      const std::string what = std::string(shape.why) + ", " + data.name;
      std::vector<Interval> exact;
      std::vector<Interval> uncertain;
      std::vector<PredictedValue> predicted;
      for (std::size_t i = 0; i < made.left.size(); ++i) {
        const double value = to_float(made.left[i]);
        const bool exact_row = static_cast<std::int64_t>(i) / shape.k % 3 ==
                               0;  // among the uncertain ones: bounds are chosen by row
        exact.push_back({value, value, value, 0.0});
        uncertain.push_back(exact_row ? exact.back() : uncertain_value(value, random));
        predicted.push_back({to_float(made.left[i]), false});
      }
      auto mixed = product_of(shape, made, uncertain);
      mixed.accumulator = {AccumulatorKind::Hopper, {}};
      compare_one<Interval>("bounded, uncertain operand, " + what, mixed, engine.bounded, verbose, all);
      if (shape.rows.size() == 1 && shape.rows.front() > 0) {
        compare_two_sided(what, mixed, engine, random, verbose, all);
        compare_values<Interval>("bounded, uncertain operand, " + what, mixed, engine.bounded, engine, random,
                                 verbose, all);
      }
      if (!predicted.empty()) predicted[predicted.size() / 2].undetermined = random() % 4 == 0;
      std::vector<Accumulator> accumulators = {{AccumulatorKind::HopperAnySplit, {}},
                                               {AccumulatorKind::Hopper, {}}};
      if (shape.k > 32)
        accumulators.push_back(
            {AccumulatorKind::Hopper, {shape.k / 48 * 16, shape.k / 48 * 16, shape.k - shape.k / 48 * 32}});
      for (const auto& accumulator : accumulators) {
        auto bounded = product_of(shape, made, exact);  // with the running bound of that order
        bounded.accumulator = accumulator;
        compare_one<Interval>("bounded, " + to_string(accumulator) + ", " + what, bounded, engine.bounded,
                              verbose, all);
        auto product = product_of(shape, made, predicted);
        product.accumulator = accumulator;
        compare_one<PredictedValue>("predicted, " + to_string(accumulator) + ", " + what, product, predicts,
                                    verbose, all);
        if (shape.rows.size() > 1 || shape.rows.front() == 0) continue;
        compare_values<Interval>("bounded, " + to_string(accumulator) + ", " + what, bounded, engine.bounded,
                                 engine, random, verbose, all);
        compare_values<PredictedValue>("predicted, " + to_string(accumulator) + ", " + what, product,
                                       predicts, engine, random, verbose, all);
      }
    }
  return all;
}

}  // namespace assay::cli
