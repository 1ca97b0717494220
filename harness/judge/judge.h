// The judge: one candidate on one problem, every field isolated, chained and predicted, and the first stage
// with an error of its own named in words.
#pragma once

#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"
#include "harness/contract/report.h"
#include "harness/judge/held_checks.h"

namespace assay {

struct JudgeOptions {
  std::string contract;                      // overrides the candidate's; empty = as declared
  std::optional<Accumulators> accumulators;  // overrides the declared ones
  std::vector<Stage> only;                   // judge these stages only; empty: all
  double false_alarm = 1e-6;  // chance that statistics suspect a legal implementation of this case; in (0, 1)
  ReferenceFactory reference;
  const Engine* engine = nullptr;  // offered the reference's products and the comparisons; null for none
  Hasher hash;                     // of fields that a file holds by hashes; without it they are not compared
  bool causes = true;              // look for the causes of what did not pass
  bool fine_patterns = true;       // draw the first own error in kFineBins, not kCoarseBins
};

/// Never throws for what is wrong with the candidate's fields: that is a verdict.
CaseResult judge(const Problem& problem, const Candidate& candidate, const JudgeOptions& options);

}  // namespace assay
