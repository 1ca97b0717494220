// What assay invariance computes beside a token: the same tokens alone, in batches, elsewhere, beside others.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/contract/invariant.h"
#include "harness/contract/problem.h"
#include "harness/judge/matched_rows.h"

namespace assay::cli {

/// Batches that are tried unless others are asked for.
inline constexpr std::int64_t kBatches[] = {1, 2, 4, 16, 64, 257, 1024, 4096};
/// Runs of one change at most: small batches of a large problem take some of its tokens only.
inline constexpr std::int64_t kMostBatches = 16;

/// One change, and the tokens of each of its runs: of the problem, or -1 for another neighbour.
struct TokenBatches {
  std::string name;
  Invariant of = Invariant::Batch;
  std::vector<RowNumbers> runs;
};

/// Batches larger than the problem repeat its tokens; one of its own size is left out. Empty without tokens.
std::vector<TokenBatches> token_batches(std::int64_t tokens, const std::vector<std::int64_t>& batches);

/// The problem on these tokens, batch 1. A neighbour is a token of the problem with its columns moved by one.
Problem batch_problem(const Problem& problem, const RowNumbers& tokens, const std::string& what);

}  // namespace assay::cli
