// Why counts or indices are wrong: another convention, or a structure that is broken.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/cause.h"
#include "harness/contract/reference.h"

namespace assay {

/// Of token_counts_by_expert [E] or gather_indices [S]: conventions that give the entries, simplest first,
/// then what is broken. `right` is the routing that the field should describe. `explained`: entries that are
/// wrong, less those that the convention gets wrong, in shares of the former.
std::vector<Cause> causes_of_indices(Field field, const Sizes& sizes, const Routing& right,
                                     std::span<const std::int32_t> found);

}  // namespace assay
