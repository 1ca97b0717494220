#include "harness/judge/statistics_sums.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include <omp.h>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/worth_threads.h"

namespace assay {
namespace {

constexpr std::int64_t kKeyColumns = 64;  // of a row, enough to tell rows apart
constexpr std::uint64_t kSignificand = (std::uint64_t{1} << 52) - 1;
constexpr int kBuckets = 18;  // up to 2^16 neighbours and beyond

std::uint64_t significand(double x) { return std::bit_cast<std::uint64_t>(x) & kSignificand; }

std::uint64_t row_key(const Interval* row, std::int64_t width) {
  std::uint64_t key = 0;
  for (std::int64_t c = 0; c < std::min(width, kKeyColumns); ++c) {
    key = (key ^ significand(row[c].ref)) * 0x9e3779b97f4a7c15u;
    key ^= key >> 29;
  }
  return key;
}

/// What one task gathers beside its rows' cells.
struct TaskSums {
  std::vector<std::int64_t> flipped;  // elements whose references are not at hand
  std::size_t flipped_before = 0;     // in the tasks before
  std::vector<Flip> flips;
  std::vector<std::int64_t> ulps = std::vector<std::int64_t>(kBuckets);
  std::vector<std::int64_t> ulps_inward = ulps;
  double z2 = 0.0;
  double z2_of_rounding = 0.0;
  double max_contract_ulps = 0.0;
  std::int64_t max_cell = -1;
};

/// A flipped element of a field that has so many elements before.
void add_flip(StoredSpan out, std::int64_t element, const Interval& x, std::int64_t elements_before,
              TaskSums& task) {
  const Stored value = out[static_cast<std::size_t>(element)];
  const std::int64_t ulps = value.ordinal() - stored_as(value.dtype, x.ref).ordinal();
  const auto bucket = static_cast<std::size_t>(ulp_bucket(std::abs(ulps)));
  ++task.ulps[bucket];
  task.ulps_inward[bucket] += ulps < 0 ? !std::signbit(x.ref) : std::signbit(x.ref);
  if (task.flips.size() < kMostFlips)
    task.flips.push_back({significand(x.ref), elements_before + element,
                          static_cast<float>(deviation(value, x).excess),
                          static_cast<float>(signed_shift(value, x))});
}

/// The same of all that the tasks remember, whose references are brought together.
void add_flips(StoredSpan out, const StretchIntervals& reference, std::int64_t elements_before,
               std::vector<TaskSums>& tasks) {
  std::vector<std::int64_t> flipped;
  for (TaskSums& task : tasks) {
    task.flipped_before = flipped.size();
    flipped.insert(flipped.end(), task.flipped.begin(), task.flipped.end());
  }
  const SomeIntervals references = reference.some(std::move(flipped), 1);
#pragma omp parallel for schedule(static) if (worth_threads(16 * references.starts.size()))
  for (std::size_t t = 0; t < tasks.size(); ++t)
    for (std::size_t i = 0; i < tasks[t].flipped.size(); ++i)
      add_flip(out, tasks[t].flipped[i], *references.from(tasks[t].flipped_before + i), elements_before,
               tasks[t]);
}

/// Where in its cell the element that is `top` contract ulps off stands.
std::int64_t index_of_top(const FieldRows& field, const StretchIntervals& reference, std::int64_t cell,
                          double top) {
  const std::int64_t row = cell / field.tile_columns();
  const std::int64_t tile = cell % field.tile_columns();
  const std::int64_t at = row * field.width + tile * kCellColumns;
  Deviations d;
  const SomeIntervals of_cell = reference.some({at}, field.cell_width(tile));
  deviations(field.out.subspan(static_cast<std::size_t>(at)), of_cell.from(0), field.cell_width(tile), d);
  const double* end = d.contract_ulps + field.cell_width(tile);
  const double* found = std::find<const double*>(d.contract_ulps, end, top);
  if (found == end)
    throw InputError(fmt::format(
        "expected an element {} contract ulps off among the {} from {} on, as an engine says, found none",
        top, field.cell_width(tile), at));
  return at + (found - d.contract_ulps);
}

void add_coarse_and_fine(const CompareContext& context, const FieldRows& field, std::int64_t before,
                         std::vector<CoarseAndFine>& to) {
  const auto width = static_cast<std::size_t>(field.width);
  for (std::int64_t r = 0; r < field.rows; ++r) {
    const std::int64_t token = token_of_row(context, before + r);
    if (!looked_at(token, context.sizes.tokens)) continue;
    const auto begin = static_cast<std::size_t>(r) * width;
    to.push_back(coarse_and_fine(field.out.subspan(begin, width), field.reference.subspan(begin, width)));
    to.back().token = token;
    to.back().key = row_key(field.reference.data() + begin, field.width);
  }
}

}  // namespace

int ulp_bucket(std::int64_t ulps) {
  return ulps <= 0 ? 0
                   : std::min(kBuckets - 1,
                              static_cast<int>(std::bit_width(static_cast<std::uint64_t>(ulps - 1))) + 1);
}

std::int64_t first_of_bucket(int bucket) {
  return bucket < 2 ? bucket : (std::int64_t{1} << (bucket - 2)) + 1;
}

FieldRows field_rows(const StatisticsContext& context, StoredSpan out, std::span<const Interval> reference) {
  FieldRows field;
  field.out = out;
  field.reference = reference;
  field.width = width_of(context.field.field, context.field.sizes);
  field.rows = static_cast<std::int64_t>(out.size()) / field.width;
  // Weights come from few logits, and recur.
  field.carried = context.dependence == Dependence::Nothing ||
                  (context.dependence == Dependence::Tokens && context.field.field != Field::topk_weights);
  if (context.dependence == Dependence::Classes)
    field.classes =
        context.classes.subspan(static_cast<std::size_t>(context.field.first_row * context.class_stride));
  field.class_stride = context.class_stride;
  return field;
}

CellSums sum_cell(const FieldRows& field, std::int64_t row, std::int64_t tile, const Interval* reference,
                  double* columns, std::span<ClassSums> classes) {
  const int count = field.cell_width(tile);
  const std::int64_t begin = tile * kCellColumns;
  Deviations d;
  deviations(field.out.subspan(static_cast<std::size_t>(row * field.width + begin)), reference, count, d);
  if (field.carried) expect_of_carried_errors(field.out.dtype(), reference, count, d);
  CellSums cell;
  for (int i = 0; i < count; ++i) {
    cell.flipped[i / 64] |= std::uint64_t{d.flipped[i] > 0.0} << (i % 64);
    cell.flips_expected += d.flip_chance[i];
    cell.excess += d.excess_expected[i] < kExcessCap ? d.z2[i] - d.z2_of_rounding[i] : d.excess[i];
    cell.excess_expected += d.excess_expected[i];
    cell.z2 += d.z2[i];
    cell.z2_of_rounding += d.z2_of_rounding[i];
    cell.max_contract_ulps = std::max(cell.max_contract_ulps, d.contract_ulps[i]);
    columns[i] += d.flip_chance[i];
  }
  if (field.classes.empty()) return cell;
  const Bf16* arguments = field.classes.data() + row * field.class_stride + begin;
  for (int i = 0; i < count; ++i) {
    ClassSums& of_class = classes[arguments[i].bits];
    // Rounded up: an expectation is an upper bound.
    of_class.flips_expected += static_cast<std::int64_t>(std::ceil(d.flip_chance[i] * kFixedPoint));
    of_class.excess_expected += static_cast<std::int64_t>(std::ceil(d.excess_expected[i] * kFixedPoint));
    ++of_class.elements;
  }
  return cell;
}

FieldCells sum_cells(const FieldRows& field) {
  FieldCells all;
  all.cells.resize(static_cast<std::size_t>(field.rows * field.tile_columns()));
  all.column_flips_expected.resize(static_cast<std::size_t>(field.tasks() * field.width));
  all.classes.resize(field.classes.empty() ? 0 : kClasses);
#pragma omp parallel if (worth_threads(16 * field.rows * field.width))
  {
    const bool alone = omp_get_num_threads() == 1;
    std::vector<ClassSums> own(alone ? 0 : all.classes.size());
    const std::span<ClassSums> classes = alone ? all.classes : own;
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < field.tasks(); ++t) {
      double* columns = all.column_flips_expected.data() + t * field.width;
      std::fill_n(columns, field.width, 0.0);
      for (std::int64_t r = t * kTaskRows; r < std::min(field.rows, (t + 1) * kTaskRows); ++r)
        for (std::int64_t tile = 0; tile < field.tile_columns(); ++tile)
          all.cells[static_cast<std::size_t>(r * field.tile_columns() + tile)] = {
              {},
              sum_cell(field, r, tile, field.reference.data() + r * field.width + tile * kCellColumns,
                       columns + tile * kCellColumns, classes)};
    }
#pragma omp critical
    for (std::size_t i = 0; i < own.size(); ++i) {
      all.classes[i].flips_expected += own[i].flips_expected;
      all.classes[i].excess_expected += own[i].excess_expected;
      all.classes[i].elements += own[i].elements;
    }
  }
  return all;
}

