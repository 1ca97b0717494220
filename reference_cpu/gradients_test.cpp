// Gradients step by step: numbers by hand, central differences of the forward pass in float64, what rounds
// under which contract.
#include <doctest/doctest.h>

#include <functional>
#include <optional>

#include "reference_cpu/eigen/worked_example.h"
#include "reference_cpu/expf_sm90.h"
#include "reference_cpu/row_sum_quad.h"
#include "reference_cpu/tiny_backward.h"

using namespace assay;

namespace {

constexpr MoeConfig kRenormalised{5, 3, 4, 2, true};
constexpr MoeConfig kUnnormalised{5, 3, 4, 2, false};
constexpr MoeConfig kOneChoice{3, 2, 3, 1, true};
constexpr MoeConfig kAllExperts{3, 4, 3, 3, true};

/// A derivative and how far off it may be.
struct CentralDifference {
  double value;
  double error;
};

/// Central differences over steps of 2^-6, 2^-7 and 2^-8, extrapolated twice: the error falls from h^2 to
/// h^6. What the last extrapolation changed bounds it.
CentralDifference central(const std::function<double(double)>& moved_by, double magnitude) {
  double d[3];
  for (int i = 0; i < 3; ++i) {
    const double h = std::ldexp(1.0, -6 - i);
    d[i] = (moved_by(h) - moved_by(-h)) / (2.0 * h);
  }
  const double coarse = (4.0 * d[1] - d[0]) / 3.0;
  const double fine = (4.0 * d[2] - d[1]) / 3.0;
  const double best = (16.0 * fine - coarse) / 15.0;
  return {best, std::fabs(best - fine) + 0x1p-40 * magnitude};
}

/// <d_hidden_states, hidden_states> of the layer with some fields given.
double loss(const TinyBackward& g, const Upstream& given_fields = {}) {
  Evaluator<Bounded> walk(g.layer, given_fields, everything());
  const auto out = walk.value(Field::hidden_states);
  double sum = 0.0;
  for (std::size_t i = 0; i < out.size(); ++i)
    sum += out[i].ref * to_float(g.p.problem.output_gradient.as<Bf16>()[i]);
  return sum;
}

double magnitude(const TinyBackward& g) {
  double sum = 1.0;
  for (const auto& x : g.stored_value<Bounded>(Field::hidden_states)) sum += 8.0 * std::fabs(x.ref);
  return sum;
}

/// The field's own values, to be given in float64.
Tensor values_of(const TinyBackward& g, Field field) {
  Tensor tensor(DType::Float64, expected_shape(field, g.p.problem.sizes()));
  std::ranges::copy(refs(g.stored_value<Bounded>(field)), tensor.as<double>().begin());
  return tensor;
}

Upstream only(const FieldSet& fields, Field field) {
  Upstream upstream{&fields, {}};
  upstream.usable[static_cast<std::size_t>(field)] = true;
  return upstream;
}

/// Elements of a bf16 tensor whose gradient the differences do not confirm; `held` is not recomputed.
std::int64_t refuted(const TinyBackward& g, Tensor& tensor, Field gradient,
                     std::optional<Field> held = std::nullopt) {
  const auto d = refs(g.stored_value<Bounded>(gradient));
  FieldSet fields;
  if (held) fields.set(*held, values_of(g, *held));
  std::int64_t count = 0;
  for (std::size_t i = 0; i < d.size(); ++i) {
    Bf16& element = tensor.as<Bf16>()[i];
    const Bf16 before = element;
    const auto found = central(
        [&](double by) {
          element = round_to_bf16(to_float(before) + by);
          REQUIRE(to_float(element) == to_float(before) + by);
          const double result = loss(g, held ? only(fields, *held) : Upstream{});
          element = before;
          return result;
        },
        magnitude(g));
    count += !(std::fabs(found.value - d[i]) <= found.error);
  }
  return count;
}

/// The same of a computed field, moved in float64.
std::int64_t refuted(const TinyBackward& g, Field field, Field gradient) {
  const auto d = refs(g.stored_value<Bounded>(gradient));
  Tensor values = values_of(g, field);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(values.size()); ++i) {
    const auto found = central(
        [&](double by) {
          FieldSet fields;
          Tensor moved = values;
          moved.as<double>()[i] += by;
          fields.set(field, std::move(moved));
          return loss(g, only(fields, field));
        },
        magnitude(g));
    count += !(i < d.size() && std::fabs(found.value - d[i]) <= found.error);
  }
  return count;
}

}  // namespace

