// Which of its two bounds judged a field: for the worst element, and typically.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/judge/compare.h"

namespace assay {

/// Some elements of a field, spread over its rows and columns, and the bounds in force for them.
class SampledBounds {
 public:
  explicit SampledBounds(const CompareContext& context);
  /// The intervals that the rows from `first_row` on were judged by. Rows come in order.
  void add(std::int64_t first_row, const StretchIntervals& reference);
  /// Fills the judgement's `bounds` and both bounds of its worst element. Before the reference computes
  /// another field, so that it has the operands at hand.
  void account(Reference& accounts, Mode mode, const RoundedComparison& comparison,
               Judgement& judgement) const;

 private:
  Field field_;
  std::int64_t width_;
  std::vector<std::int64_t> elements_;  // flat indices, ascending
  std::vector<double> in_force_;        // of the elements whose rows were added
};

}  // namespace assay