void add_rows(const StatisticsContext& context, StoredSpan out, const StretchIntervals& reference,
              const std::optional<FieldCells>& by_engine, FieldSums& sums) {
  const bool whole = !by_engine || context.own_rounding;
  const FieldRows field = field_rows(context, out, whole ? reference.all() : std::span<const Interval>());
  const FieldCells own = by_engine ? FieldCells() : sum_cells(field);
  const FieldCells& all = by_engine ? *by_engine : own;
  const std::int64_t before = sums.rows;
  sums.rows += field.rows;
  sums.width = field.width;
  sums.tile_columns = field.tile_columns();
  sums.cells.resize(sums.cells.size() + all.cells.size());
  sums.column_flips_expected.resize(static_cast<std::size_t>(sums.width));
  sums.row_keys.resize(static_cast<std::size_t>(sums.rows));
  sums.ulps.resize(kBuckets);
  sums.ulps_inward.resize(kBuckets);
  if (context.own_rounding) add_coarse_and_fine(context.field, field, before, sums.coarse_and_fine);
  const SomeIntervals keys =
      reference.block({0, field.rows}, field.width, 0, std::min(field.width, kKeyColumns));
  const Interval* const at_hand = reference.kept() == nullptr ? reference.all().data() : nullptr;
  std::vector<TaskSums> parts(static_cast<std::size_t>(field.tasks()));
#pragma omp parallel for schedule(static) if (worth_threads(field.rows * field.width))
  for (std::int64_t t = 0; t < field.tasks(); ++t) {
    TaskSums& task = parts[static_cast<std::size_t>(t)];
    for (std::int64_t r = t * kTaskRows; r < std::min(field.rows, (t + 1) * kTaskRows); ++r) {
      sums.row_keys[static_cast<std::size_t>(before + r)] =
          row_key(keys.from(static_cast<std::size_t>(r)), sums.width);
      for (std::int64_t tile = 0; tile < sums.tile_columns; ++tile) {
        const std::int64_t at = r * sums.tile_columns + tile;
        const CellSums& cell = all.cells[static_cast<std::size_t>(at)].sums;
        const int flips = std::popcount(cell.flipped[0]) + std::popcount(cell.flipped[1]);
        sums.cells[static_cast<std::size_t>(before * sums.tile_columns + at)] = {
            static_cast<double>(flips), cell.flips_expected, cell.excess, cell.excess_expected,
            field.cell_width(tile)};
        task.z2 += cell.z2;
        task.z2_of_rounding += cell.z2_of_rounding;
        if (cell.max_contract_ulps > task.max_contract_ulps) {
          task.max_contract_ulps = cell.max_contract_ulps;
          task.max_cell = at;
        }
        task.ulps[0] += field.cell_width(tile) - flips;
        for (int half = 0; half < 2; ++half)
          for (std::uint64_t left = cell.flipped[half]; left != 0; left &= left - 1) {
            const std::int64_t element =
                r * sums.width + tile * kCellColumns + 64 * half + std::countr_zero(left);
            if (at_hand != nullptr)
              add_flip(out, element, at_hand[element], before * sums.width, task);
            else
              task.flipped.push_back(element);
          }
      }
    }
  }
  if (at_hand == nullptr) add_flips(out, reference, before * sums.width, parts);
  for (std::size_t i = 0; i < all.column_flips_expected.size(); ++i)
    sums.column_flips_expected[i % sums.column_flips_expected.size()] += all.column_flips_expected[i];
  for (std::size_t i = 0; i < all.classes.size(); ++i) {
    const ClassSums& c = all.classes[i];
    if (c.elements > 0)
      sums.classes[static_cast<std::uint16_t>(i)].add(
          {0.0, static_cast<double>(c.flips_expected) / kFixedPoint, 0.0,
           static_cast<double>(c.excess_expected) / kFixedPoint, c.elements});
  }
  std::int64_t max_cell = -1;
  for (const TaskSums& task : parts) {
    for (std::size_t b = 0; b < task.ulps.size(); ++b) {
      sums.ulps[b] += task.ulps[b];
      sums.ulps_inward[b] += task.ulps_inward[b];
    }
    const std::size_t room = kMostFlips - std::min(kMostFlips, sums.flips.size());
    sums.flips.insert(sums.flips.end(), task.flips.begin(),
                      task.flips.begin() + static_cast<std::ptrdiff_t>(std::min(room, task.flips.size())));
    sums.z2 += task.z2;
    sums.z2_of_rounding += task.z2_of_rounding;
    if (task.max_contract_ulps > sums.max_contract_ulps) {
      sums.max_contract_ulps = task.max_contract_ulps;
      max_cell = task.max_cell;
    }
  }
  if (max_cell >= 0)
    sums.max_contract_ulps_at =
        before * sums.width + index_of_top(field, reference, max_cell, sums.max_contract_ulps);
}

}  // namespace assay
