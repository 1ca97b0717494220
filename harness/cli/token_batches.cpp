#include "harness/cli/token_batches.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

namespace assay::cli {
namespace {

/// Tokens first, first + 1, ... of the problem, round and round.
RowNumbers stretch(std::int64_t first, std::int64_t count, std::int64_t tokens) {
  RowNumbers all(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) all[static_cast<std::size_t>(i)] = (first + i) % tokens;
  return all;
}

RowNumbers every_other(std::int64_t parity, std::int64_t tokens) {
  RowNumbers all = same_tokens(tokens);
  for (std::int64_t& token : all)
    if (token % 2 != parity) token = -1;
  return all;
}

/// The rows of [T, H] that the tokens name.
Tensor rows_of(const Tensor& from, const RowNumbers& tokens) {
  const std::int64_t hidden = from.shape()[1];
  const std::int64_t known = from.shape()[0];
  Tensor all(from.dtype(), {static_cast<std::int64_t>(tokens.size()), hidden});
  const auto values = from.as<Bf16>();
  const auto rows = all.as<Bf16>();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool neighbour = tokens[i] < 0;
    const std::int64_t token = neighbour ? static_cast<std::int64_t>(i) % known : tokens[i];
    const auto row =
        values.subspan(static_cast<std::size_t>(token * hidden), static_cast<std::size_t>(hidden));
    std::ranges::rotate_copy(row, row.begin() + (neighbour && hidden > 1 ? 1 : 0),
                             rows.begin() + static_cast<std::ptrdiff_t>(i) * hidden);
  }
  return all;
}

}  // namespace

std::vector<TokenBatches> token_batches(std::int64_t tokens, const std::vector<std::int64_t>& batches) {
  std::vector<TokenBatches> all;
  if (tokens == 0) return all;
  for (const std::int64_t batch : batches) {
    if (batch == tokens) continue;
    TokenBatches one{batch == 1 ? "alone" : fmt::format("a batch of {}", batch), Invariant::Batch, {}};
    const std::int64_t pieces =
        std::min(kMostBatches, std::max<std::int64_t>(1, (tokens + batch - 1) / batch));
    for (std::int64_t i = 0; i < pieces; ++i)
      one.runs.push_back(stretch(batch >= tokens ? 0 : i * tokens / pieces, batch, tokens));
    all.push_back(std::move(one));
  }
  if (tokens < 2) return all;
  all.push_back({"other neighbours", Invariant::Batch, {every_other(0, tokens), every_other(1, tokens)}});
  RowNumbers reversed = same_tokens(tokens);
  std::ranges::reverse(reversed);
  all.push_back({"reverse", Invariant::Order, {std::move(reversed)}});
  TokenBatches places{"other places", Invariant::Order, {}};
  for (const std::int64_t by : std::set<std::int64_t>{1, std::max<std::int64_t>(1, tokens / 2), tokens - 1})
    places.runs.push_back(stretch(by, tokens, tokens));
  all.push_back(std::move(places));
  return all;
}

Problem batch_problem(const Problem& problem, const RowNumbers& tokens, const std::string& what) {
  Problem other = problem;
  other.name = fmt::format("{}, {}", problem.name, what);
  other.batch = 1;
  other.sequence = static_cast<std::int64_t>(tokens.size());
  other.input = rows_of(problem.input, tokens);
  if (problem.output_gradient.size() > 0) other.output_gradient = rows_of(problem.output_gradient, tokens);
  for (const Field given : {Field::input_hidden_states, Field::d_hidden_states})
    other.generators[static_cast<std::size_t>(given)].reset();
  return other;
}

}  // namespace assay::cli
