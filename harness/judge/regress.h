// A kernel change as sentences: what two runs of the same problem say differently, and whether that may be.
#pragma once

#include <span>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/exit_code.h"
#include "harness/contract/field_set.h"
#include "harness/contract/finding.h"
#include "harness/contract/report.h"

namespace assay {

/// Errors have grown when the largest ratio did by this factor and by this much: below, other random inputs
/// would do the same.
inline constexpr double kRatioGrowth = 1.5;
inline constexpr double kRatioStep = 0.05;

/// Run time is mentioned from this relative change on. It is never judged.
inline constexpr double kTimeChange = 0.1;

/// Shorter runs differ by more than that from one time to the next: they are not mentioned. Seconds.
inline constexpr double kTimeFloor = 0.5;

/// Two reports: cases and fields added or missing, verdicts, error ratios, bits that differ from the
/// reference and from the prediction, contract, time. Cases are paired by problem and candidate, those left
/// over by problem alone. Never empty: without a difference one sentence says how much was compared;
/// comparing nothing is a regression.
std::vector<Finding> regress(const Report& baseline, const Report& candidate);

/// Two sets of results of the same problem, bit by bit: changed elements per field, the first of them and the
/// largest distance. A change is Legal, for judging it takes reports; a field gone, of another shape or
/// dtype, newly not finite, or an input that differs is a Regression. Never empty.
std::vector<Finding> regress(const FieldSet& baseline, const FieldSet& candidate);

/// The same of what two candidates hold by hashes: the experts whose hashes changed.
std::vector<Finding> regress(const std::vector<HeldField>& baseline, const std::vector<HeldField>& candidate);

/// Both, for two dumps that were judged as well: changed bits of a field that did not pass are a Regression,
/// what changed with the first cause is folded into one finding, and what is said of a field is one. The
/// gravest first; of equally grave ones the first cause, then the fields as they are computed. Either pair
/// may be null as a whole; half a pair throws UsageError.
std::vector<Finding> regress(const Report* baseline, const Report* candidate,
                             const Candidate* baseline_results, const Candidate* candidate_results);

Severity worst(std::span<const Finding> findings);

/// 0 same or approved, 4 legal change, 1 regression.
ExitCode exit_code(Severity severity);

}  // namespace assay
