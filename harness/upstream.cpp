#include "harness/upstream.h"

#include "harness/intake.h"

namespace assay {

Upstream usable_upstream(const Problem& problem, const FieldSet& fields) {
  Intake intake(problem, fields);
  for (const auto& what : kFields) {
    FieldResult ignored;  // the judge says what is wrong
    if (what.group == Group::Forward && fields.has(what.id)) intake.check(what.id, ignored);
  }
  return intake.upstream;
}

}  // namespace assay
