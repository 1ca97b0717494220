// Weight gradients added to those of before: the sums by hand from the products alone, and the interval
// beside every order in which the products may be summed.
#include "reference_cpu/previous_gradients.h"

#include <bit>
#include <cmath>
#include <random>

#include <doctest/doctest.h>

#include "harness/contract/stored.h"
#include "reference_cpu/tiny_backward.h"

using namespace assay;

namespace {

constexpr Field kGradients[] = {Field::d_down_proj, Field::d_gate_up_proj, Field::d_gate};
constexpr std::string_view kSums[] = {"hf", "hf_in_place_grads", "hf_added_main_grads", "hf_main_grads"};
constexpr MoeConfig kConfig{.hidden_size = 6, .moe_intermediate_size = 5, .num_experts = 5, .top_k = 2};

plain::PlainProblem gaussian(std::int64_t tokens, unsigned seed) {
  plain::PlainProblem p(kConfig, tokens);
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0.0, 0.7);
  for (Tensor* tensor : {&p.problem.input, &p.problem.gate, p.gate_up_proj.get(), p.down_proj.get()})
    for (auto& value : tensor->as<Bf16>()) value = round_to_bf16(normal(engine));
  for (auto& value : p.d_hidden_states.reshaped()) value = to_float(round_to_bf16(normal(engine)));
  return p;
}

/// Float32 values of every size around the products', or bf16 ones.
void set_previous(Problem& problem, bool wide, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  for (const Field field : kGradients) {
    Tensor tensor(wide ? DType::Float32 : DType::BFloat16, expected_shape(field, problem.sizes()));
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      const float x = std::ldexp(normal(engine), static_cast<int>(engine() % 12) - 8);
      if (wide)
        tensor.as<float>()[static_cast<std::size_t>(i)] = x;
      else
        tensor.as<Bf16>()[static_cast<std::size_t>(i)] = round_to_bf16(x);
    }
    problem.previous.set(field, std::move(tensor));
  }
}

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

}  // namespace

TEST_SUITE("previous gradients") {
  TEST_CASE("a sum is the product, rounded or not, plus what was there in fp32, rounded or not") {
    for (const bool wide : {false, true}) {
      TinyBackward alone(gaussian(20, 5), "hf_main_grads");
      TinyBackward added(gaussian(20, 5), "hf_main_grads");
      set_previous(added.p.problem, wide, 9);
      for (const Field field : kGradients) {
        const auto products = alone.stored_value<Predicted>(field);  // the accumulators themselves
        const StoredSpan before(added.p.problem.previous.at(field), DType::Float32);
        for (const auto contract : kSums) {
          CAPTURE(contract);
          CAPTURE(name(field));
          added.use(contract);
          const bool rounds = contract == "hf" || contract == "hf_added_main_grads";
          const bool narrow = contract == "hf" || contract == "hf_in_place_grads";
          const auto sums = added.stored_value<Predicted>(field);
          std::int64_t wrong = 0;
          for (std::size_t i = 0; i < sums.size(); ++i) {
            const float product = rounds ? to_float(round_to_bf16(products[i].value)) : products[i].value;
            const float sum = product + before.value(i);
            wrong += bits(sums[i].value) != bits(narrow ? to_float(round_to_bf16(sum)) : sum);
          }
          CHECK(sums.size() == products.size());
          CHECK(wrong == 0);
        }
      }
    }
  }

  TEST_CASE("without gradients of before nothing is added: main gradients are the products, rounded or not") {
    TinyBackward unrounded(gaussian(20, 5), "hf_main_grads");
    TinyBackward rounded(gaussian(20, 5), "hf_added_main_grads");
    TinyBackward hf(gaussian(20, 5), "hf");
    for (const Field field : kGradients) {
      const auto exact = unrounded.stored_value<Predicted>(field);
      const auto narrow = rounded.stored_value<Predicted>(field);
      const auto plain = hf.stored_value<Predicted>(field);
      std::int64_t more = 0;
      for (std::size_t i = 0; i < exact.size(); ++i) {
        CHECK(bits(narrow[i].value) == bits(plain[i].value));
        CHECK(bits(plain[i].value) == bits(to_float(round_to_bf16(exact[i].value))));
        more += !is_bf16(exact[i].value);
      }
      CHECK(more > 0);
    }
  }

  TEST_CASE("products summed in any order, then added as declared, lie in the interval") {
    const Accumulator orders[] = {{AccumulatorKind::Fp32Sequential, {}},
                                  {AccumulatorKind::Fp32Pairwise, {}},
                                  {AccumulatorKind::Hopper, {}},
                                  {AccumulatorKind::Ampere, {}}};
    for (unsigned seed = 1; seed <= 6; ++seed)
      for (const auto contract : kSums) {
        TinyBackward t(gaussian(40, seed), contract);
        set_previous(t.p.problem, seed % 2 == 0, seed + 100);
        for (const Field field : kGradients) {
          const auto bounds = t.stored_value<Bounded>(field);
          for (const auto& order : orders) {
            t.layer.accumulators = every_product(order);
            // From the bounded walk's own operands both see the same rows: none before differs in any order.
            const auto sums = t.stored_value<Predicted>(field);
            const DType dtype = dtype_of(field, *t.layer.contract);
            std::int64_t outside = 0;
            for (std::size_t i = 0; i < sums.size(); ++i)
              outside += !(round_to(dtype, bounds[i].low) <= sums[i].value &&
                           sums[i].value <= round_to(dtype, bounds[i].high));
            CAPTURE(contract);
            CAPTURE(name(field));
            CHECK(outside == 0);
          }
        }
      }
  }

  TEST_CASE("an expert without rows keeps what it had, exactly") {
    TinyBackward t(gaussian(3, 2), "hf");
    set_previous(t.p.problem, false, 4);
    std::int64_t kept = 0;
    for (const auto contract : kSums) {
      t.use(contract);
      for (const Field field : {Field::d_down_proj, Field::d_gate_up_proj}) {
        const auto sums = t.stored_value<Predicted>(field);
        const auto bounds = t.stored_value<Bounded>(field);
        const StoredSpan before(t.p.problem.previous.at(field), DType::Float32);
        const auto matrix = sums.size() / static_cast<std::size_t>(kConfig.num_experts);
        for (std::size_t i = 0; i < sums.size(); ++i) {
          if (t.layer.routing.counts[i / matrix] > 0) continue;
          ++kept;
          CHECK(bits(sums[i].value) == bits(before.value(i)));
          CHECK(bounds[i].low == before.value(i));
          CHECK(bounds[i].high == before.value(i));
        }
      }
    }
    CHECK(kept > 0);
  }

  TEST_CASE("whether a -0 of an expert without rows becomes +0 is undetermined") {
    TinyBackward t(gaussian(3, 2), "hf_in_place_grads");
    set_previous(t.p.problem, false, 4);
    std::int64_t open = 0;
    for (auto& x : t.p.problem.previous.at(Field::d_down_proj).as<Bf16>()) x = Bf16{0x8000};
    const auto sums = t.stored_value<Predicted>(Field::d_down_proj);
    const auto matrix = sums.size() / static_cast<std::size_t>(kConfig.num_experts);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (t.layer.routing.counts[i / matrix] == 0) CHECK(sums[i].undetermined);
      open += sums[i].undetermined;
    }
    CHECK(open > 0);
    CHECK(open < std::ssize(sums));
  }
}
