// Shape, dtype and index range of a candidate's fields: judged before values.
#pragma once

#include "harness/contract/candidate.h"
#include "harness/contract/reference.h"
#include "harness/contract/report.h"
#include "harness/judge/compare.h"

namespace assay {

/// Fills `usable` field by field; what is wrong becomes the field's verdict.
class Intake {
 public:
  /// All must outlive this.
  Intake(const Problem& problem, const Candidate& candidate, const PrecisionContract& contract);
  /// Leaves the result of a field that is absent alone, but for the dtype that is due.
  void check(Field field, FieldResult& result);

  /// Whether some entries of an index field, of right shape, point nowhere.
  bool out_of_range(Field field) const { return out_of_range_[static_cast<std::size_t>(field)]; }

  /// What comparisons of the field need to know.
  CompareContext context(Field field, const Routing& routing) const;

  Upstream upstream;

 private:
  Sizes sizes_;
  const FieldSet& previous_;
  const Candidate& candidate_;
  const PrecisionContract& contract_;
  FieldFlags out_of_range_{};
};

}  // namespace assay
