// The GPU as an engine: the reference's float64 products with their bounds, the tensor core's predicted sums,
// and comparisons of fields, all by kernels that add in the CPU's order. The same interface where no CUDA
// compiler was found: then there is no engine.
#pragma once

#include <optional>

#include "harness/contract/engine.h"

namespace assay {

/// What is worth the way to the device; zero: everything.
struct LeastWork {
  std::int64_t multiply_adds = 0;  // of a product
  std::int64_t elements = 0;       // of a field
};

/// On the current device, or nothing where there is none. Takes bounded products with an fp32 accumulator,
/// predicted ones on `hopper`, split or not, of operands that fit bf16, and fields of any kind.
/// `fraction_bits` other than 25 is a planted fault: a wrong tensor core.
std::optional<Engine> gpu_engine(const LeastWork& least, int fraction_bits = 25);

}  // namespace assay
