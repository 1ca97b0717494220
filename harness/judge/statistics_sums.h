// One pass over a field: what the tests of statistics.h need, in sums.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "harness/judge/deviation.h"
#include "harness/judge/own_rounding.h"
#include "harness/judge/statistics.h"

namespace assay {

/// An element whose bits differ from those of the rounded reference.
struct Flip {
  std::uint64_t key = 0;  // the reference's significand: elements that repeat one another have equal keys
  std::int64_t index = 0;
  float excess = 0.0f;
  float shift = 0.0f;
};

/// Flips and excess energy, observed and at most expected.
struct Tally {
  double flips = 0.0;
  double flips_expected = 0.0;
  double excess = 0.0;
  double excess_expected = 0.0;
  std::int64_t elements = 0;

  void add(const Tally& other) {
    flips += other.flips;
    flips_expected += other.flips_expected;
    excess += other.excess;
    excess_expected += other.excess_expected;
    elements += other.elements;
  }
};

/// Of all rows added so far.
struct FieldSums {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  std::int64_t tile_columns = 0;
  std::vector<Tally> cells;                    // [rows, tile_columns]: one row by kCellColumns columns
  std::vector<double> column_flips_expected;   // [width]
  std::vector<std::uint64_t> row_keys;         // [rows]: equal where rows repeat one another
  std::map<std::uint16_t, Tally> classes;      // expectations by argument, for Dependence::Classes
  std::vector<CoarseAndFine> coarse_and_fine;  // of tokens looked at, for StatisticsContext::own_rounding
  std::vector<Flip> flips;  // in order of index; at most kMostFlips, which undercounts and so accuses nobody
  std::vector<std::int64_t> ulps;         // [buckets of ulp_bucket]
  std::vector<std::int64_t> ulps_inward;  // [buckets], of those the ones towards zero or across it
  double z2 = 0.0;
  double z2_of_rounding = 0.0;
  double max_contract_ulps = 0.0;
  std::int64_t max_contract_ulps_at = -1;
};

inline constexpr std::size_t kMostFlips = std::size_t{1} << 21;

/// 0, 1, 2, 3-4, 5-8, ...: the bucket of a distance in bf16 neighbours, and the first distance of a bucket.
int ulp_bucket(std::int64_t ulps);
std::int64_t first_of_bucket(int bucket);

/// Adds further rows, those from context.field.first_row on: in order, none left out. Sums depend on where a
/// field is cut, unless that is between the matrices of experts.
void add_rows(const StatisticsContext& context, StoredSpan out, const StretchIntervals& reference,
              const std::optional<FieldCells>& by_engine, FieldSums& sums);

/// The rows from context.field.first_row on, as their cells are made from.
FieldRows field_rows(const StatisticsContext& context, StoredSpan out, std::span<const Interval> reference);

/// The sums of one cell, of elements with these references. Chances of flips are added to `columns` [columns
/// of the cell], and to `classes` [kClasses] where the field has classes.
CellSums sum_cell(const FieldRows& field, std::int64_t row, std::int64_t tile, const Interval* reference,
                  double* columns, std::span<ClassSums> classes);

/// Those of all cells, which are not tested.
FieldCells sum_cells(const FieldRows& field);

}  // namespace assay
