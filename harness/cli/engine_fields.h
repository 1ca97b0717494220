// Whole fields compared with their reference by a device and by the CPU.
#pragma once

#include <cstdint>

#include "gpu/field_comparison.h"

namespace assay::cli {

/// Compares fields that reach every branch of the comparison, and one of full size, whose times it prints. Returns the number of
/// figures that differ: counts, histograms and largest ratios must be equal, sums to the error of adding in another order.
std::int64_t compare_fields(const FieldComparer& by_device);

}  // namespace assay::cli
