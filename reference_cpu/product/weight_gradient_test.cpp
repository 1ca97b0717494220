// Products of backward: the right operand along its rows, sums over an expert's rows and over tokens; bit for
// bit against the slow model of the tensor core.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <utility>

#include "reference_cpu/product/test_products.h"
#include "reference_cpu/product/weight_gradient.h"

using namespace assay;

namespace {

constexpr std::int64_t kRowsOf[] = {0, 1, 15, 16, 17, 33};  // of each expert
constexpr MoeConfig kConfig{.hidden_size = 24, .moe_intermediate_size = 20, .num_experts = 6, .top_k = 1};

/// A layer whose experts have `kRowsOf` rows, tokens dealt to them in turn, and random values of any field.
struct GradientLayer {
  Problem problem;
  Layer layer;
  std::mt19937 engine{3};

  explicit GradientLayer(const MoeConfig& config = kConfig, const char* contract = "hf") {
    std::vector<std::int32_t> selected;
    std::int64_t left[std::size(kRowsOf)];
    std::ranges::copy(kRowsOf, left);
    for (bool some = true; some;) {
      some = false;
      for (std::size_t e = 0; e < std::size(kRowsOf); ++e)
        if (left[e] > 0) selected.push_back(static_cast<std::int32_t>(e)), --left[e], some = true;
    }
    problem = random_layer(Data::Gaussian, config, std::ssize(selected) / config.top_k, 7);
    layer.problem = &problem;
    layer.contract = &find_contract(contract);
    layer.accumulators = layer.declared = every_product(kHopper);
    layer.routing = get_token_counts_and_gather_indices(config, selected);
  }

  std::vector<Bf16> random(Field field) {
    return example_values(Data::Gaussian, rows_of(field, problem.sizes()) * width_of(field, problem.sizes()),
                          engine);
  }
};

template <class A>
Values<A> lifted(const std::vector<Bf16>& values) {
  Tensor tensor(DType::BFloat16, {std::ssize(values), 1});
  std::ranges::copy(values, tensor.as<Bf16>().begin());
  return lift<A>(tensor);
}

/// Column `c` of the rows of a matrix.
std::vector<Bf16> column(std::span<const Bf16> from, std::int64_t width, std::int64_t c,
                         std::span<const std::int64_t> rows) {
  std::vector<Bf16> out;
  for (const auto r : rows) out.push_back(from[static_cast<std::size_t>(r * width + c)]);
  return out;
}

float slow(const std::vector<Bf16>& a, const std::vector<Bf16>& b) {
  return hopper_model(a.data(), b.data(), std::ssize(a));
}

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

std::int64_t width_in(const GradientLayer& g, Field field) { return width_of(field, g.problem.sizes()); }

}  // namespace

