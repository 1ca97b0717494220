// The gradients of the grouped products, those for Hopper beside the portable ones, on routings made by hand.
#pragma once

#include <cstdint>

namespace assay::gpu {

/// Prints a line per case and returns how many elements differ; two NaN are equal. Experts of 0, 1, 15, 16,
/// ... rows, no rows at all, one expert that takes all; one expert's rows are NaN, which no other may see.
/// Needs kernels for Hopper.
std::int64_t count_gradients_that_differ();

}  // namespace assay::gpu
