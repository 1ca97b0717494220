// Candidates whose products are summed otherwise than recorded: innocent elements differ from the prediction,
// legally, beside a planted fault.
#pragma once

#include <string_view>

#include "harness/contract/candidate.h"
#include "harness/contract/fault.h"
#include "harness/contract/problem.h"

namespace assay::cli {

enum class SumsOf {
  Recorded,  // as cuBLAS sums on an H200, declared
  Float64,   // float64, rounded once: no accumulator declares it
  Pairwise,  // fp32 as a tree
  SplitK,    // Hopper's tensor core, K in four parts
};
inline constexpr SumsOf kSums[] = {SumsOf::Recorded, SumsOf::Float64, SumsOf::Pairwise, SumsOf::SplitK};
std::string_view name(SumsOf sums);  // "recorded", "float64", "pairwise", "split_k"
/// Throws UsageError listing the valid names.
SumsOf find_sums(std::string_view name);

/// A candidate with the fault, its products summed so; both passes where asked for. In float64 the fault's
/// field holds the planted bits where the fault changes any, and what follows is computed from it.
Candidate summed_candidate(const Problem& problem, const PrecisionContract& contract, SumsOf sums,
                           const Fault& fault, bool backward);

}  // namespace assay::cli