TEST_SUITE("weight gradient") {
  TEST_CASE("a product through a transposed weight is the slow model's, bit for bit") {
    GradientLayer g;
    const auto sizes = g.problem.sizes();
    for (const ProductId id : {ProductId::down_dx, ProductId::gate_up_dx, ProductId::router_dx}) {
      const ProductRow& what = row(id);
      const auto k = width_of(what.left, sizes);
      const auto n = width_of(what.made, sizes);
      const auto left = g.random(what.left);
      const auto values = lifted<Predicted>(left);
      const auto out = product_values<Predicted>(id, g.layer, &values);
      const auto bounds = lifted<Bounded>(left);
      const auto intervals = product_values<Bounded>(id, g.layer, &bounds);
      std::vector<std::int64_t> terms(static_cast<std::size_t>(k));
      for (std::int64_t i = 0; i < k; ++i) terms[static_cast<std::size_t>(i)] = i;
      CAPTURE(std::string(what.name));
      REQUIRE(std::ssize(out) == rows_of(what.made, sizes) * n);
      std::int64_t expert = 0;
      for (std::int64_t r = 0; r < rows_of(what.made, sizes); ++r) {
        while (per_expert(what) && r >= g.layer.routing.offsets[static_cast<std::size_t>(expert) + 1])
          ++expert;
        const std::vector<Bf16> a(left.begin() + r * k, left.begin() + (r + 1) * k);
        const ExpertMatrix w = right_operand(id, g.problem, expert);
        for (std::int64_t c = 0; c < n; ++c) {
          const auto at = static_cast<std::size_t>(r * n + c);
          REQUIRE(bits(out[at].value) == bits(slow(a, column(w.values, n, c, terms))));
          REQUIRE(intervals[at].low <= out[at].value);
          REQUIRE(out[at].value <= intervals[at].high);
        }
      }
    }
  }

  TEST_CASE(
      "sums over rows of 0, 1, 15, 16, 17 and 33 are the slow model's, each expert from a step of its own") {
    GradientLayer g;
    const auto sizes = g.problem.sizes();
    for (const ProductId id : {ProductId::down_dw, ProductId::gate_up_dw, ProductId::router_dw}) {
      const ProductRow& what = row(id);
      const bool of_input = what.right == Field::input_hidden_states;
      const auto rows = width_in(g, what.left);
      const auto n = width_in(g, what.made);
      const auto left = g.random(what.left);
      const auto right =
          of_input ? std::vector<Bf16>(g.problem.input.as<Bf16>().begin(), g.problem.input.as<Bf16>().end())
                   : g.random(what.right);
      const auto a = lifted<Predicted>(left);
      const auto b = lifted<Predicted>(right);
      const auto exact_a = lifted<Bounded>(left);
      const auto exact_b = lifted<Bounded>(right);
      const RowRange all{0, rows_of(what.made, sizes)};
      const auto out = weight_gradient<Predicted>(id, g.layer, all, &a, of_input ? nullptr : &b);
      const auto intervals =
          weight_gradient<Bounded>(id, g.layer, all, &exact_a, of_input ? nullptr : &exact_b);
      CAPTURE(std::string(what.name));
      REQUIRE(std::ssize(out) == all.count() * n);
      for (std::int64_t r = 0; r < all.count(); ++r) {
        const std::int64_t expert = r / rows;
        // rows of the left operand, of the right one
        std::vector<std::int64_t> from;
        std::vector<std::int64_t> read;
        for (std::int64_t s = 0; s < sizes.tokens; ++s)
          if (what.summed == Dim::T) from.push_back(s), read.push_back(s);
        if (what.summed == Dim::S)
          for (auto s = g.layer.routing.offsets[static_cast<std::size_t>(expert)];
               s < g.layer.routing.offsets[static_cast<std::size_t>(expert) + 1]; ++s)
            from.push_back(s),
                read.push_back(of_input ? g.layer.routing.gather[static_cast<std::size_t>(s)] : s);
        const auto x = column(left, rows, r % rows, from);
        for (std::int64_t c = 0; c < n; ++c) {
          const auto y = column(right, n, c, read);
          const auto at = static_cast<std::size_t>(r * n + c);
          REQUIRE(bits(out[at].value) == bits(slow(x, y)));
          REQUIRE_FALSE(out[at].undetermined);
          long double sum = 0.0L;
          for (std::size_t i = 0; i < x.size(); ++i)
            sum += static_cast<long double>(to_float(x[i])) * to_float(y[i]);
          REQUIRE(std::fabs(intervals[at].ref - static_cast<double>(sum)) <= 1e-12);
          REQUIRE(intervals[at].low <= out[at].value);
          REQUIRE(out[at].value <= intervals[at].high);
          if (!x.empty()) continue;
          REQUIRE(bits(out[at].value) == 0u);
          REQUIRE(std::bit_cast<std::uint64_t>(intervals[at].low) == 0u);
          REQUIRE(std::bit_cast<std::uint64_t>(intervals[at].high) == 0u);
        }
      }
    }
  }

  TEST_CASE("rows asked for one block at a time are the whole field's") {
    GradientLayer g;
    const auto left = lifted<Bounded>(g.random(Field::d_second_gemm));
    const auto right = lifted<Bounded>(g.random(Field::intermediate));
    const auto n = width_in(g, Field::d_down_proj);
    const auto rows = rows_of(Field::d_down_proj, g.problem.sizes());
    const auto whole = weight_gradient<Bounded>(ProductId::down_dw, g.layer, {0, rows}, &left, &right);
    std::int64_t begin = 0;
    for (const std::int64_t end : {std::int64_t{24}, std::int64_t{31}, std::int64_t{100}, rows}) {
      const auto block = weight_gradient<Bounded>(ProductId::down_dw, g.layer, {begin, end}, &left, &right);
      REQUIRE(std::ssize(block) == (end - begin) * n);
      for (std::size_t i = 0; i < block.size(); ++i) {
        const Interval& x = whole[static_cast<std::size_t>(begin * n) + i];
        REQUIRE(block[i].ref == x.ref);
        REQUIRE(block[i].high == x.high);
      }
      begin = end;
    }
  }

  TEST_CASE(
      "words are the values rounded to bf16, at every vector width and on 16 and on 8 products a step") {
    GradientLayer g({.hidden_size = 48, .moe_intermediate_size = 32, .num_experts = 6, .top_k = 1});
    for (const AccumulatorKind kind : {AccumulatorKind::Hopper, AccumulatorKind::Ampere})
      for (const ProductId id : {ProductId::down_dw, ProductId::gate_up_dw}) {
        const ProductRow& what = row(id);
        g.layer.accumulators = g.layer.declared = every_product({kind, {}});
        const auto left = lifted<Predicted>(g.random(what.left));
        const auto right = lifted<Predicted>(g.random(what.right));
        const auto* read = what.right == Field::input_hidden_states ? nullptr : &right;
        const auto matrix = width_in(g, what.left);
        for (const char* set : {"baseline", "avx2", "avx512"}) {
          if (!use_product_kernels(set)) continue;  // product_test.cpp says so
          for (std::int64_t expert = 0; expert < std::ssize(kRowsOf); ++expert) {
            // Of expert 3 some, of expert 4 and the next all.
            const RowRange rows{expert * matrix, expert * matrix + (expert == 3   ? 5
                                                                    : expert == 4 ? 2 * matrix
                                                                                  : matrix)};
            const auto values = weight_gradient<Predicted>(id, g.layer, rows, &left, read);
            const auto words = weight_gradient_words(id, g.layer, rows, &left, read);
            REQUIRE(words);
            REQUIRE(words->size() == values.size());
            for (std::size_t i = 0; i < values.size(); ++i)
              REQUIRE((*words)[i] == round_to_bf16(values[i].value).bits);
          }
        }
        use_product_kernels("");
      }
  }

  TEST_CASE(
      "there are no words where one is undetermined, in another order of the sum, and of ragged columns") {
    GradientLayer g({.hidden_size = 48, .moe_intermediate_size = 32, .num_experts = 6, .top_k = 1});
    auto left = lifted<Predicted>(g.random(Field::d_second_gemm));
    auto right = lifted<Predicted>(g.random(Field::intermediate));
    const auto words = [&] {
      return weight_gradient_words(ProductId::down_dw, g.layer, {5 * 48, 6 * 48}, &left, &right);
    };
    REQUIRE(words());
    const auto without = [&](Values<Predicted>& operand, const PredictedValue& instead) {
      const PredictedValue kept = std::exchange(operand.back(), instead);  // of the last expert
      const bool none = !words();
      operand.back() = kept;
      return none;
    };
    for (auto* operand : {&left, &right}) {
      CHECK(without(*operand, {1.0f, true}));
      CHECK(without(*operand, {0x1p-130f, false}));
      CHECK(without(*operand, {0x1p127f, false}));  // an alignment that was not measured
    }
    for (const Accumulator& order : {Accumulator{AccumulatorKind::Fp32Sequential, {}},
                                     Accumulator{AccumulatorKind::HopperInterleaved, {}, 10, 2}}) {
      g.layer.accumulators = every_product(order);
      CHECK_FALSE(words());
    }
    GradientLayer ragged;
    left = lifted<Predicted>(ragged.random(Field::d_second_gemm));
    right = lifted<Predicted>(ragged.random(Field::intermediate));
    CHECK_FALSE(weight_gradient_words(ProductId::down_dw, ragged.layer, {5 * 24, 6 * 24}, &left, &right));
  }

  TEST_CASE("by hand: two rows of one expert, the input gathered by token") {
    // One expert per token but two slots each: rows of expert 0 are tokens 0 and 1 in slots 1 and 0.
    const MoeConfig config{.hidden_size = 1, .moe_intermediate_size = 1, .num_experts = 2, .top_k = 2};
    Problem problem = random_layer(Data::Gaussian, config, 2, 1);
    problem.input.as<Bf16>()[0] = round_to_bf16(3.0);
    problem.input.as<Bf16>()[1] = round_to_bf16(5.0);
    Layer layer;
    layer.problem = &problem;
    layer.contract = &find_contract("hf");
    layer.routing = get_token_counts_and_gather_indices(config, {1, 0, 0, 1});
    // d_first_gemm [4, 2]: rows of expert 0 (tokens 0, 1), then of expert 1.
    Values<Bounded> left;
    for (const double x : {1.0, 2.0, 10.0, 20.0, 100.0, 200.0, 1000.0, 2000.0}) left.push_back({x, x, x});
    const auto out = weight_gradient<Bounded>(ProductId::gate_up_dw, layer, {0, 4}, &left, nullptr);
    CHECK(out[0].ref == 1.0 * 3.0 + 10.0 * 5.0);
    CHECK(out[1].ref == 2.0 * 3.0 + 20.0 * 5.0);
    CHECK(out[2].ref == 100.0 * 3.0 + 1000.0 * 5.0);
    CHECK(out[3].ref == 200.0 * 3.0 + 2000.0 * 5.0);
    for (const Interval& x : out) CHECK(width(x) == 0.0);  // integers: exact in any order
    // Expert by expert, slot by slot: token 1 sits in slot 0.
    CHECK(summed_rows(ProductId::gate_up_dw, layer, 0) == std::vector<std::int64_t>{0, 1});
    layer.contract = &find_contract("hf_eager");
    CHECK(summed_rows(ProductId::gate_up_dw, layer, 0) == std::vector<std::int64_t>{1, 0});
    CHECK(summed_rows(ProductId::router_dw, layer, 0) == std::vector<std::int64_t>{0, 1});
  }

  TEST_CASE("errors of one sign on both operands are carried as the sum of their shares") {
    GradientLayer g;
    auto left = lifted<Bounded>(g.random(Field::d_second_gemm));
    auto right = lifted<Bounded>(g.random(Field::intermediate));
    const RowRange last{5 * 24, 6 * 24};
    const auto exact = weight_gradient<Bounded>(ProductId::down_dw, g.layer, last, &left, &right);
    for (auto* side : {&left, &right})
      for (Interval& x : *side) {
        const double wide = std::fabs(x.ref) * 0x1p-8;
        x = {x.ref, x.ref - wide, x.ref + wide, 0.5 * wide};
      }
    const auto out = weight_gradient<Bounded>(ProductId::down_dw, g.layer, last, &left, &right);
    for (std::size_t i = 0; i < out.size(); ++i) {
      // Each operand's mean errors are 2^-9 of its magnitudes.
      CHECK(out[i].noise >= 0.999 * 0x1p-8 * std::fabs(out[i].ref));
      CHECK(out[i].noise > exact[i].noise);
      CHECK(width(out[i]) > width(exact[i]));
    }
  }
}
