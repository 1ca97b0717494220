// What of a candidate may feed the isolated checks.
#pragma once

#include "harness/reference.h"

namespace assay {

/// The forward fields that have the right shape, dtype and index range. `fields` must outlive the result.
Upstream usable_upstream(const Problem& problem, const FieldSet& fields);

}  // namespace assay
