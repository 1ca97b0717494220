#include "harness/cli/token_batches.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

namespace assay::cli {

TEST_SUITE("token_batches") {
  TEST_CASE("every token is in every batch, at every place and with other neighbours") {
    for (const std::int64_t tokens : {1, 2, 5, 12}) {
      const auto all = token_batches(tokens, {1, 2, 4, 16});
      for (const TokenBatches& batches : all) {
        CAPTURE(batches.name);
        std::set<std::int64_t> seen;
        for (const RowNumbers& run : batches.runs) seen.insert(run.begin(), run.end());
        seen.erase(-1);
        CHECK(seen.size() == static_cast<std::size_t>(tokens));
      }
      CHECK(std::ranges::none_of(all, [&](const TokenBatches& batches) {
        return std::ranges::find(batches.runs, same_tokens(tokens)) != batches.runs.end();
      }));
    }
    CHECK(token_batches(0, {1, 2}).empty());
  }

  TEST_CASE("small batches of many tokens take some of them only, spread over all") {
    const auto alone = token_batches(1000, {1}).front();
    CHECK(alone.runs.size() == kMostBatches);
    CHECK(alone.runs.front().at(0) == 0);
    CHECK(alone.runs.back().at(0) == 937);
  }

  TEST_CASE("a batch has the tokens' rows, and a neighbour's are moved by one column") {
    Problem problem;
    problem.name = "p";
    problem.config = {.hidden_size = 2, .moe_intermediate_size = 1, .num_experts = 2, .top_k = 1};
    problem.sequence = 2;
    problem.input = Tensor(DType::BFloat16, {2, 2});
    for (std::size_t i = 0; i < 4; ++i) problem.input.as<Bf16>()[i].bits = static_cast<std::uint16_t>(i);
    const Problem other = batch_problem(problem, {1, 0, -1}, "reverse");
    CHECK(other.name == "p, reverse");
    CHECK(other.sizes().tokens == 3);
    std::vector<int> bits;
    for (const Bf16 x : other.input.as<Bf16>()) bits.push_back(x.bits);
    CHECK(bits == std::vector<int>{2, 3, 0, 1, 1, 0});
  }
}

}  // namespace assay::cli
