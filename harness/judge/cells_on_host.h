// All cells of a field by the CPU's own functions: what an engine must give, and an engine for tests.
#pragma once

#include "harness/contract/worth_threads.h"
#include "harness/judge/compare.h"
#include "harness/judge/statistics_sums.h"

namespace assay {

inline FieldCells cells_on_host(const FieldRows& field) {
  FieldCells all = sum_cells(field);
#pragma omp parallel for schedule(static) if (worth_threads(field.rows * field.width))
  for (std::int64_t r = 0; r < field.rows; ++r)
    for (std::int64_t tile = 0; tile < field.tile_columns(); ++tile) {
      const std::int64_t at = r * field.width + tile * kCellColumns;
      all.cells[static_cast<std::size_t>(r * field.tile_columns() + tile)].test =
          test_cell(field.out.subspan(static_cast<std::size_t>(at)), field.reference.data() + at,
                    field.cell_width(tile));
    }
  return all;
}

}  // namespace assay
