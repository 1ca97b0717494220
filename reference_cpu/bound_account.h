// Where the bounds of a field come from: in words, and of a product's elements in numbers.
#pragma once

#include <span>

#include "harness/contract/reference.h"
#include "reference_cpu/stages.h"

namespace assay {

/// `left`, `right`: the values that a product reads, null where the problem gives them. `carries`: some field
/// the stage reads is recomputed, so that its interval is carried along.
BoundAccount bound_account(Field field, const Layer& layer, const Values<Bounded>* left,
                           const Values<Bounded>* right, bool carries,
                           std::span<const std::int64_t> elements);

}  // namespace assay
