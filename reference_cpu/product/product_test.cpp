// The product kernels: by hand, against Eigen and a plain model, and the same bits at every vector width.
#include <doctest/doctest.h>

#include <Eigen/Dense>

#include <cmath>

#include "reference_cpu/product/product.h"
#include "reference_cpu/product/test_products.h"

using namespace assay;

namespace {

float pairwise_by_definition(const Bf16* a, const Bf16* b, std::int64_t n) {
  if (n == 1) return to_float(*a) * to_float(*b);
  std::int64_t half = 1;
  while (half * 2 < n) half *= 2;
  return pairwise_by_definition(a, b, half) + pairwise_by_definition(a + half, b + half, n - half);
}

}  // namespace

TEST_SUITE("product") {
  TEST_CASE("the tensor core aligns 16 products and the sum, keeps 25 fractional bits and truncates") {
    // Crafted inputs measured on an H200: 1 + 0.75 ulp stays 1; fifteen 2^-26 vanish; fifteen 2^-25 give 3
    // ulp where 3.75 is exact.
    std::vector<float> ones(16, 1.0f);
    std::vector<float> small(16, 0x1p-26f);
    small[0] = 1.0f;
    CHECK(multiply<PredictedValue>(of_values(ones, small), kHopper)[0].value == 1.0f);
    for (std::size_t i = 1; i < 16; ++i) small[i] = 0x1p-25f;
    CHECK(multiply<PredictedValue>(of_values(ones, small), kHopper)[0].value == 1.0f + 3 * 0x1p-23f);
    std::vector<float> two = {1.0f, 0x1.8p-24f};
    CHECK(multiply<PredictedValue>(of_values({1.0f, 1.0f}, two), kHopper)[0].value == 1.0f);
    CHECK(multiply<PredictedValue>(of_values({0.0f}, {3.0f}), kHopper)[0].value == 0.0f);
  }

  TEST_CASE("every element equals an independent integer model of the tensor core") {
    for (const std::int64_t k : {1, 15, 16, 17, 40, 72, 2048}) {
      const auto e = random_example(Data::Gaussian, 5, k, 37, static_cast<unsigned>(k));
      const auto out = multiply<PredictedValue>(e, kHopper);
      for (std::int64_t r = 0; r < e.rows; ++r)
        for (std::int64_t c = 0; c < e.n; ++c) {
          CHECK(out[static_cast<std::size_t>(r * e.n + c)].value ==
                hopper_model(e.left.data() + r * k, e.right.data() + c * k, k));
          CHECK_FALSE(out[static_cast<std::size_t>(r * e.n + c)].undetermined);
        }
    }
  }

  TEST_CASE("a split adds the parts in fp32 in ascending order") {
    const auto e = random_example(Data::Gaussian, 2, 256, 3, 5);
    const auto out = multiply<PredictedValue>(e, {AccumulatorKind::Hopper, {96, 96, 64}});
    for (std::int64_t r = 0; r < 2; ++r)
      for (std::int64_t c = 0; c < 3; ++c) {
        const Bf16* a = e.left.data() + r * 256;
        const Bf16* b = e.right.data() + c * 256;
        const float expected =
            (hopper_model(a, b, 96) + hopper_model(a + 96, b + 96, 96)) + hopper_model(a + 192, b + 192, 64);
        CHECK(out[static_cast<std::size_t>(r * 3 + c)].value == expected);
      }
  }

  TEST_CASE("parts of any length are the model's, at every vector width") {
    const auto e = random_example(Data::HeavyTail, 5, 100, 19, 6);
    for (const char* set : {"baseline", "avx2", "avx512"}) {
      if (!use_product_kernels(set)) continue;  // said below
      const auto out = multiply<PredictedValue>(e, {AccumulatorKind::Hopper, {33, 1, 20, 46}});
      for (std::int64_t r = 0; r < e.rows; ++r)
        for (std::int64_t c = 0; c < e.n; ++c) {
          const Bf16* a = e.left.data() + r * e.k;
          const Bf16* b = e.right.data() + c * e.k;
          const float expected = ((hopper_model(a, b, 33) + hopper_model(a + 33, b + 33, 1)) +
                                  hopper_model(a + 34, b + 34, 20)) +
                                 hopper_model(a + 54, b + 54, 46);
          REQUIRE(out[static_cast<std::size_t>(r * e.n + c)].value == expected);
        }
    }
    use_product_kernels("");
  }

  TEST_CASE(
      "a step's sum may need 33 bits: the running sum and 16 products near the largest of one exponent") {
    constexpr float kMost = 1.9921875f;
    std::vector<float> left(32, kMost);
    std::vector<float> right(32, kMost);
    std::fill(left.begin() + 1, left.begin() + 16, 0.0f);
    right[0] = 1.0f;  // the first step leaves kMost
    for (const float sign : {1.0f, -1.0f}) {
      for (float& x : left) x *= sign;
      const auto e = of_values(left, right);
      for (const char* set : {"baseline", "avx2", "avx512"}) {
        if (!use_product_kernels(set)) continue;  // said below
        CHECK(multiply<PredictedValue>(e, kHopper)[0].value == sign * (kMost + 16 * kMost * kMost));
        CHECK(multiply<PredictedValue>(e, kHopper)[0].value ==
              hopper_model(e.left.data(), e.right.data(), 32));
      }
    }
    use_product_kernels("");
  }

  TEST_CASE("sequential and pairwise sums follow their order") {
    const auto e = random_example(Data::Gaussian, 1, 11, 1, 9);
    std::vector<float> p;
    float sequential = 0.0f;
    for (std::size_t i = 0; i < 11; ++i) {
      p.push_back(to_float(e.left[i]) * to_float(e.right[i]));
      sequential += p.back();
    }
    CHECK(multiply<PredictedValue>(e, {AccumulatorKind::Fp32Sequential, {}})[0].value == sequential);
    const float eight = ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
    CHECK(multiply<PredictedValue>(e, {AccumulatorKind::Fp32Pairwise, {}})[0].value ==
          eight + ((p[8] + p[9]) + p[10]));
  }

  TEST_CASE("a pairwise sum splits at the largest power of two below n, whatever n is") {
    for (std::int64_t k = 1; k <= 70; k = k == 34 ? 63 : k + 1) {
      const auto e = random_example(Data::HeavyTail, 3, k, 17, static_cast<unsigned>(k));
      const auto out = multiply<PredictedValue>(e, {AccumulatorKind::Fp32Pairwise, {}});
      CAPTURE(k);
      for (std::int64_t r = 0; r < e.rows; ++r)
        for (std::int64_t c = 0; c < e.n; ++c)
          CHECK(out[static_cast<std::size_t>(r * e.n + c)].value ==
                pairwise_by_definition(e.left.data() + r * k, e.right.data() + c * k, k));
    }
  }

  TEST_CASE("the float64 product agrees with Eigen and its interval holds every legal order") {
    const auto e = random_example(Data::Gaussian, 7, 300, 33, 3);
    Eigen::MatrixXd a(e.rows, e.k);
    Eigen::MatrixXd b(e.n, e.k);
    for (std::int64_t i = 0; i < e.rows * e.k; ++i)
      a(i / e.k, i % e.k) = to_float(e.left[static_cast<std::size_t>(i)]);
    for (std::int64_t i = 0; i < e.n * e.k; ++i)
      b(i / e.k, i % e.k) = to_float(e.right[static_cast<std::size_t>(i)]);
    const Eigen::MatrixXd exact = a * b.transpose();
    const Eigen::MatrixXd magnitude = a.cwiseAbs() * b.cwiseAbs().transpose();
    const auto out = multiply<Interval>(e, {});
    const auto hopper = multiply<PredictedValue>(e, kHopper);
    const auto sequential = multiply<PredictedValue>(e, {AccumulatorKind::Fp32Sequential, {}});
    for (std::int64_t r = 0; r < e.rows; ++r)
      for (std::int64_t c = 0; c < e.n; ++c) {
        const auto i = static_cast<std::size_t>(r * e.n + c);
        CHECK(std::abs(out[i].ref - exact(r, c)) <= 300 * 0x1p-52 * magnitude(r, c));
        const double delta = product_bound_constant(300) * magnitude(r, c);
        CHECK(out[i].high - out[i].ref >= delta * 0.999999);
        CHECK(out[i].high - out[i].ref <= delta * 1.001);
        for (const float legal : {hopper[i].value, sequential[i].value}) {
          CHECK(out[i].low <= legal);
          CHECK(legal <= out[i].high);
        }
      }
  }

  TEST_CASE("every vector width gives the same bits") {
    const auto e = random_example(Data::Gaussian, 9, 205, 50, 11);
    for (const auto kind : {AccumulatorKind::Unknown, AccumulatorKind::Hopper, AccumulatorKind::Ampere,
                            AccumulatorKind::Fp32Sequential, AccumulatorKind::Fp32Pairwise}) {
      const Accumulator accumulator{kind, {}};
      CAPTURE(to_string(accumulator));
      REQUIRE(use_product_kernels("baseline"));
      const auto bounded = multiply<Interval>(e, accumulator);
      const auto predicted = multiply<PredictedValue>(e, accumulator);
      for (const char* set : {"avx2", "avx512"}) {
        if (!use_product_kernels(set)) {
          MESSAGE("SKIP: this CPU cannot run ", std::string(set));
          continue;
        }
        const auto b = multiply<Interval>(e, accumulator);
        const auto p = multiply<PredictedValue>(e, accumulator);
        for (std::size_t i = 0; i < b.size(); ++i) {
          CHECK(std::bit_cast<std::uint64_t>(b[i].ref) == std::bit_cast<std::uint64_t>(bounded[i].ref));
          CHECK(std::bit_cast<std::uint64_t>(b[i].high) == std::bit_cast<std::uint64_t>(bounded[i].high));
          CHECK(std::bit_cast<std::uint32_t>(p[i].value) == std::bit_cast<std::uint32_t>(predicted[i].value));
        }
      }
    }
    use_product_kernels("");
  }

  TEST_CASE("what was not measured is undetermined: subnormal operands, Inf, NaN, alignments out of range") {
    CHECK(multiply<PredictedValue>(of_values({0x1p-130f}, {1.0f}), kHopper)[0].undetermined);
    CHECK(multiply<PredictedValue>(of_values({1.0f}, {INFINITY}), kHopper)[0].undetermined);
    CHECK(multiply<PredictedValue>(of_values({NAN}, {1.0f}), kHopper)[0].undetermined);
    CHECK(std::isnan(multiply<PredictedValue>(of_values({NAN, 1.0f}, {1.0f, 1.0f}), kHopper)[0].value));
    CHECK(multiply<PredictedValue>(of_values({INFINITY, 1.0f}, {-1.0f, 1.0f}), kHopper)[0].value ==
          -INFINITY);
    CHECK(multiply<PredictedValue>(of_values({0x1p-60f}, {0x1p-60f}), kHopper)[0].undetermined);
    CHECK(multiply<PredictedValue>(of_values({0x1p100f}, {0x1p30f}), kHopper)[0].undetermined);
    CHECK_FALSE(multiply<PredictedValue>(of_values({0x1p-51f}, {0x1p-51f}), kHopper)[0].undetermined);
    CHECK(multiply<PredictedValue>(of_values({0x1p-51f}, {0x1p-51f}), kHopper)[0].value == 0x1p-102f);
  }

  TEST_CASE("a dropped tail is the product of what is left") {
    const auto e = random_example(Data::Gaussian, 3, 72, 5, 2);
    Fault fault{FaultKind::DropLastK, Field::first_gemm, 8, 0};
    const auto out = multiply<PredictedValue>(e, kHopper, fault);
    for (std::int64_t r = 0; r < 3; ++r)
      for (std::int64_t c = 0; c < 5; ++c)
        CHECK(out[static_cast<std::size_t>(r * 5 + c)].value ==
              hopper_model(e.left.data() + r * 72, e.right.data() + c * 72, 64));
  }
}
