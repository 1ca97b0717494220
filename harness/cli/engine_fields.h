// Whole fields compared with their reference by an engine and by the CPU.
#pragma once

#include <cstdint>

#include "harness/contract/engine.h"

namespace assay::cli {

/// Compares fields that reach every branch of the comparison under every dependence. Returns how many cells,
/// sums and reports differ in any bit.
std::int64_t compare_small_fields(const Engine& engine);

/// And one of full size, whose times it prints.
std::int64_t compare_fields(const Engine& engine);

/// The check must be seen to fail: one bit of every kind of sum changed where no sample looks, and an engine
/// of other arithmetic.
bool planted_differences_are_found(const Engine& engine);

}  // namespace assay::cli
