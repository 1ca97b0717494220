// Small products for the tests of this folder: filled by a seeded generator, run through either arithmetic.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <type_traits>
#include <vector>

#include "reference_cpu/product/product.h"

namespace assay {

struct ProductExample {
  std::int64_t rows;
  std::int64_t k;
  std::int64_t n;
  // [rows, k], [n, k]
  std::vector<Bf16> left;
  std::vector<Bf16> right;
};

enum class Data { Gaussian, OneSign, Octave, HeavyTail, Cancelling };

/// One operand: Octave is uniform in [1, 2); HeavyTail spans 2^-12 .. 2^12; Cancelling repeats each value of
/// Gaussian data with opposite sign, up to an ulp.
inline std::vector<Bf16> example_values(Data data, std::int64_t count, std::mt19937& engine) {
  std::normal_distribution<float> normal;
  std::vector<Bf16> values;
  for (std::int64_t i = 0; i < count; ++i) {
    float x = normal(engine);
    if (data == Data::OneSign) x = std::fabs(x);
    if (data == Data::Octave) x = 1.0f + static_cast<float>(engine() % 128) / 128.0f;
    if (data == Data::HeavyTail) x *= std::exp2(4.0f * normal(engine));
    if (data == Data::Cancelling && i % 2 == 1)
      x = -to_float(values.back()) * (1.0f + 0x1p-8f * static_cast<float>(engine() % 2));
    values.push_back(round_to_bf16(x));
  }
  return values;
}

inline ProductExample random_example(Data data, std::int64_t rows, std::int64_t k, std::int64_t n,
                                     unsigned seed) {
  std::mt19937 engine(seed);
  ProductExample e{rows, k, n, example_values(data, rows * k, engine), {}};
  // Cancelling: the left operand alternates, the right one is of one sign, so that neighbours cancel.
  e.right = example_values(data == Data::Cancelling ? Data::OneSign : data, n * k, engine);
  if (data == Data::Cancelling)
    for (std::size_t i = 1; i < e.right.size(); i += 2) e.right[i] = e.right[i - 1];
  return e;
}

inline ProductExample of_values(const std::vector<float>& a, const std::vector<float>& b) {
  ProductExample e{1, static_cast<std::int64_t>(a.size()), 1, {}, {}};
  for (const float x : a) e.left.push_back(round_to_bf16(x));
  for (const float x : b) e.right.push_back(round_to_bf16(x));
  return e;
}

/// The tensor core in 128-bit integers, written from its description and nothing else.
inline float hopper_model(const Bf16* a, const Bf16* b, std::int64_t k) {
  float sum = 0.0f;
  const auto exponent_of = [](float x) {
    return static_cast<int>((std::bit_cast<std::uint32_t>(x) >> 23) & 0xff) - 127;
  };
  for (std::int64_t k0 = 0; k0 < k; k0 += 16) {
    int top = -100000;
    if (sum != 0.0f) top = exponent_of(sum);
    for (std::int64_t i = k0; i < std::min(k, k0 + 16); ++i) {
      const float x = to_float(a[i]);
      const float y = to_float(b[i]);
      if (x != 0.0f && y != 0.0f) top = std::max(top, exponent_of(x) + exponent_of(y));
    }
    if (top == -100000) continue;
    const auto truncated = [&](double x) { return static_cast<__int128>(std::ldexp(x, 25 - top)); };
    __int128 total = truncated(sum);
    for (std::int64_t i = k0; i < std::min(k, k0 + 16); ++i)
      total += truncated(static_cast<double>(to_float(a[i])) * to_float(b[i]));
    const bool negative = total < 0;
    unsigned __int128 magnitude = negative ? -total : total;
    int shift = 0;
    while ((magnitude >> shift) >= (1u << 24)) ++shift;
    magnitude = (magnitude >> shift) << shift;
    const double value = std::ldexp(static_cast<double>(magnitude), top - 25);
    sum = static_cast<float>(negative ? -value : value);
  }
  return sum;
}

/// [rows, n] in arithmetic V, on exact operands.
template <class V>
LargeVector<V> multiply(const ProductExample& e, const Accumulator& accumulator, const Fault& fault = {}) {
  std::vector<V> left(e.left.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    const float x = to_float(e.left[i]);
    if constexpr (std::is_same_v<V, Interval>)
      left[i] = {x, x, x};
    else
      left[i] = {x, false};
  }
  std::vector<std::int32_t> source(static_cast<std::size_t>(e.rows));
  for (std::size_t r = 0; r < source.size(); ++r) source[r] = static_cast<std::int32_t>(r);
  const std::int64_t offsets[] = {0, e.rows};
  GroupedProduct<V> p;
  p.left = left;
  p.source = source;
  p.offsets = offsets;
  p.k = e.k;
  p.n = e.n;
  p.weights = [&](std::int64_t) { return ExpertMatrix{e.right, nullptr}; };
  p.accumulator = accumulator;
  p.fault = fault;
  return grouped_product(p);
}

inline const Accumulator kHopper{AccumulatorKind::Hopper, {}};

/// Every order of summation that can be declared.
inline std::vector<Accumulator> declared_orders() {
  return {{AccumulatorKind::Fp32Sequential, {}},
          {AccumulatorKind::Fp32Pairwise, {}},
          kHopper,
          {AccumulatorKind::Hopper, {96, 64, 1}},
          {AccumulatorKind::HopperDescending, {}, 64},
          {AccumulatorKind::HopperInterleaved, {}, 32, 3},
          {AccumulatorKind::HopperInterleaved, {}, 10, 2},
          {AccumulatorKind::Ampere, {}}};
}

inline double width(const Interval& x) { return x.high - x.ref; }

inline Tensor example_tensor(Data data, Shape shape, double scale, std::mt19937& engine) {
  Tensor tensor(DType::BFloat16, std::move(shape));
  const auto values = example_values(data, tensor.size(), engine);
  for (std::size_t i = 0; i < values.size(); ++i)
    tensor.as<Bf16>()[i] = round_to_bf16(to_float(values[i]) * scale);
  return tensor;
}

/// A whole layer; weights keep every stage's values near 1.
inline Problem random_layer(Data data, const MoeConfig& config, std::int64_t tokens, unsigned seed) {
  std::mt19937 engine(seed);
  const auto h = config.hidden_size;
  const auto i = config.moe_intermediate_size;
  const auto e = config.num_experts;
  Problem problem;
  problem.config = config;
  problem.sequence = tokens;
  problem.input = example_tensor(data, {tokens, h}, 1.0, engine);
  problem.gate = example_tensor(data, {e, h}, 1.0 / std::sqrt(static_cast<double>(h)), engine);
  problem.experts = stored_experts(std::make_shared<Tensor>(example_tensor(
                                       data, {e, 2 * i, h}, 1.0 / std::sqrt(static_cast<double>(h)), engine)),
                                   std::make_shared<Tensor>(example_tensor(
                                       data, {e, h, i}, 1.0 / std::sqrt(static_cast<double>(i)), engine)));
  problem.output_gradient = example_tensor(data, {tokens, h}, 1.0, engine);
  return problem;
}

}  // namespace assay
