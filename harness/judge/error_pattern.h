// How the error of a field looks: gathered from the rows that hold rejected elements, and from no others.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "harness/contract/error_grid.h"
#include "harness/judge/compare.h"

namespace assay {

/// A rejected element and what accepts its value.
struct Rejected {
  double ratio = 0.0;
  std::int64_t index = 0;  // in the flat field
  Stored out;
  Interval reference;
};

/// Of a field whose rows come in stretches, in order and none left out.
class PatternGatherer {
 public:
  explicit PatternGatherer(const CompareContext& context);
  /// [rows, width]: the rows from context.first_row on. `rejected_in_row`: how many of each are rejected.
  void add(const CompareContext& context, StoredSpan out, std::span<const Interval> reference,
           std::span<const std::int64_t> rejected_in_row);
  /// At most kWorstRejected, by ratio.
  std::vector<Element> worst_elements() const;
  /// Fine: kFineBins, a detail and samples of values; else kCoarseBins alone.
  ErrorPattern pattern(bool fine) const;

 private:
  using Values = std::vector<std::pair<double, double>>;
  void add_detail(const CompareContext& context, StoredSpan out, std::span<const Interval> reference);

  CompareContext context_;
  ErrorGrid grid_;
  std::vector<Rejected> worst_;
  ErrorMap detail_;
  std::int64_t detail_around_ = -1;  // flat index of the element in its middle
  std::int64_t stride_ = 1;          // of rejected elements that are sampled
  std::int64_t seen_ = 0;            // rejected so far
  Values sampled_;
  Values rejected_;
};

/// Those of a case's fields, until it is known which of them is the first with an error of its own.
class CasePatterns {
 public:
  /// Nothing where `pattern` is null, or where it is carried on from an error of the field's own: that adds
  /// nothing to see.
  void keep(const FieldResult& field, Mode mode, std::shared_ptr<const PatternGatherer> pattern);
  /// Fills in the judgements' patterns: a fine one of the first own error if `fine`, else coarse ones.
  void draw(CaseResult& result, bool fine) const;

 private:
  struct Kept {
    Field field;
    Mode mode;
    std::shared_ptr<const PatternGatherer> pattern;
  };
  std::vector<Kept> kept_;
};

/// Those of an exact field, which has no ratios: `wrong` are flat indices, ascending.
ErrorPattern pattern_of_wrong(const CompareContext& context, std::span<const std::int64_t> wrong);

}  // namespace assay
