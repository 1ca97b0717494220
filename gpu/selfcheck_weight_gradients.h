// How gradients of weights leave their kernels: as bf16 or float32, stored or added.
#pragma once

#include <cstdint>

namespace assay::gpu {

/// Prints a line per case and returns how many elements differ from what the float32 sums of the portable
/// kernels make on the host; two NaN are equal. Both variants, and the step that cuBLAS's products take.
/// With `few` two of the cases alone. Needs kernels for Hopper.
std::int64_t count_weight_gradients_that_differ(bool few);

}  // namespace assay::gpu
