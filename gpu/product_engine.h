// The GPU as a product engine: the reference's float64 products with their bounds, and the tensor core's predicted sums, both by
// kernels that add in ascending K. The same interface where no CUDA compiler was found: then there is no engine.
#pragma once

#include <optional>

#include "harness/product_engine.h"

namespace assay {

/// On the current device, or nothing where there is none. Takes bounded products with an fp32 accumulator, and predicted ones on
/// `hopper`, split or not, of operands that fit bf16. `fraction_bits` other than 25 is a planted fault: a wrong tensor core.
std::optional<ProductEngine> gpu_product_engine(std::int64_t least_multiply_adds, int fraction_bits = 25);

}  // namespace assay
