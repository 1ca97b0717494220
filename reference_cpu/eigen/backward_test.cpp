// The plain backward pass: numbers by hand, and central differences of the forward pass.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "reference_cpu/eigen/plain_problem.h"
#include "reference_cpu/eigen/worked_example.h"

using namespace assay;
using namespace assay::plain;

namespace {

/// A derivative and how far off it may be.
struct Slope {
  double value;
  double error;
};

/// Central differences over steps of 2^-6, 2^-7 and 2^-8, extrapolated twice: the error falls from h^2 to
/// h^6. What the last extrapolation changed bounds it; `magnitude` is that of the terms whose rounding the
/// difference of two values keeps.
Slope slope(const std::function<double(double)>& moved_by, double magnitude) {
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

/// A bf16 element moved for as long as this lives. Throws when moving it would round.
class Moved {
 public:
  Moved(Bf16& element, double by) : element_(element), before_(element) {
    const double to = to_float(element) + by;
    element = round_to_bf16(to);
    REQUIRE(to_float(element) == to);
  }
  ~Moved() { element_ = before_; }
  Moved(const Moved&) = delete;
  Moved& operator=(const Moved&) = delete;

 private:
  Bf16& element_;
  Bf16 before_;
};

/// A small layer in real numbers with its routing fixed, and the loss <d_hidden_states, hidden_states>.
struct RealLayer {
  PlainProblem p;
  const PrecisionContract& contract = find_contract("fp64");
  ForwardResult result;
  PlainGradients d;

  RealLayer(const MoeConfig& config, std::int64_t tokens, unsigned seed)
      : p(eighths(config, tokens, seed)),
        result(forward(p.problem, contract)),
        d(backward(p.problem, contract, result, p.d_hidden_states)) {}

  double loss() const {
    const auto moved = forward(p.problem, contract, result.selected_experts);
    return moved.grouped.hidden_states.cwiseProduct(p.d_hidden_states).sum();
  }
  double magnitude() const {
    return 1.0 + result.grouped.hidden_states.cwiseProduct(p.d_hidden_states).cwiseAbs().sum();
  }
  /// Elements of a tensor whose gradient the differences do not confirm.
  std::int64_t refuted(Tensor& tensor, const Matrix& gradient) const {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      const auto found = slope(
          [&](double by) {
            const Moved moved(tensor.as<Bf16>()[static_cast<std::size_t>(i)], by);
            return loss();
          },
          magnitude());
      count += !(std::fabs(found.value - gradient.data()[i]) <= found.error);
    }
    return count;
  }
  /// The gradients of all experts' matrices, one below the other.
  Matrix stacked(Matrix ExpertGradients::* of) const {
    Matrix all(0, 0);
    for (std::int64_t e = 0; e < p.problem.config.num_experts; ++e) {
      const Matrix one = expert_gradients(p.problem, contract, result, d, e).*of;
      all.conservativeResize(all.rows() + one.rows(), one.cols());
      all.bottomRows(one.rows()) = one;
    }
    return all;
  }
};

constexpr MoeConfig kRenormalised{5, 3, 4, 2, true};
constexpr MoeConfig kUnnormalised{5, 3, 4, 2, false};
constexpr MoeConfig kOneChoice{3, 2, 3, 1, true};
constexpr MoeConfig kOneChoiceUnnormalised{3, 2, 3, 1, false};
constexpr MoeConfig kAllExperts{3, 4, 3, 3, true};

}  // namespace

