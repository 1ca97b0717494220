// Errors that broken routing does not explain.
#pragma once

#include <span>

#include "harness/contract/field_set.h"
#include "harness/contract/precision_contract.h"
#include "harness/contract/problem.h"
#include "harness/contract/reference.h"
#include "harness/contract/report.h"

namespace assay {

/// What a candidate's routing is held against.
struct RoutingBeside {
  const FieldSet* fields = nullptr;  // the candidate's
  Sizes sizes;
  const PrecisionContract* contract = nullptr;
};

/// Whether a field whose isolated judgement fails and that reads failed routing, and no other failed field of
/// `judged`, is wrong in rows that the wrong ids, counts and indices do not reach: whichever way it read
/// them, those rows are right by them. A note says how many elements are.
bool errs_beyond_routing(FieldResult& result, std::span<const FieldResult> judged,
                         const RoutingBeside& beside, Reference& reference);

}  // namespace assay
