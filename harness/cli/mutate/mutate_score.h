// The score of a run of `assay mutate`, as text and JSON.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "harness/cli/mutate/mutation.h"
#include "harness/contract/exit_code.h"

namespace assay::cli {

struct MutationScore {
  std::int64_t planted = 0;
  std::int64_t equivalent = 0;  // legal under the contract: excluded
  std::int64_t unreached = 0;   // changed no bit: an error of the table
  std::int64_t scored = 0;
  std::int64_t killed = 0;
  std::int64_t right_stage = 0;
  std::int64_t killed_open = 0;  // with nothing declared
  std::int64_t hints_expected = 0;
  std::int64_t hints_right = 0;
};

MutationScore score(std::span<const Mutation> mutations);

/// Scores of the same faults under one contract, on the problems of the table or on a real model's width.
struct ScopeScore {
  std::string contract;
  std::string problems;
  MutationScore score;
};

inline constexpr std::string_view kProblemsOfTable = "small ones";

/// By contract and sums, in the order met.
std::vector<ScopeScore> scores_by_contract(std::span<const Mutation> mutations, const std::string& problems);

/// {"command", "environment", "scores": [...]}, and what reads it. Throws InputError naming what is missing.
std::string scores_json(std::span<const ScopeScore> scores, const std::string& command);
std::vector<ScopeScore> read_scores(const std::string& text);

/// 1 unless every scored fault is killed in its stage and none is unreached; 77 when nothing was scored.
ExitCode exit_code(const MutationScore& score);

/// A line for one fault: outcome, detectors, hint.
std::string line(const Mutation& mutation);

/// Totals, kills per detector, and survivors by name.
std::string totals_text(std::span<const Mutation> mutations);

/// Faults that all usual rules accept on at least one problem where assay kills them.
std::vector<std::string_view> missed_by_usual_rules(std::span<const Mutation> mutations);

/// {"command", "environment", "totals", "mutations": [...]}
std::string mutations_json(std::span<const Mutation> mutations, const std::string& command);

}  // namespace assay::cli
