// The intervals of many elements of one product at a time: the bits that product_bound.h gives one by one.
#pragma once

#include "harness/contract/element_constants.h"

namespace assay {

inline constexpr int kElementsAtOnce = 16;

/// ProductSums of elements, each an array.
struct SumsOfElements {
  const double* ref;
  const float* spread;
  const float* squares;
  const float* running;
};

/// Of the first `count` elements, at most kElementsAtOnce; `exact` tells which have no width.
void product_intervals(const ElementConstants& constants, const SumsOfElements& sums, const bool* exact,
                       int count, Interval* out);

}  // namespace assay
