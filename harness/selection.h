// Whether a top-k selection is legal: against logits that are themselves only known within bounds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract.h"
#include "harness/reference.h"
#include "harness/report.h"

namespace assay {

struct SelectionCheck {
  Judgement judgement;               // one rejection per token
  std::vector<RoutingFlip> flips;    // tokens whose set differs from the K largest reference logits (lowest index first)
};

/// A set S is admissible iff min over S of (l + tau) >= max outside S of (l - tau); inside S every inverted neighbour pair must
/// overlap likewise (numerics 3.6). `logits` are stored values with their accepted ends; tau adds the fp32 softmax's slack:
/// expf's error, the rounded argument, and logits so low that their probabilities underflow to tied zeros.
/// Equal logits follow the contract's tie rule. An expert listed twice is rejected.
SelectionCheck check_selection(const MoeConfig& config, const PrecisionContract& contract, std::span<const Interval> logits,
                               std::span<const std::int32_t> selected);

}  // namespace assay
