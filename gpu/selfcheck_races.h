// Problems of a few rows that launch every kernel: for compute-sanitizer's racecheck, under which a launch
// takes hundreds of times as long.
#pragma once

#include <cstdint>

namespace assay::gpu {

/// Both passes, both contracts and all tiles on a handful of tokens, each beside the portable kernels. Prints
/// a line per run and returns how many elements differ.
std::int64_t count_small_runs_that_differ();

}  // namespace assay::gpu
