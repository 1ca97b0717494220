// Where the bounds of a field come from: in words, and of a product's elements in numbers.
#pragma once

#include <span>

#include "harness/contract/reference.h"
#include "reference_cpu/stages.h"

namespace assay {

/// `own`: the fields that the evaluation reads as they are, the candidate's when isolated, none when chained.
/// `carries`: some field it reads is recomputed, so that its interval is carried along.
BoundAccount bound_account(Field field, const Layer& layer, const Upstream& own, bool carries,
                           std::span<const std::int64_t> elements);

}  // namespace assay