TEST_SUITE("eigen-backward") {
  TEST_CASE("one token, two experts: every gradient by hand, under every contract") {
    const PlainProblem example = worked_example();
    for (const auto& contract : kContracts) {
      const auto result = forward(example.problem, contract);
      const auto d = backward(example.problem, contract, result, example.d_hidden_states);
      CHECK(d.d_second_gemm == Matrix{{1, 0}, {1, 0}});
      CHECK(d.d_topk_weights == Matrix{{128, 0}});
      CHECK(d.d_intermediate == Matrix{{0.5}, {0.25}});
      CHECK(d.d_first_gemm == Matrix{{1, 32}, {0.5, 0}});
      CHECK(d.d_permuted_hidden_states == Matrix{{128, 97}, {0, 4}});
      CHECK(d.d_router_logits == Matrix{{32, -32}});
      CHECK(d.d_gate == Matrix{{32, 0}, {-32, 0}});
      CHECK(d.d_experts_hidden_states == Matrix{{128, 101}});
      CHECK(d.d_input_hidden_states == Matrix{{128, 5}});
      const auto first = expert_gradients(example.problem, contract, result, d, 0);
      const auto second = expert_gradients(example.problem, contract, result, d, 1);
      CHECK(first.d_gate_up_proj == Matrix{{1, 0}, {32, 0}});
      CHECK(first.d_down_proj == Matrix{{128}, {0}});
      CHECK(second.d_gate_up_proj == Matrix{{0.5, 0}, {0, 0}});
      CHECK(second.d_down_proj == Matrix{{0}, {0}});
    }
  }

  TEST_CASE("central differences of the forward pass confirm every gradient of inputs and weights") {
    unsigned seed = 0;
    for (const auto& config :
         {kRenormalised, kUnnormalised, kOneChoice, kOneChoiceUnnormalised, kAllExperts}) {
      RealLayer layer(config, 3, ++seed);
      CHECK(layer.refuted(layer.p.problem.input, layer.d.d_input_hidden_states) == 0);
      CHECK(layer.refuted(layer.p.problem.gate, layer.d.d_gate) == 0);
      CHECK(layer.refuted(*layer.p.gate_up_proj, layer.stacked(&ExpertGradients::d_gate_up_proj)) == 0);
      CHECK(layer.refuted(*layer.p.down_proj, layer.stacked(&ExpertGradients::d_down_proj)) == 0);
    }
  }

  TEST_CASE("the differences refute a gradient that is wrong in one element, or of another layer") {
    RealLayer layer(kUnnormalised, 3, 2);
    Matrix wrong = layer.d.d_gate;
    wrong(2, 1) += 0x1p-20;
    CHECK(layer.refuted(layer.p.problem.gate, wrong) == 1);
    PlainProblem renormalised = layer.p;
    renormalised.problem.config.norm_topk_prob = true;
    const auto other = backward(renormalised.problem, layer.contract, layer.result, layer.p.d_hidden_states);
    CHECK(layer.refuted(layer.p.problem.gate, other.d_gate) > 0);
  }

  TEST_CASE("central differences confirm d_topk_weights, and d_router_logits given it") {
    for (const auto& config : {kRenormalised, kUnnormalised, kOneChoice, kAllExperts}) {
      const RealLayer layer(config, 3, 7);
      const auto& of = layer.result.grouped;
      Matrix weights = of.topk_weights;
      Matrix logits = layer.result.router_logits;
      const auto check = [&](Matrix& moved, const Matrix& gradient, const std::function<double()>& loss) {
        for (std::int64_t i = 0; i < moved.size(); ++i) {
          const auto found = slope(
              [&](double by) {
                const double before = moved.data()[i];
                moved.data()[i] += by;
                const double result = loss();
                moved.data()[i] = before;
                return result;
              },
              layer.magnitude());
          CHECK(std::fabs(found.value - gradient.data()[i]) <= found.error);
        }
      };
      check(weights, layer.d.d_topk_weights, [&] {
        return merge(of.hidden_states_unpermute, weights, layer.result.selected_experts, layer.contract)
            .cwiseProduct(layer.p.d_hidden_states)
            .sum();
      });
      check(logits, layer.d.d_router_logits, [&] {
        return weights_of(logits, layer.result.selected_experts, config.norm_topk_prob, layer.contract)
            .cwiseProduct(layer.d.d_topk_weights)
            .sum();
      });
    }
  }

  TEST_CASE("logits' gradients of a token add up to nothing; renormalised, unchosen ones have none") {
    for (const auto& config : {kRenormalised, kUnnormalised, kOneChoice, kOneChoiceUnnormalised}) {
      const RealLayer layer(config, 6, 11);
      const Matrix& d = layer.d.d_router_logits;
      bool unchosen_have_some = false;
      for (std::int64_t t = 0; t < d.rows(); ++t) {
        const double slack = 0x1p-46 * layer.d.d_topk_weights.row(t).cwiseAbs().sum();
        CHECK(std::fabs(d.row(t).sum()) <= slack);
        for (std::int64_t e = 0; e < d.cols(); ++e) {
          const bool chosen = (layer.result.selected_experts.row(t).array() == e).any();
          if (config.norm_topk_prob && (!chosen || config.top_k == 1)) CHECK(std::fabs(d(t, e)) <= slack);
          unchosen_have_some = unchosen_have_some || (!chosen && std::fabs(d(t, e)) > slack);
        }
      }
      CHECK(unchosen_have_some != config.norm_topk_prob);
    }
  }

  TEST_CASE("experts without rows have gradients of zeros, all others have none") {
    const auto p = eighths(kRenormalised, 4, 3);
    const IndexMatrix routing{{0, 3}, {3, 0}, {0, 3}, {0, 3}};
    const auto& hf = find_contract("hf");
    const auto result = forward(p.problem, hf, routing);
    const auto d = backward(p.problem, hf, result, p.d_hidden_states);
    for (std::int64_t e = 0; e < 4; ++e) {
      const auto [gate_up, down] = expert_gradients(p.problem, hf, result, d, e);
      CHECK(gate_up.rows() == 6);
      CHECK(down.cols() == 3);
      CHECK((gate_up.array() == 0.0).all() == (e == 1 || e == 2));
      CHECK((down.array() == 0.0).all() == (e == 1 || e == 2));
    }
  }

  TEST_CASE("one expert's gradients from the inputs alone are those of the whole layer") {
    const auto p = eighths(kUnnormalised, 9, 4);
    for (const auto& contract : kContracts) {
      const auto result = forward(p.problem, contract);
      const auto d = backward(p.problem, contract, result, p.d_hidden_states);
      for (std::int64_t e = 0; e < 4; ++e) {
        const auto whole = expert_gradients(p.problem, contract, result, d, e);
        const auto alone =
            expert_gradients(p.problem, contract, result.selected_experts, p.d_hidden_states, e);
        CHECK(alone.d_gate_up_proj == whole.d_gate_up_proj);
        CHECK(alone.d_down_proj == whole.d_down_proj);
      }
    }
  }

  TEST_CASE("hf rounds every product before d_topk_weights sums it, the silu and its upstream gradient") {
    const Matrix d_hidden{{1 + 0x1p-7, 1}};
    const Matrix rows{{1 + 0x1p-7, -1 - 0x1p-6}};
    const auto& hf = find_contract("hf");
    const auto& fused = find_contract("fused_fp32");
    CHECK(d_weights(d_hidden, rows, hf)(0, 0) == 0);
    CHECK(d_weights(d_hidden, rows, fused)(0, 0) == 0x1p-14);
    const double a = 1;
    const double b = 1 + 5 * 0x1p-7;
    const double d_h = 1 + 3 * 0x1p-7;
    const double sigmoid = 1 / (1 + std::exp(-a));
    const double slope_of_silu = sigmoid * (1 + a * (1 - sigmoid));
    const auto bf16 = [](double x) -> double { return to_float(round_to_bf16(x)); };
    const auto d_first = [&](const PrecisionContract& contract) {
      return d_act_and_mul(Matrix{{a, b}}, Matrix{{d_h}}, contract);
    };
    REQUIRE(bf16(bf16(d_h * b) * slope_of_silu) != bf16(d_h * b * slope_of_silu));
    REQUIRE(bf16(d_h * bf16(a * sigmoid)) != bf16(d_h * a * sigmoid));
    CHECK(d_first(hf) == Matrix{{bf16(bf16(d_h * b) * slope_of_silu), bf16(d_h * bf16(a * sigmoid))}});
    CHECK(d_first(fused) == Matrix{{bf16(d_h * b * slope_of_silu), bf16(d_h * a * sigmoid)}});
  }

  TEST_CASE("hf adds the slots' dX in ascending order of experts, hf_eager in descending order") {
    const Matrix slots{{1}, {0x1p-8}, {0x1p-8}};
    const IndexMatrix experts{{4, 7, 9}};
    const auto sum = [&](std::string_view contract) {
      return d_experts(slots, experts, find_contract(contract))(0, 0);
    };
    CHECK(sum("hf") == 1);
    CHECK(sum("hf_eager") == 1 + 0x1p-7);
    CHECK(sum("fused_fp32") == 1 + 0x1p-7);
  }

  TEST_CASE("gradients of before are added to: rounded before, after, both or not at all, by hand") {
    PlainProblem example = worked_example();  // its d_gate is {{32, 0}, {-32, 0}}
    Tensor before(DType::Float32, {2, 2});
    before.as<float>()[0] = 1.0f + 0x1p-3f;  // 33.125 lies halfway between 33 and 33.25
    before.as<float>()[1] = 1.0f + 0x1p-20f;
    before.as<float>()[3] = 5.0f;
    example.problem.previous.set(Field::d_gate, before);
    const auto d_gate = [&](std::string_view name) {
      const auto& contract = find_contract(name);
      const auto result = forward(example.problem, contract);
      return backward(example.problem, contract, result, example.d_hidden_states).d_gate;
    };
    CHECK(d_gate("hf") == Matrix{{33, 1}, {-32, 5}});
    CHECK(d_gate("hf_in_place_grads") == Matrix{{33, 1}, {-32, 5}});
    CHECK(d_gate("hf_main_grads") == Matrix{{33.125, 1 + 0x1p-20}, {-32, 5}});
    CHECK(d_gate("hf_added_main_grads") == Matrix{{33.125, 1 + 0x1p-20}, {-32, 5}});
  }

  TEST_CASE("every gradient is a bf16 value, but for fp64, and what a contract keeps in float32") {
    const auto p = eighths(kRenormalised, 7, 5);
    for (const auto& contract : kContracts) {
      const auto result = forward(p.problem, contract);
      const auto d = backward(p.problem, contract, result, p.d_hidden_states);
      const auto experts = expert_gradients(p.problem, contract, result, d, 0);
      const bool in_float64 = contract.name == "fp64";
      if (contract.weight_side == WeightSide::OutputGradient)  // else they are in no memory
        for (const Matrix* field : {&d.d_second_gemm, &d.d_intermediate})
          CHECK((rounded(*field, Store::Bf16) == *field) != in_float64);
      for (const Matrix* field : {&d.d_topk_weights, &d.d_first_gemm, &d.d_permuted_hidden_states,
                                  &d.d_experts_hidden_states, &d.d_input_hidden_states})
        CHECK((rounded(*field, Store::Bf16) == *field) != in_float64);
      CHECK((rounded(d.d_router_logits, Store::Bf16) == d.d_router_logits) ==
            (contract.d_logits == Store::Bf16));
      const bool exact = in_float64 || contract.name == "hf_main_grads";
      for (const Matrix* field : {&d.d_gate, &experts.d_gate_up_proj, &experts.d_down_proj})
        CHECK((rounded(*field, Store::Bf16) == *field) != exact);
    }
  }

  TEST_CASE("no tokens: gradients without rows, weights' gradients of zeros") {
    const auto p = eighths(kRenormalised, 0, 1);
    const auto& hf = find_contract("hf");
    const auto result = forward(p.problem, hf);
    const auto d = backward(p.problem, hf, result, p.d_hidden_states);
    CHECK(d.d_input_hidden_states.rows() == 0);
    CHECK((d.d_gate.array() == 0.0).all());
    CHECK((expert_gradients(p.problem, hf, result, d, 2).d_down_proj.array() == 0.0).all());
  }
}
