// Products whose right operand is values: by hand, the same as weights where exact, and every choice of
// operands inside their intervals in any order of summation inside the product's.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include <fmt/format.h>

#include "harness/contract/noise.h"
#include "reference_cpu/product/test_products.h"

using namespace assay;

namespace {

/// [rows, n] = left [rows, k] times right, which lies as said.
template <class V>
struct TwoSided {
  std::int64_t rows;
  std::int64_t k;
  std::int64_t n;
  std::vector<V> left;
  std::vector<V> right;
  Lies lies = Lies::AlongColumns;
  Accumulator accumulator = {};
  double unit_roundoff = 0x1p-24;

  LargeVector<V> multiply() const {
    std::vector<std::int32_t> source(static_cast<std::size_t>(rows));
    std::iota(source.begin(), source.end(), 0);
    const std::int64_t offsets[] = {0, rows};
    GroupedProduct<V> p;
    p.left = left;
    p.source = source;
    p.offsets = offsets;
    p.k = k;
    p.n = n;
    p.right = right;
    p.right_lies = lies;
    p.accumulator = accumulator;
    p.unit_roundoff = unit_roundoff;
    return grouped_product(p);
  }

  /// The same product with the right operand the other way round.
  TwoSided turned() const {
    TwoSided other = *this;
    for (std::int64_t c = 0; c < n; ++c)
      for (std::int64_t i = 0; i < k; ++i)
        other.right[static_cast<std::size_t>(i * n + c)] = right[static_cast<std::size_t>(c * k + i)];
    other.lies = Lies::AlongRows;
    return other;
  }
};

Interval about(double value, double radius, double noise = 0.0) {
  return with_noise({value, value - radius, value + radius}, noise);
}

/// Values with intervals of up to 2^-6 of their size; some are exact, some have one side only.
std::vector<Interval> with_intervals(const std::vector<Bf16>& values, std::mt19937& engine) {
  std::vector<Interval> out;
  for (const Bf16 x : values) {
    const double ref = to_float(x);
    const double wide = std::fabs(ref) * 0x1p-6 * (engine() % 1000) / 1000.0;
    out.emplace_back(ref, engine() % 4 == 0 ? ref : ref - wide, engine() % 4 == 0 ? ref : ref + wide,
                     0.3 * wide);
  }
  return out;
}

TwoSided<Interval> random_intervals(Data data, std::int64_t k, unsigned seed) {
  const ProductExample e = random_example(data, 3, k, 19, seed);
  std::mt19937 engine(seed);
  return {e.rows, e.k, e.n, with_intervals(e.left, engine), with_intervals(e.right, engine)};
}

/// A bf16 number inside, the nearest there is to a random place or to an end.
Bf16 chosen(const Interval& x, std::mt19937& engine) {
  const std::uint32_t pick = engine() % 4;
  const double share = pick == 0 ? 0.0 : pick == 1 ? 1.0 : (engine() % 1025) / 1024.0;
  const Bf16 near = round_to_bf16(x.low + share * (x.high - x.low));
  return to_float(near) < x.low || to_float(near) > x.high ? round_to_bf16(x.ref) : near;
}

}  // namespace

