// What must not change a fused layer's bits: repeating it, another stream, another routing in between, a
// graph.
#pragma once

#include <cstdint>

#include "gpu/pipeline.h"

namespace assay::gpu {

/// Runs the layer on `problem`, both passes where it has a gradient of the output, again and again in one
/// workspace that is never cleaned, and returns in how many of the runs any byte of any result differed from
/// the first, poisoned one. `other` has the same sizes and other values.
std::int64_t count_runs_that_differ(const Problem& problem, const Problem& other, const GpuOptions& options);

}  // namespace assay::gpu