TEST_SUITE("gradients") {
  TEST_CASE("one token, two experts: every gradient by hand, in both arithmetics, under every contract") {
    for (const auto& contract : kContracts) {
      const TinyBackward g(plain::worked_example(), contract.name);
      const auto check = [&](Field field, std::vector<double> expected) {
        CAPTURE(contract.name);
        CAPTURE(name(field));
        const auto bounded = g.stored_value<Bounded>(field);
        CHECK(refs(bounded) == expected);
        for (std::size_t i = 0; i < bounded.size(); ++i)
          CHECK((bounded[i].low <= expected[i] && expected[i] <= bounded[i].high));
        if (contract.name != "fp64") CHECK(refs(g.stored_value<Predicted>(field)) == expected);
      };
      check(Field::d_second_gemm, {1, 0, 1, 0});
      check(Field::d_topk_weights, {128, 0});
      check(Field::d_intermediate, {0.5, 0.25});
      check(Field::d_first_gemm, {1, 32, 0.5, 0});
      check(Field::d_down_proj, {128, 0, 0, 0});
      check(Field::d_permuted_hidden_states, {128, 97, 0, 4});
      check(Field::d_gate_up_proj, {1, 0, 32, 0, 0.5, 0, 0, 0});
      check(Field::d_router_logits, {32, -32});
      check(Field::d_gate, {32, 0, -32, 0});
      check(Field::d_experts_hidden_states, {128, 101});
      check(Field::d_input_hidden_states, {128, 5});
    }
  }

  TEST_CASE("central differences of the forward pass in float64 confirm every gradient") {
    unsigned seed = 0;
    for (const MoeConfig& config : {kRenormalised, kUnnormalised, kOneChoice, kAllExperts}) {
      TinyBackward g(plain::eighths(config, 3, ++seed), "fp64");
      CAPTURE(seed);
      CHECK(refuted(g, g.p.problem.input, Field::d_input_hidden_states) == 0);
      CHECK(refuted(g, g.p.problem.gate, Field::d_gate) == 0);
      CHECK(refuted(g, *g.p.gate_up_proj, Field::d_gate_up_proj) == 0);
      CHECK(refuted(g, *g.p.down_proj, Field::d_down_proj) == 0);
      CHECK(refuted(g, g.p.problem.input, Field::d_experts_hidden_states, Field::router_logits) == 0);
      for (const auto& [field, gradient] : {std::pair(Field::topk_weights, Field::d_topk_weights),
                                            std::pair(Field::second_gemm, Field::d_second_gemm),
                                            std::pair(Field::intermediate, Field::d_intermediate),
                                            std::pair(Field::first_gemm, Field::d_first_gemm),
                                            std::pair(Field::router_logits, Field::d_router_logits)}) {
        CAPTURE(name(gradient));
        CHECK(refuted(g, field, gradient) == 0);
      }
    }
  }

  TEST_CASE("central differences confirm the gradients with the weight after the product, in float64") {
    PrecisionContract after = find_contract("fp64");
    after.weight_side = WeightSide::AfterProduct;
    after.d_weights_from = WeightGradientFrom::Activation;
    unsigned seed = 20;
    for (const MoeConfig& config : {kRenormalised, kUnnormalised, kOneChoice, kAllExperts}) {
      TinyBackward g(plain::eighths(config, 3, ++seed), "fp64");
      g.layer.contract = &after;
      CAPTURE(seed);
      CHECK(refuted(g, g.p.problem.input, Field::d_input_hidden_states) == 0);
      CHECK(refuted(g, g.p.problem.gate, Field::d_gate) == 0);
      CHECK(refuted(g, *g.p.gate_up_proj, Field::d_gate_up_proj) == 0);
      CHECK(refuted(g, *g.p.down_proj, Field::d_down_proj) == 0);
      CHECK(refuted(g, Field::topk_weights, Field::d_topk_weights) == 0);
      CHECK(refuted(g, Field::intermediate, Field::d_intermediate) == 0);
      CHECK(refuted(g, Field::first_gemm, Field::d_first_gemm) == 0);
    }
  }

  TEST_CASE("fused_fp32, operation by operation: one row of one expert, written down") {
    // H = 1, I = 2, K = 1 of E = 1, not renormalised: the weight is the softmax's 1, moved by hand.
    plain::PlainProblem p({1, 2, 1, 1, false}, 1);
    p.d_hidden_states = plain::Matrix{{1 + 0x1p-7}};
    const TinyBackward g(std::move(p), "fused_fp32");
    const float g0 = 1.0f;
    const float g1 = -2.0f;
    const float u0 = 1 + 5 * 0x1p-7f;
    const float u1 = 3.0f;
    const Values<Predicted> first = {{g0, false}, {g1, false}, {u0, false}, {u1, false}};
    const Values<Predicted> products = {{0.3f, false}, {0.7f, false}};  // fp32: not bf16 numbers
    const Values<Predicted> weights = {{0.40625f, false}};
    const auto expf = [](float x) { return expf_sm90(x).value; };
    const auto silu = [&](float a) { return a / (1.0f + expf(-a)); };
    const float a0 = silu(g0) * u0;
    const float a1 = silu(g1) * u1;
    CHECK(activation_dots<Predicted>(g.layer, products, first)[0].value ==
          std::fma(a1, 0.7f, std::fma(a0, 0.3f, 0.0f)));
    const auto d_first = act_and_mul_grad<Predicted>(g.layer, products, first, &weights);
    const float d_a = 0.40625f * 0.3f;
    const float s = 1.0f / (1.0f + expf(-g0));
    CHECK(d_first[0].value == d_a * u0 * s * (1.0f + g0 * (1.0f - s)));
    CHECK(d_first[2].value == d_a * silu(g0));
    const auto weighted =
        times_weights<Predicted>(g.layer, recomputed_activation<Predicted>(g.layer, first), weights);
    CHECK(weighted[0].value == a0 * 0.40625f);
    CHECK(weighted[1].value == a1 * 0.40625f);
  }

  TEST_CASE(
      "a quad's lanes take columns 2 lane and 2 lane + 1 of every 8, blocks of 64 one after the other") {
    std::vector<PredictedValue> a(71, PredictedValue{0.0f, false});
    const std::vector<PredictedValue> ones(71, PredictedValue{1.0f, false});
    const auto sum = [&](std::vector<std::pair<std::size_t, float>> at) {
      std::ranges::fill(a, PredictedValue{0.0f, false});
      for (const auto& [column, value] : at) a[column].value = value;
      return row_sum_quad(a, ones).value;
    };
    constexpr float kBig = 0x1p24f;                                  // beside which 1 is lost, and 2 is not
    CHECK(sum({{0, kBig}, {1, 1.0f}, {8, 1.0f}}) == kBig);           // one lane, ascending: 1 is lost twice
    CHECK(sum({{0, kBig}, {2, 1.0f}, {10, 1.0f}}) == kBig + 2.0f);   // another lane holds 2
    CHECK(sum({{0, kBig}, {4, 1.0f}, {6, 1.0f}}) == kBig + 2.0f);    // lanes 2 and 3 meet before lane 0's sum
    CHECK(sum({{0, kBig}, {2, 1.0f}, {4, 1.0f}}) == kBig);           // lane 1 is lost in lane 0, 2 in both
    CHECK(sum({{0, kBig}, {64, 1.0f}, {66, 1.0f}}) == kBig + 2.0f);  // the next block is a sum of its own
    CHECK(sum({{0, 1.0f}, {2, 1.0f}, {64, kBig}}) == kBig + 2.0f);
    std::vector<PredictedValue> open = ones;
    open[70].undetermined = true;
    CHECK(row_sum_quad(open, ones).undetermined);
    // A product and its addition round once.
    const std::vector<PredictedValue> x = {{1 + 0x1p-12f, false}, {1.0f, false}};
    const std::vector<PredictedValue> y = {{1 + 0x1p-12f, false}, {-(1 + 0x1p-11f), false}};
    CHECK(row_sum_quad(x, y).value == std::fma(1.0f, -(1 + 0x1p-11f), (1 + 0x1p-12f) * (1 + 0x1p-12f)));
    const std::vector<PredictedValue> later = {{1.0f, false}, {1 + 0x1p-12f, false}};
    const std::vector<PredictedValue> other = {{-(1 + 0x1p-11f), false}, {1 + 0x1p-12f, false}};
    CHECK(row_sum_quad(later, other).value == 0x1p-24f);
  }

  TEST_CASE("the differences refute the gradient of another layer") {
    TinyBackward g(plain::eighths(kUnnormalised, 3, 2), "fp64");
    CHECK(refuted(g, Field::topk_weights, Field::d_router_logits) > 0);
    CHECK(refuted(g, g.p.problem.input, Field::d_experts_hidden_states) > 0);
  }

  TEST_CASE("hf rounds the products before d_topk_weights sums them, and others do not") {
    plain::PlainProblem p({2, 1, 1, 1, true}, 1);
    p.d_hidden_states = plain::Matrix{{1 + 0x1p-7, 1}};
    const auto dot = [&](std::string_view contract) {
      const TinyBackward g(p, contract);
      const Values<Predicted> rows = {{1 + 0x1p-7f, false}, {-1 - 0x1p-6f, false}};
      return row_dots<Predicted>(g.layer, rows)[0].value;
    };
    CHECK(dot("hf") == 0);
    CHECK(dot("hf_eager") == 0);
    CHECK(dot("hf_fp32_merge") == 0x1p-14f);
    CHECK(dot("fused_fp32") == 0x1p-14f);
  }

  TEST_CASE("hf adds a token's slots in bf16 by ascending expert, eager by descending, others in fp32") {
    plain::PlainProblem p({1, 1, 10, 3, true}, 1);
    const auto sum = [&](std::string_view contract) {
      TinyBackward g(p, contract);
      g.layer.routing = get_token_counts_and_gather_indices(p.problem.config, {9, 4, 7});
      // In expert order: 4, 7, 9.
      Values<Predicted> rows = {{1, false}, {0x1p-8f, false}, {0x1p-8f, false}};
      auto out = combine_slots<Predicted>(g.layer, rows);
      store_field<Predicted>(Field::d_experts_hidden_states, g.layer, out);
      const auto exact =
          combine_slots<Bounded>(g.layer, {{1, 1, 1}, {0x1p-8, 0x1p-8, 0x1p-8}, {0x1p-8, 0x1p-8, 0x1p-8}});
      CHECK(exact[0].low == exact[0].high);
      return out[0].value;
    };
    CHECK(sum("hf") == 1.0f);
    CHECK(sum("hf_eager") == 1.0f + 0x1p-7f);
    CHECK(sum("hf_fp32_merge") == 1.0f + 0x1p-7f);
    CHECK(sum("fused_fp32") == 1.0f + 0x1p-7f);
  }

  TEST_CASE("the router's part is rounded before it is added") {
    plain::PlainProblem p({1, 1, 2, 1, true}, 1);
    p.problem.gate = plain::bf16_tensor({2, 1}, {1, 0x1p-8});
    const TinyBackward g(p, "hf");
    const auto out = add_router<Predicted>(g.layer, {{0x1p-7f, false}}, {{1, false}, {1, false}});
    CHECK(out[0].value == 1.0f + 0x1p-7f);  // 1 + 2^-8 is a tie and goes to 1
  }
}
