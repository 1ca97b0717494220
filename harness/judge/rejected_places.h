// Where a field's rejected elements are, from the data alone: what there is to say when no cause is known.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/judge/compare.h"

namespace assay {

/// Rejected elements of one field, row by row and column by column.
class RejectedPlaces {
 public:
  /// `context` names field, sizes and routing; its routing outlives this.
  explicit RejectedPlaces(const CompareContext& context);

  /// Element `index` of the flat field is rejected.
  void add(std::int64_t index);
  /// Those of the rows from `first_row` on that their intervals reject.
  void add(std::int64_t first_row, StoredSpan out, std::span<const Interval> reference);

  /// "everywhere", "all in columns 64 to 127 of expert 3", "all in every 16th column of every 8th row", "7
  /// scattered elements, in expert 3". Empty for one element, whose place is told anyway, and for none.
  std::string in_words() const;

 private:
  std::string dense_in_words(const std::vector<std::int64_t>& rows,
                             const std::vector<std::int64_t>& columns) const;

  Field field_;
  Sizes sizes_;
  const Routing* routing_;
  std::vector<std::int64_t> by_row_;
  std::vector<std::int64_t> by_column_;
  std::int64_t total_ = 0;
};

}  // namespace assay
