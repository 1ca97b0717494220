// The hot loop of the comparison: one row at a time, decided without branches where the decision is clear.
#pragma once

#include <cstdint>

#include "harness/bf16.h"
#include "harness/reference.h"

namespace assay {

struct RowScan {
  double max_ratio = 0.0;          // over clear elements
  std::int64_t unclear = 0;        // elements to be looked at one by one: non-finite, tiny, near a rounding boundary, or rejected
};

/// An element is clear when the whole interval lies strictly between the neighbours' midpoints around `out`: it is accepted.
RowScan scan_row(const Bf16* out, const Interval* reference, std::int64_t count);

}  // namespace assay
