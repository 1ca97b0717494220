// The hot loop of the comparison: a stretch of one row at a time, decided without branches where the decision
// is clear.
#pragma once

#include "harness/contract/cells.h"

namespace assay {

struct RowScan {
  double max_ratio = 0.0;  // over clear elements
  int unclear =
      0;  // elements to be looked at one by one: non-finite, tiny, near a rounding boundary, or rejected
  double clear[kCellColumns];  // of each element: 1 or 0
};

/// An element is clear when the whole interval lies strictly between the neighbours' midpoints around `out`:
/// it is accepted, and its bits are those of the rounded reference. `count` is at most kCellColumns.
RowScan scan_row(StoredSpan out, const Interval* reference, int count);

}  // namespace assay
