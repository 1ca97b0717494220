#include "harness/judge/cells_by_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/worth_threads.h"
#include "harness/host/phase_timer.h"
#include "harness/judge/statistics_sums.h"

namespace assay {
namespace {

constexpr std::int64_t kSampledBlocks = 8;

/// Every comparison is one that a NaN fails.
bool sound(const Cell& cell, int width) {
  const CellTest& t = cell.test;
  const CellSums& s = cell.sums;
  for (const std::int32_t count : {t.rejected, t.mismatched})
    if (count < 0 || count > width) return false;
  const auto beyond = [&](int half) {
    return width >= 64 * (half + 1) ? 0 : s.flipped[half] >> std::max(0, width - 64 * half);
  };
  return t.non_finite >= 0 && t.non_finite <= t.rejected && t.max_ratio >= 0.0 && s.flips_expected >= 0.0 &&
         s.flips_expected <= width && s.excess_expected >= 0.0 && s.excess_expected <= width * kExcessCap &&
         std::isfinite(s.excess) && s.z2 >= 0.0 && std::isfinite(s.z2) && s.z2_of_rounding >= 0.0 &&
         std::isfinite(s.z2_of_rounding) && s.max_contract_ulps >= 0.0 && beyond(0) == 0 && beyond(1) == 0;
}

/// The rows of a task in one tile, from the first to the last of either.
struct SampledBlock {
  std::int64_t task = 0;
  std::int64_t tile = 0;
  std::size_t first = 0;  // of its rows among those of all blocks
};

/// With their references, brought at once: as many columns of each row, of which a narrow tile has the last.
struct SampledBlocks {
  std::vector<SampledBlock> all;
  SomeIntervals rows;

  SampledBlocks(const FieldRows& field, const StretchIntervals& reference) {
    const std::int64_t columns = std::min<std::int64_t>(kCellColumns, field.width);
    std::vector<std::int64_t> starts;
    for (std::int64_t i = 0; i < kSampledBlocks; ++i) {
      const std::int64_t task = i * (field.tasks() - 1) / (kSampledBlocks - 1);
      const std::int64_t tile = i * (field.tile_columns() - 1) / (kSampledBlocks - 1);
      all.push_back({task, tile, starts.size()});
      for (std::int64_t r = task * kTaskRows; r < std::min(field.rows, (task + 1) * kTaskRows); ++r)
        starts.push_back(r * field.width + std::min(tile * kCellColumns, field.width - columns));
    }
    rows = reference.some(std::move(starts), columns);
  }
};

/// A block of cells and the column sums over it, made here.
bool block_is_ours(const FieldRows& field, const FieldCells& cells, const SampledBlock& block,
                   const SomeIntervals& rows) {
  const auto [task, tile, first] = block;
  double columns[kCellColumns] = {};
  std::vector<ClassSums> classes(field.classes.empty() ? 0 : kClasses);
  const int width = field.cell_width(tile);
  for (std::int64_t r = task * kTaskRows; r < std::min(field.rows, (task + 1) * kTaskRows); ++r) {
    const Cell& theirs = cells.cells[static_cast<std::size_t>(r * field.tile_columns() + tile)];
    const std::int64_t at = r * field.width + tile * kCellColumns;
    const Interval* const reference =
        rows.from(first + static_cast<std::size_t>(r - task * kTaskRows)) + rows.count - width;
    if (!(theirs == Cell{test_cell(field.out.subspan(static_cast<std::size_t>(at)), reference, width),
                         sum_cell(field, r, tile, reference, columns, classes)}))
      return false;
  }
  return std::equal(columns, columns + width,
                    cells.column_flips_expected.begin() + task * field.width + tile * kCellColumns);
}

/// Sums by class add up to those by cell: of n terms, each rounded up by less than 1 / kFixedPoint, and n
/// roundings of their sum.
bool classes_add_up(const FieldRows& field, const FieldCells& cells) {
  ClassSums all;
  for (const ClassSums& c : cells.classes) {
    if (c.flips_expected < 0 || c.excess_expected < 0 || c.elements < 0) return false;
    all.flips_expected += c.flips_expected;
    all.excess_expected += c.excess_expected;
    all.elements += c.elements;
  }
  double flips = 0.0;
  double excess = 0.0;
  for (const Cell& cell : cells.cells) {
    flips += cell.sums.flips_expected;
    excess += cell.sums.excess_expected;
  }
  const double n = static_cast<double>(field.out.size());
  const auto agrees = [n](std::int64_t by_class, double by_cell) {
    return std::fabs(static_cast<double>(by_class) / kFixedPoint - by_cell) <=
           n / kFixedPoint + 2.0 * n * 0x1p-53 * by_cell;
  };
  return all.elements == static_cast<std::int64_t>(field.out.size()) && agrees(all.flips_expected, flips) &&
         agrees(all.excess_expected, excess);
}

void verify(const FieldRows& field, const StretchIntervals& reference, const FieldCells& cells,
            std::string_view engine, std::string_view name) {
  std::int64_t unsound = 0;
  std::int64_t wrong = 0;
#pragma omp parallel for schedule(static) reduction(+ : unsound) if (worth_threads(field.rows * field.width))
  for (std::int64_t r = 0; r < field.rows; ++r)
    for (std::int64_t tile = 0; tile < field.tile_columns(); ++tile)
      unsound += !sound(cells.cells[static_cast<std::size_t>(r * field.tile_columns() + tile)],
                        field.cell_width(tile));
  const SampledBlocks blocks(field, reference);
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : wrong)
  for (const SampledBlock& block : blocks.all) wrong += !block_is_ours(field, cells, block, blocks.rows);
  for (const double expected : cells.column_flips_expected)
    unsound += !(expected >= 0.0 && expected <= kTaskRows);
  if (!field.classes.empty()) unsound += !classes_add_up(field, cells);
  if (unsound > 0 || wrong > 0)
    throw InputError(
        fmt::format("expected the engine ({}) to compare {} as the CPU does, found {} of {} sampled blocks "
                    "different and {} sums that no field can give; "
                    "--engine cpu judges without it",
                    engine, name, wrong, kSampledBlocks, unsound));
}

}  // namespace

std::optional<FieldCells> cells_by_engine(const Engine* engine, const StatisticsContext& context,
                                          StoredSpan out, const StretchIntervals& reference) {
  const bool in_bf16 = out.bf16() != nullptr;  // engines compare no other
  if (engine == nullptr || !in_bf16 || out.empty()) return std::nullopt;
  const KeptIntervals* const kept = reference.kept();
  const auto& compare = kept != nullptr ? kept->cells : engine->cells;
  if (!compare || (kept == nullptr &&
                   !worth_the_way(static_cast<std::int64_t>(out.size()),
                                  element_count(expected_shape(context.field.field, context.field.sizes)),
                                  engine->least_elements)))
    return std::nullopt;
  const FieldRows field =
      field_rows(context, out, kept != nullptr ? std::span<const Interval>() : reference.all());
  FieldCells cells;
  cells.cells.resize(static_cast<std::size_t>(field.rows * field.tile_columns()));
  cells.column_flips_expected.resize(static_cast<std::size_t>(field.tasks() * field.width));
  if (!field.classes.empty()) cells.classes.resize(kClasses);
  {
    const PhaseTimer timer("comparison by the engine");
    if (!compare(field, cells)) return std::nullopt;
  }
  const PhaseTimer timer("sampled cells of the engine's comparison");
  verify(field, reference, cells, engine->name, name(context.field.field));
  ++engine->taken->comparisons;
  return cells;
}

}  // namespace assay
