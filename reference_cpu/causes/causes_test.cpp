// Causes of errors in whole layers: orders of summation are told apart by their bits, and noise has no cause.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <utility>

#include <doctest/doctest.h>

#include "reference_cpu/causes/hypotheses.h"
#include "reference_cpu/causes/wrong_candidates.h"

using namespace assay;

namespace {

constexpr Field kComputed[] = {Field::router_logits, Field::topk_weights, Field::first_gemm,
                               Field::intermediate,  Field::second_gemm,  Field::hidden_states};

/// Every element off by a random share of itself, `size` of it in the root mean square.
std::vector<Cause> causes_with_noise(const Problem& problem, const Candidate& right, Field field, double size,
                                     std::mt19937& random) {
  std::normal_distribution<double> noise(0.0, size);
  return causes_with(problem, right, field, [&](std::int64_t r, std::int64_t c, const auto& values) {
    return round_to_bf16(to_float(values.row(r)[static_cast<std::size_t>(c)]) * (1.0 + noise(random)));
  });
}

struct NoisyLayer {
  Data data;
  MoeConfig config;
  std::int64_t tokens;
};
const NoisyLayer kNoisyLayers[] = {{Data::Gaussian, {64, 32, 8, 4, true}, 12},
                                   {Data::Gaussian, {72, 40, 7, 3, true}, 13},
                                   {Data::OneSign, {64, 32, 8, 4, true}, 16}};

}  // namespace

TEST_SUITE("causes") {
  TEST_CASE("every hypothesis has one row and says what it supposes") {
    for (const auto& row : kHypotheses) {
      CHECK(find_hypothesis(row.id) == &row);  // ids are unique
      CHECK(!row.what.empty());
    }
    CHECK(find_hypothesis("none") == nullptr);
  }

  TEST_CASE("bits that another order of summation explains are all explained") {
    const Problem problem = random_layer(Data::Gaussian, {2048, 256, 8, 2, true}, 32, 3);
    for (const auto& [order, hypothesis] :
         {std::pair(Accumulator{AccumulatorKind::Hopper, {1024, 1024}}, "split_k"),
          std::pair(Accumulator{AccumulatorKind::Fp32Sequential, {}}, "fp32_sequential")}) {
      Accumulators accumulators = every_product(kHopper);
      accumulators[ProductId::gate_up] = order;
      const auto causes = causes_of(problem, predicted(problem, accumulators), Field::first_gemm);
      CAPTURE(std::string(hypothesis));
      REQUIRE(!causes.empty());
      CHECK(causes.front().hypothesis == hypothesis);
      CHECK(causes.front().every_bit);
    }
  }

  TEST_CASE("noise has no cause: added, in place of the result, and the result shuffled") {
    std::mt19937 random(1);
    for (const auto& [data, config, tokens] : kNoisyLayers) {
      const Problem problem = random_layer(data, config, tokens, 11);
      const Candidate right = predicted(problem);
      for (const Field field : kComputed) {
        CAPTURE(name(field));
        CAPTURE(tokens);
        for (const double size : {0.005, 0.5}) {
          CAPTURE(size);
          CHECK(first_sentence(causes_with_noise(problem, right, field, size, random)) == "");
        }
        const auto values = right.fields.at(field).as<Bf16>();
        std::vector<Bf16> shuffled(values.begin(), values.end());
        std::ranges::shuffle(shuffled, random);
        const std::int64_t width = width_of(field, problem.sizes());
        CHECK(first_sentence(
                  causes_with(problem, right, field, [&](std::int64_t r, std::int64_t c, const auto&) {
                    return shuffled[static_cast<std::size_t>(r * width + c)];
                  })) == "");
        double square = 0.0;
        for (const Bf16 x : values)
          square += static_cast<double>(to_float(x)) * to_float(x) / static_cast<double>(values.size());
        std::normal_distribution<double> unrelated(0.0, std::sqrt(square));
        CHECK(first_sentence(causes_with(problem, right, field, [&](std::int64_t, std::int64_t, const auto&) {
                return round_to_bf16(unrelated(random));
              })) == "");
      }
    }
  }

  TEST_CASE(
      "what resembles an error without giving its values is no cause: rows' own factors, another curve") {
    for (const auto& [data, config, tokens] : kNoisyLayers) {
      const Problem problem = random_layer(data, config, tokens, 11);
      const Candidate right = predicted(problem);
      CAPTURE(tokens);
      const auto by_row = causes_with(problem, right, Field::second_gemm,
                                      [](std::int64_t r, std::int64_t c, const auto& values) {
                                        const float x = to_float(values.row(r)[static_cast<std::size_t>(c)]);
                                        return round_to_bf16(x * (0.2 + 0.011 * static_cast<double>(r % 16)));
                                      });
      CHECK(first_sentence(by_row) == "");
      if (data == Data::OneSign) continue;  // gates beyond the bend, where all curves meet
      const auto z = right.fields.at(Field::first_gemm).as<Bf16>();
      const std::int64_t half = config.moe_intermediate_size;
      const auto steeper =
          causes_with(problem, right, Field::intermediate, [&](std::int64_t r, std::int64_t c, const auto&) {
            const double gate = to_float(z[static_cast<std::size_t>(2 * r * half + c)]);
            const double up = to_float(z[static_cast<std::size_t>((2 * r + 1) * half + c)]);
            return round_to_bf16(gate / (1.0 + std::exp(-2.0 * gate)) * up);
          });
      CHECK(first_sentence(steeper) == "");
    }
  }

  TEST_CASE("what was not written is not blamed for noise") {
    std::mt19937 random(2);
    for (const auto& [data, config, tokens] : kNoisyLayers) {
      const Problem problem = random_layer(data, config, tokens, 11);
      Candidate lone = predicted(problem);
      for (const auto& what : kFields)
        if (what.id != Field::hidden_states) lone.fields.erase(what.id);
      for (const double size : {0.005, 0.5})
        CHECK(first_sentence(causes_with_noise(problem, lone, Field::hidden_states, size, random)) == "");
    }
  }
}
