// One field against its reference: the interval test, exact integers, and what the worst element looks like.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>

#include "harness/contract/cells.h"
#include "harness/contract/report.h"
#include "harness/judge/stretch_intervals.h"

namespace assay {

/// What compare needs to know of the field besides values.
struct CompareContext {
  Field field{};
  Sizes sizes;
  const Routing* routing = nullptr;  // for expert and token names of rows; may be null
  std::int64_t first_row = 0;        // of the rows at hand, in the field
  DType dtype = DType::BFloat16;     // in which a rounded field's elements are stored
};

/// The interval test of one element.
bool accepts(Stored out, const Interval& reference);

/// |out - ref| / (delta + ulp(out) / 2); infinite where either is not finite and they differ.
double ratio_of(Stored out, const Interval& reference);

/// The element at `index` of the flat field.
Element element_at(const CompareContext& context, std::int64_t index, Stored out, const Interval& reference);

class PatternGatherer;

/// The interval test of a rounded field whose rows come in stretches, in order and none left out.
class RoundedComparison {
 public:
  /// [rows, width]: the rows from context.first_row on. Cells that an engine has tested are not tested again.
  void add(const CompareContext& context, StoredSpan out, const StretchIntervals& reference,
           const std::optional<FieldCells>& by_engine = {});
  /// Of all rows so far.
  Judgement judgement() const;
  std::int64_t rejected() const { return sums_.rejected; }
  /// Where the flat field holds the judgement's worst element, which there is, and what accepts it.
  std::int64_t worst_index() const { return worst_index_; }
  const Interval& worst_reference() const { return worst_reference_; }
  /// Where elements are rejected; null where none is.
  const std::shared_ptr<PatternGatherer>& pattern() const { return pattern_; }

 private:
  Judgement sums_;
  std::map<std::int64_t, double> experts_;                 // largest ratio of each
  std::map<std::int64_t, std::int64_t> rejected_experts_;  // rejected elements of each that has any
  std::shared_ptr<PatternGatherer> pattern_;
  std::int64_t worst_index_ = -1;
  Interval worst_reference_;
  double worst_row_ratio_ = 0.0;
  bool worst_row_rejected_ = false;
};

/// Pass iff round(low) <= out <= round(high) with the field's own rounding; NaN passes only where the
/// reference is NaN. The mismatch count (bits that differ from the rounded reference) and the ratio |out -
/// ref| / (delta + ulp(out) / 2) are information.
Judgement compare_rounded(const CompareContext& context, StoredSpan out, std::span<const Interval> reference,
                          const std::optional<FieldCells>& by_engine = {});

/// The interval test of `count` elements of one row, at most kCellColumns.
CellTest test_cell(StoredSpan out, const Interval* reference, int count);

/// The same for float64 fields (the exporter's oracle): low <= out <= high.
Judgement compare_float64(const CompareContext& context, std::span<const double> out,
                          std::span<const Interval> reference);

/// Every element equal.
Judgement compare_exact(const CompareContext& context, std::span<const std::int32_t> out,
                        std::span<const std::int32_t> expected);

/// Counts as predicted, undetermined and differing elements, bit for bit.
Prediction compare_predicted(const CompareContext& context, StoredSpan out,
                             std::span<const PredictedBits> predicted);

/// Adds what was counted in further rows.
void add(Prediction& all, const Prediction& further);

/// Axis names and indices of flat element `index`; adds expert and token where a row has them.
std::vector<std::pair<std::string, std::int64_t>> locate(const CompareContext& context, std::int64_t index);

/// Whether each row of the field belongs to one expert; rows of slots do where the routing is known.
bool rows_have_experts(const CompareContext& context);

/// The expert that row `row` of the field belongs to, or -1.
std::int64_t expert_of_row(const CompareContext& context, std::int64_t row);

/// The flat slot t * K + j of row `row`, or -1 where rows are no slots or the routing is not known.
std::int64_t slot_of_row(const CompareContext& context, std::int64_t row);

/// The token of row `row`, which is the row itself where rows are no slots or the routing is not known.
std::int64_t token_of_row(const CompareContext& context, std::int64_t row);

}  // namespace assay