TEST_SUITE("two sided") {
  TEST_CASE("one term's spread and noise are those worked by hand") {
    // a = 1 +- 2^-10, b = -2 +- 2^-9: |da||b| + |a||db| + |da||db|, and one rounding of up to (|a| + da)(|b|
    // + db).
    const TwoSided<Interval> one{1, 1, 1, {about(1.0, 0x1p-10, 0x1p-12)}, {about(-2.0, 0x1p-9, 0x1p-13)}};
    const Interval x = one.multiply()[0];
    const double spread = 0x1p-9 + 0x1p-9 + 0x1p-19;
    const double rounding = 0x1p-24 * (1.0 + 0x1p-10) * (2.0 + 0x1p-9);
    CHECK(x.ref == -2.0);
    CHECK(width(x) == doctest::Approx(spread + rounding).epsilon(1e-6));
    CHECK(x.ref - x.low == doctest::Approx(spread + rounding).epsilon(1e-6));
    // noise: a's 2^-12 times 2, b's 2^-13 times 1, and both: 2^-25.
    CHECK(x.noise == doctest::Approx(std::sqrt(0x1p-22 + 0x1p-26 + 0x1p-50)).epsilon(1e-4));
  }

  TEST_CASE("a width on either side alone is carried like on the other") {
    const TwoSided<Interval> left{
        1, 2, 1, {about(3.0, 0.25), about(1.0, 0.0)}, {about(2.0, 0.0), about(5.0, 0.0)}};
    const TwoSided<Interval> right{1, 2, 1, left.right, left.left};
    const Interval a = left.multiply()[0];
    const Interval b = right.multiply()[0];
    CHECK(a.ref == b.ref);
    CHECK(width(a) == doctest::Approx(0.5).epsilon(1e-5));
    CHECK(width(b) == doctest::Approx(width(a)).epsilon(1e-6));
  }

  TEST_CASE("exact values on the right give what weights give, running bounds and exactness included") {
    for (const auto& accumulator : declared_orders())
      for (const std::int64_t k : {1, 15, 16, 17, 33, 300}) {
        const ProductExample e = random_example(Data::Gaussian, 5, k, 21, static_cast<unsigned>(k));
        TwoSided<Interval> bounded{e.rows, k, e.n, {}, {}, Lies::AlongColumns, accumulator};
        TwoSided<PredictedValue> predicted{e.rows, k, e.n, {}, {}, Lies::AlongColumns, accumulator};
        for (const Bf16 x : e.left) bounded.left.push_back(about(to_float(x), 0.0));
        for (const Bf16 x : e.right) bounded.right.push_back(about(to_float(x), 0.0));
        for (const Bf16 x : e.left) predicted.left.push_back({to_float(x), false});
        for (const Bf16 x : e.right) predicted.right.push_back({to_float(x), false});
        const auto intervals = multiply<Interval>(e, accumulator);
        const auto bits = multiply<PredictedValue>(e, accumulator);
        INFO(to_string(accumulator), ", ", k, " terms");
        for (const auto& product : {bounded, bounded.turned()}) {
          const auto found = product.multiply();
          for (std::size_t i = 0; i < found.size(); ++i) {
            REQUIRE(found[i].ref == intervals[i].ref);
            REQUIRE(found[i].high == intervals[i].high);
            REQUIRE(found[i].noise == intervals[i].noise);
          }
        }
        for (const auto& product : {predicted, predicted.turned()}) {
          const auto found = product.multiply();
          for (std::size_t i = 0; i < found.size(); ++i)
            REQUIRE(std::bit_cast<std::uint32_t>(found[i].value) ==
                    std::bit_cast<std::uint32_t>(bits[i].value));
        }
      }
  }

  TEST_CASE("any operands inside their intervals, summed in any order, stay inside the product's interval") {
    std::int64_t tried = 0;
    for (const Data data : {Data::Gaussian, Data::OneSign, Data::HeavyTail, Data::Cancelling})
      for (const std::int64_t k : {1, 15, 16, 17, 33, 200}) {
        const auto product = random_intervals(data, k, static_cast<unsigned>(k) + 7);
        const auto out = product.multiply();
        std::mt19937 engine(static_cast<unsigned>(k));
        std::int64_t outside = 0;
        for (int draw = 0; draw < 60; ++draw) {
          ProductExample e{product.rows, k, product.n, {}, {}};
          for (const Interval& x : product.left) e.left.push_back(chosen(x, engine));
          for (const Interval& x : product.right) e.right.push_back(chosen(x, engine));
          std::vector<std::size_t> order(static_cast<std::size_t>(k));
          std::iota(order.begin(), order.end(), 0);
          std::ranges::shuffle(order, engine);
          const Accumulator declared =
              declared_orders()[static_cast<std::size_t>(draw) % declared_orders().size()];
          const auto machine =
              multiply<PredictedValue>(e, declared.kind == AccumulatorKind::Ampere ? kHopper : declared);
          for (std::int64_t r = 0; r < e.rows; ++r)
            for (std::int64_t c = 0; c < e.n; ++c) {
              long double exact = 0.0L;
              float shuffled = 0.0f;
              for (const std::size_t i : order) {
                const float a = to_float(e.left[static_cast<std::size_t>(r * k) + i]);
                const float b = to_float(e.right[static_cast<std::size_t>(c * k) + i]);
                exact += static_cast<long double>(a) * b;
                shuffled += a * b;
              }
              const auto at = static_cast<std::size_t>(r * e.n + c);
              const Interval& x = out[at];
              for (const long double legal :
                   {exact, static_cast<long double>(shuffled), static_cast<long double>(machine[at].value)}) {
                outside += !(x.low <= legal && legal <= x.high);
                ++tried;
              }
            }
        }
        INFO(fmt::format("data {}, {} terms", static_cast<int>(data), k));
        CHECK(outside == 0);
      }
    CHECK(tried == 246240);
  }

  TEST_CASE(
      "the ends are reached: operands of one sign at their upper ends leave less than the rounding's share") {
    auto product = random_intervals(Data::OneSign, 33, 5);
    for (auto* side : {&product.left, &product.right})
      for (Interval& x : *side) x.high = std::max(x.high, 2.0 * x.ref - x.low);
    const auto out = product.multiply();
    for (std::int64_t r = 0; r < product.rows; ++r)
      for (std::int64_t c = 0; c < product.n; ++c) {
        long double top = 0.0L;
        long double magnitude = 0.0L;
        for (std::int64_t i = 0; i < 33; ++i) {
          const Interval& a = product.left[static_cast<std::size_t>(r * 33 + i)];
          const Interval& b = product.right[static_cast<std::size_t>(c * 33 + i)];
          top += static_cast<long double>(a.high) * b.high;
        }
        magnitude = top;
        const Interval& x = out[static_cast<std::size_t>(r * product.n + c)];
        CHECK(x.high >= top);
        CHECK(x.high - top <= 1.01L * product_bound_constant(33) * magnitude + 2e-5L * width(x));
      }
  }

  TEST_CASE("operands that no float holds keep their value") {
    const TwoSided<Interval> third{
        1, 1, 1, {about(1.0 / 3.0, 0x1p-54)}, {about(1.0 / 7.0, 0x1p-55)}, Lies::AlongColumns, {}, 0x1p-53};
    const Interval x = third.multiply()[0];
    CHECK(x.ref == 1.0 / 3.0 * (1.0 / 7.0));
    CHECK(width(x) < 0x1p-50);
    CHECK(width(x) > 0.0);
  }

  TEST_CASE("an undetermined or unmeasured value on the right leaves its column open, and no other") {
    TwoSided<PredictedValue> p{1, 2, 3, {{1.0f, false}, {1.0f, false}}, {}, Lies::AlongRows, kHopper};
    p.right = {{1.0f, false}, {1.0f, true}, {0x1p-130f, false}, {2.0f, false}, {2.0f, false}, {2.0f, false}};
    const auto out = p.multiply();
    CHECK_FALSE(out[0].undetermined);
    CHECK(out[0].value == 3.0f);
    CHECK(out[1].undetermined);
    CHECK(out[2].undetermined);
  }

  TEST_CASE("a sum keeps its order where an operand is undetermined: its bound holds it to that") {
    TwoSided<PredictedValue> p{1,
                               4,
                               1,
                               {{0x1p24f, false}, {1.0f, true}, {1.0f, false}, {1.0f, false}},
                               {},
                               Lies::AlongColumns,
                               {AccumulatorKind::Fp32Pairwise, {}}};
    p.right.assign(4, {1.0f, false});
    CHECK(p.multiply()[0].undetermined);
    CHECK(p.multiply()[0].value == 0x1p24f + 2.0f);
    p.accumulator = {AccumulatorKind::Fp32Sequential, {}};
    CHECK(p.multiply()[0].value == 0x1p24f);
    for (const bool on_the_left : {true, false}) {  // the tensor core adds all three before it cuts
      p.accumulator = {AccumulatorKind::Hopper, {}};
      p.left[1].undetermined = on_the_left;
      p.right[2].undetermined = !on_the_left;
      CHECK(p.multiply()[0].undetermined);
      CHECK(p.multiply()[0].value == 0x1p24f + 2.0f);
    }
    p.left[1].value = 0x1p-130f;  // it was not measured on subnormal numbers
    CHECK(p.multiply()[0].value == 0x1p24f);
  }

  TEST_CASE("every vector width gives the same bits on intervals") {
    const auto product = random_intervals(Data::Gaussian, 205, 3);
    REQUIRE(use_product_kernels("baseline"));
    const auto expected = product.multiply();
    for (const char* set : {"avx2", "avx512"}) {
      if (!use_product_kernels(set)) {
        MESSAGE("SKIP: this CPU cannot run ", std::string(set));
        continue;
      }
      const auto found = product.multiply();
      for (std::size_t i = 0; i < found.size(); ++i) {
        CHECK(found[i].ref == expected[i].ref);
        CHECK(found[i].high == expected[i].high);
        CHECK(found[i].noise == expected[i].noise);
      }
    }
    use_product_kernels("");
  }
}
