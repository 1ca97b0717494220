// Shape, dtype and index range of a candidate's fields: judged before values.
#pragma once

#include "harness/contract/reference.h"
#include "harness/contract/report.h"

namespace assay {

/// Fills `usable` field by field; what is wrong becomes the field's verdict.
class Intake {
 public:
  Intake(const Problem& problem, const FieldSet& fields);
  void check(Field field, FieldResult& result);

  Upstream upstream;

 private:
  Sizes sizes_;
  const FieldSet& fields_;
};

}  // namespace assay
