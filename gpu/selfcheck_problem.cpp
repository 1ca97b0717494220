#include "gpu/selfcheck_problem.h"

#include <cmath>

namespace assay::gpu {
namespace {

// splitmix64: one 64-bit word per counter.
std::uint64_t word(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed * 0x9e3779b97f4a7c15ull + (index + 1) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// Sum of four uniform 16-bit lanes, centred and scaled to variance 1.
double approximately_normal(std::uint64_t bits) {
  const double sum = static_cast<double>(bits & 0xffff) + static_cast<double>(bits >> 16 & 0xffff) +
                     static_cast<double>(bits >> 32 & 0xffff) + static_cast<double>(bits >> 48);
  return (sum - 131070.0) / 37837.2;
}

std::shared_ptr<Tensor> filled(Shape shape, std::uint64_t seed, double scale, bool integers) {
  auto tensor = std::make_shared<Tensor>(DType::BFloat16, std::move(shape));
  const auto values = tensor->as<Bf16>();
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < tensor->size(); ++i) {
    const std::uint64_t bits = word(seed, static_cast<std::uint64_t>(i));
    values[static_cast<std::size_t>(i)] = integers ? round_to_bf16(static_cast<double>(bits % 3) - 1.0)
                                                   : round_to_bf16(approximately_normal(bits) * scale);
  }
  return tensor;
}

}  // namespace

Problem selfcheck_problem(const MoeConfig& config, std::int64_t tokens, std::uint64_t seed, Load load) {
  Problem problem;
  problem.name = "selfcheck";
  problem.config = config;
  problem.sequence = tokens;
  problem.seed = seed;
  const double by_hidden = 1.0 / std::sqrt(static_cast<double>(config.hidden_size));
  const double by_inter = 1.0 / std::sqrt(static_cast<double>(config.moe_intermediate_size));
  const bool ties = load == Load::Ties;
  problem.input = std::move(*filled({tokens, config.hidden_size}, seed * 8 + 1, 1.0, ties));
  problem.gate = std::move(*filled({config.num_experts, config.hidden_size}, seed * 8 + 2, by_hidden, ties));
  if (load == Load::OneTakesAll) {
    // The first feature is 8 for every token, and only the first top_k experts look at it.
    for (std::int64_t t = 0; t < tokens; ++t)
      problem.input.as<Bf16>()[static_cast<std::size_t>(t * config.hidden_size)] = round_to_bf16(8.0);
    for (std::int64_t e = 0; e < config.num_experts; ++e)
      problem.gate.as<Bf16>()[static_cast<std::size_t>(e * config.hidden_size)] =
          round_to_bf16(e < config.top_k ? 2.0 : -2.0);
  }
  if (load == Load::Skewed) {
    // The first feature is 1 for every token; what an expert makes of it falls with the logarithm of its
    // number, as Zipf's law has it.
    for (std::int64_t t = 0; t < tokens; ++t)
      problem.input.as<Bf16>()[static_cast<std::size_t>(t * config.hidden_size)] = round_to_bf16(1.0);
    for (std::int64_t e = 0; e < config.num_experts; ++e)
      problem.gate.as<Bf16>()[static_cast<std::size_t>(e * config.hidden_size)] =
          round_to_bf16(-0.5 * std::log(1.0 + static_cast<double>(e)));
  }
  problem.output_gradient = std::move(*filled({tokens, config.hidden_size}, seed * 8 + 5, 1.0, ties));
  problem.experts =
      stored_experts(filled({config.num_experts, 2 * config.moe_intermediate_size, config.hidden_size},
                            seed * 8 + 3, 2 * by_hidden, false),
                     filled({config.num_experts, config.hidden_size, config.moe_intermediate_size},
                            seed * 8 + 4, by_inter, false));
  return problem;
}

}  // namespace assay::gpu
