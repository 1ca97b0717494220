// verify --contract auto: the named contract that the data follow, and each rounding point that differs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/judge/judge.h"

namespace assay::cli {

inline constexpr std::string_view kContractAuto = "auto";

struct ContractTrials {
  CaseResult best;                          // what judge_best_contract gives
  std::vector<std::string> passed;          // contracts under which the candidate passes
  std::optional<PrecisionContract> fitted;  // as the data show it; none without hidden_states
};
ContractTrials try_contracts(const Problem& problem, const Candidate& candidate, const JudgeOptions& options);

/// Judges under every named contract an implementation may follow and keeps the best; its remarks say how the
/// others fared, and at which rounding points the candidate differs from the best and from the one it
/// declares.
CaseResult judge_best_contract(const Problem& problem, const Candidate& candidate,
                               const JudgeOptions& options);

}  // namespace assay::cli
