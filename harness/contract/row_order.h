// In which order the rows of an expert stand.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "harness/contract/reference.h"

namespace assay {

/// "ascending", "any"
std::string_view name(ExpertRowOrder order);
ExpertRowOrder parse_row_order(std::string_view text);  // throws UsageError

/// Whether `gather` [S] lists the same slots for every expert as the routing, in whatever order: a kernel
/// that takes its rows by an atomic counter does. Entries may be anything.
bool same_slots_per_expert(const Routing& routing, std::span<const std::int32_t> gather);

}  // namespace assay
