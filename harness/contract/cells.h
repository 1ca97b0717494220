// A field cell by cell, one row by kCellColumns columns: what the interval test and the statistics make of
// each. The CPU computes them where they are needed; an engine computes all of a field (engine.h). Sums run
// in the order of columns, so that both give the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/contract/large_vector.h"
#include "harness/contract/reference.h"
#include "harness/contract/stored.h"

namespace assay {

inline constexpr int kCellColumns = 128;
inline constexpr std::int64_t kTaskRows = 256;  // columns are summed over this many rows, and such sums in
                                                // order: no sum depends on the number of threads
inline constexpr std::size_t kClasses = 65536;  // bf16 values
inline constexpr double kFixedPoint = 0x1p32;   // of class sums: integers add up to the same in every order

/// A field beside its reference, and what its expectations depend on.
struct FieldRows {
  StoredSpan out;                       // [rows, width]
  std::span<const Interval> reference;  // [rows, width]
  std::int64_t rows = 0;
  std::int64_t width = 0;
  bool carried = false;  // expectations are those of errors carried on (deviation.h)
  std::span<const Bf16>
      classes;  // [rows, class_stride]: the class of element (r, c) is at (r, c); empty: no sums by class
  std::int64_t class_stride = 0;

  std::int64_t tile_columns() const { return (width + kCellColumns - 1) / kCellColumns; }
  std::int64_t tasks() const { return (rows + kTaskRows - 1) / kTaskRows; }
  int cell_width(std::int64_t tile) const {
    return static_cast<int>(width - tile * kCellColumns < kCellColumns ? width - tile * kCellColumns
                                                                       : kCellColumns);
  }
};

/// The interval test of a cell.
struct CellTest {
  double max_ratio = 0.0;       // |out - ref| / (delta + ulp(out) / 2)
  std::int32_t rejected = 0;    // outside the accepted interval
  std::int32_t non_finite = 0;  // of these, Inf or NaN
  std::int32_t mismatched = 0;  // bits differ from those of the rounded reference
  std::int32_t unused = 0;
  bool operator==(const CellTest&) const = default;
};

/// Sums of a cell's deviations. Cells carry the whole excess, for units need no cap (log_chance_of_units);
/// where only the cap bounds the expectation, as of an element without modelled noise, it caps what is
/// observed too.
struct CellSums {
  double flips_expected = 0.0;
  double excess = 0.0;
  double excess_expected = 0.0;
  double z2 = 0.0;
  double z2_of_rounding = 0.0;
  double max_contract_ulps = 0.0;
  std::uint64_t flipped[2] = {};  // bit i: the element in column i of the cell
  bool operator==(const CellSums&) const = default;
};
static_assert(kCellColumns <= 128, "flipped has a bit for every element of a cell");

struct Cell {
  CellTest test;
  CellSums sums;
  bool operator==(const Cell&) const = default;
};

/// Expectations of all elements with one argument, each rounded up to 1 / kFixedPoint.
struct ClassSums {
  std::int64_t flips_expected = 0;
  std::int64_t excess_expected = 0;
  std::int64_t elements = 0;
  bool operator==(const ClassSums&) const = default;
};

struct FieldCells {
  LargeVector<Cell> cells;                    // [rows, tile_columns]
  LargeVector<double> column_flips_expected;  // [tasks, width]
  std::vector<ClassSums> classes;             // [kClasses], or empty where the field has none
};

}  // namespace assay
