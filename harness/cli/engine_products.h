// Single grouped products by an engine and by the CPU, on operands that reach every branch of the arithmetic.
#pragma once

#include <cstdint>

#include "harness/contract/engine.h"

namespace assay::cli {

struct ProductComparison {
  std::int64_t products = 0;  // compared
  std::int64_t elements = 0;
  std::int64_t differing = 0;  // in any bit of any member
  std::int64_t declined = 0;   // left to the CPU: none may be, but values with a NaN among them
};

/// Every combination of shape, data and accumulator; what the engine declines is told on stdout and
/// counted. Prints a line for each product that differs, if `verbose`.
ProductComparison compare_products(const Engine& engine, bool verbose);

}  // namespace assay::cli
