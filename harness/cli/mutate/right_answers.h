// What rules of thumb compare a layer with.
#pragma once

#include <map>
#include <vector>

#include "harness/contract/candidate.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"

namespace assay::cli {

/// What leaves the layer: its output, and the gradients of its inputs and weights.
inline constexpr Field kLeaving[] = {Field::hidden_states, Field::d_input_hidden_states,
                                     Field::d_gate_up_proj, Field::d_down_proj, Field::d_gate};

struct RightAnswers {
  Candidate reference;  // float64, rounded where the contract stores a field
  Candidate torch;      // HuggingFace's own run, as predicted
  std::map<Field, std::vector<double>>
      exact;  // of `kLeaving`: float64, nothing rounded, of that run's routing
};

RightAnswers right_answers(const Problem& problem, const PrecisionContract& contract, bool backward);

}  // namespace assay::cli
