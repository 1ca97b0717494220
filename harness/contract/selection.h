// Whether a top-k selection is legal: against logits that are themselves only known within bounds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/precision_contract.h"
#include "harness/contract/reference.h"
#include "harness/contract/report.h"
#include "harness/contract/stored.h"

namespace assay {

/// Logits [T, E] as the selection sees them: stored values, each with the ends it may have.
struct LogitModel {
  std::vector<Interval>
      bound;  // ends that the worst-case bound allows; `noise` is the rms error after storing
  std::vector<Interval> probable;  // ends within 6 times the noise, and within the bound
};

/// Logits known exactly: the candidate's own.
LogitModel exact_logits(const StoredSpan& own);

/// The same values with no error at all.
LogitModel values_alone(const LogitModel& logits);

struct SelectionCheck {
  Judgement judgement;  // tokens that break the rule, and in them the ids that are out of place
  std::vector<RoutingFlip>
      flips;  // tokens whose set differs from the K largest reference logits (lowest index first)
};

/// A set S is admissible iff min over S of (l + tau) >= max outside S of (l - tau); inside S every inverted
/// neighbour pair must overlap likewise (NUMERICS 7). tau adds the fp32 softmax's slack: expf's error, the
/// rounded argument, and logits so low that their probabilities underflow to tied zeros. Equal logits follow
/// the contract's tie rule. An expert listed twice is rejected. Each flip gets its tier: explained by the
/// values alone (ties), by the probable ends, by the bound, or not at all.
SelectionCheck check_selection(const MoeConfig& config, const PrecisionContract& contract,
                               const LogitModel& logits, std::span<const std::int32_t> selected);

}  // namespace assay
