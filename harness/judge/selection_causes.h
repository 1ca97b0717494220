// Why a choice of experts is wrong: read from other logits, in another order, or no choice at all.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/cause.h"
#include "harness/contract/selection.h"

namespace assay {

/// A choice that broke the rule, and what it was made from.
struct WrongSelection {
  const MoeConfig& config;
  const PrecisionContract& contract;
  const LogitModel& logits;             // [T, E], which the choice is judged by
  std::span<const Interval> unrounded;  // [T, E], the same before they are stored; empty: not known
  std::span<const std::int32_t> found;  // [T, K], ids out of range among them
};

/// Hypotheses that give the ids of most tokens that break the rule, best and simplest first. `explained`: the
/// share of those tokens.
std::vector<Cause> causes_of_selection(const WrongSelection& wrong);

struct WrongIds {
  std::vector<std::int64_t> tokens;  // that break the rule, ascending; those with ids out of range among them
  std::int64_t ids = 0;              // of theirs that are not the ones due in their slots
};
WrongIds wrong_ids(const WrongSelection& wrong);

}  // namespace assay
