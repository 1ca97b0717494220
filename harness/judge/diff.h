// Two candidates on one problem, bit by bit and against float64: where they part and who is nearer.
#pragma once

#include <optional>

#include "harness/contract/candidate.h"
#include "harness/contract/parting.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"

namespace assay {

/// One of the two as judged, and its contract as its data show it (contract_fit.h); none where they do not.
struct JudgedSide {
  const Candidate* candidate = nullptr;
  PartingSide side;
  std::optional<PrecisionContract> fitted;
};

/// `reference` makes the layer in float64 on each one's routing: asked for fields that part only.
Parting diff(const Problem& problem, JudgedSide a, JudgedSide b, const ReferenceFactory& reference);

/// Of two runs' experts and weights. Logits tell gaps and margins where they are written.
RoutingAgreement compare_routing(const FieldSet& a, const FieldSet& b, const Sizes& sizes);

/// One sentence for what does not belong to one problem, or nothing: config, tokens, inputs, weights.
/// Weights that one generator names are not loaded.
std::optional<std::string> other_problem(const Problem& a, const Problem& b);

}  // namespace assay
