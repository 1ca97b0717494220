// Which rounding points a candidate's data show, each by itself: the contract it follows, whatever it
// declares.
#pragma once

#include <string>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/reference.h"
#include "harness/contract/report.h"

namespace assay {

struct ContractFit {
  const PrecisionContract* closest =
      nullptr;               // the named contract that differs from the fitted one in the fewest points
  PrecisionContract fitted;  // each rounding point as the data show it
};

/// Starts from the declared contract, or another named one that predicts more bits right, then flips one
/// rounding point after the other. A point is taken for flipped only if that corrects more elements than
/// chance would; points that no materialised field tells stay as they are. A contract that leaves a field in
/// registers is not preferred because the candidate wrote that field wrongly: its roundings have to be right
/// in more elements than those of a contract that recomputes the field as well. `judged` says which fields
/// have the right shape, dtype and index range. `engine` as in ReferenceFactory.
ContractFit fit_contract(const Problem& problem, const Candidate& candidate, const CaseResult& judged,
                         const Accumulators& accumulators, const ReferenceFactory& reference,
                         const Engine* engine);

/// Whether gradients are there to tell of backward's rounding points.
bool has_gradients(const FieldSet& fields);

/// "silu is not rounded to bf16, which hf does": one rounding point in which `found` differs from `named`,
/// and the field whose values tell; those of backward too where asked for.
struct PointApart {
  Field told_by{};
  std::string sentence;
};
std::vector<PointApart> points_apart(const PrecisionContract& found, const PrecisionContract& named,
                                     bool backward);

/// Their sentences.
std::vector<std::string> differing_points(const PrecisionContract& found, const PrecisionContract& named,
                                          bool backward);

}  // namespace assay
