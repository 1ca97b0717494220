#include "harness/statistics_sums.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace assay {
namespace {

constexpr std::int64_t kRowsPerTask = 256;    // sums are added task by task, so that they do not depend on the number of threads
constexpr std::int64_t kKeyColumns = 64;      // of a row, enough to tell rows apart
constexpr std::uint64_t kSignificand = (std::uint64_t{1} << 52) - 1;
constexpr double kFixedPoint = 0x1p32;        // of class sums: integers add up to the same in every order
constexpr std::size_t kClasses = 65536;       // bf16 values
constexpr int kBuckets = 18;                  // up to 2^16 neighbours and beyond

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
  std::vector<double> column_flips_expected;
  std::vector<Flip> flips;
  std::vector<std::int64_t> ulps = std::vector<std::int64_t>(kBuckets);
  double z2 = 0.0, z2_of_rounding = 0.0, max_contract_ulps = 0.0;
  std::int64_t max_at = -1;
};

struct ClassSums {
  std::vector<std::int64_t> flips, excess, elements;  // by the bits of the argument; in 2^-32
  explicit ClassSums(std::size_t size) : flips(size), excess(size), elements(size) {}
};

/// Cells carry the whole excess, for units need no cap (log_chance_of_units); where only the cap bounds the expectation, as of an
/// element without modelled noise, it caps what is observed too.
void sum_stretch(const Deviations& d, int count, Tally& cell, TaskSums& task) {
  for (int i = 0; i < count; ++i) {
    cell.flips += d.flipped[i];
    cell.flips_expected += d.flip_chance[i];
    cell.excess += d.excess_expected[i] < kExcessCap ? d.z2[i] - d.z2_of_rounding[i] : d.excess[i];
    cell.excess_expected += d.excess_expected[i];
    task.z2 += d.z2[i];
    task.z2_of_rounding += d.z2_of_rounding[i];
  }
  cell.elements = count;
}

}  // namespace

int ulp_bucket(std::int64_t ulps) {
  return ulps <= 0 ? 0 : std::min(kBuckets - 1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(ulps - 1))) + 1);
}

std::int64_t first_of_bucket(int bucket) { return bucket < 2 ? bucket : (std::int64_t{1} << (bucket - 2)) + 1; }

FieldSums sum_field(const StatisticsContext& context, std::span<const Bf16> out, std::span<const Interval> reference) {
  FieldSums sums;
  const Shape shape = expected_shape(context.field.field, context.field.sizes);
  sums.rows = shape.empty() ? 0 : shape[0];
  sums.width = sums.rows == 0 ? 0 : static_cast<std::int64_t>(out.size()) / sums.rows;
  sums.tile_columns = (sums.width + kDeviationChunk - 1) / kDeviationChunk;
  sums.cells.resize(static_cast<std::size_t>(sums.rows * sums.tile_columns));
  sums.column_flips_expected.resize(static_cast<std::size_t>(sums.width));
  sums.row_keys.resize(static_cast<std::size_t>(sums.rows));
  sums.ulps.resize(kBuckets);
  const bool by_class = context.dependence == Dependence::Classes;
  // Weights come from few logits, and recur.
  const bool carried = context.dependence == Dependence::Tokens && context.field.field != Field::topk_weights;
  const std::int64_t tasks = (sums.rows + kRowsPerTask - 1) / kRowsPerTask;
  std::vector<TaskSums> parts(static_cast<std::size_t>(tasks));
  if (by_class) sums.classes.resize(kClasses);
#pragma omp parallel
  {
    ClassSums classes(sums.classes.size());
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < tasks; ++t) {
      TaskSums& task = parts[static_cast<std::size_t>(t)];
      task.column_flips_expected.resize(static_cast<std::size_t>(sums.width));
      Deviations d;
      for (std::int64_t r = t * kRowsPerTask; r < std::min(sums.rows, (t + 1) * kRowsPerTask); ++r) {
        const Bf16* row_out = out.data() + r * sums.width;
        const Interval* row_ref = reference.data() + r * sums.width;
        sums.row_keys[static_cast<std::size_t>(r)] = row_key(row_ref, sums.width);
        for (std::int64_t tile = 0; tile < sums.tile_columns; ++tile) {
          const std::int64_t begin = tile * kDeviationChunk;
          const int count = static_cast<int>(std::min<std::int64_t>(kDeviationChunk, sums.width - begin));
          deviations(row_out + begin, row_ref + begin, count, d);
          if (carried) expect_of_carried_errors(row_ref + begin, count, d);
          Tally& cell = sums.cells[static_cast<std::size_t>(r * sums.tile_columns + tile)];
          sum_stretch(d, count, cell, task);
          double top = 0.0;
          for (int i = 0; i < count; ++i) {
            task.column_flips_expected[static_cast<std::size_t>(begin + i)] += d.flip_chance[i];
            top = std::max(top, d.contract_ulps[i]);
          }
          if (top > task.max_contract_ulps) {
            task.max_contract_ulps = top;
            task.max_at = r * sums.width + begin + (std::find(d.contract_ulps, d.contract_ulps + count, top) - d.contract_ulps);
          }
          task.ulps[0] += count;
          if (cell.flips > 0.0)
            for (int i = 0; i < count; ++i) {
              if (!(d.flipped[i] > 0.0)) continue;
              const Interval& x = row_ref[begin + i];
              const Bf16 value = row_out[begin + i];
              --task.ulps[0];
              ++task.ulps[static_cast<std::size_t>(ulp_bucket(std::abs(std::int64_t{ordinal(value)} - ordinal(round_to_bf16(x.ref)))))];
              if (task.flips.size() < kMostFlips)
                task.flips.push_back({significand(x.ref), r * sums.width + begin + i, static_cast<float>(d.excess[i]), static_cast<float>(signed_shift(value, x))});
            }
          if (!by_class) continue;
          const Bf16* arguments = context.classes.data() + r * context.class_stride + begin;
          for (int i = 0; i < count; ++i) {
            const std::size_t at = arguments[i].bits;
            // Rounded up: an expectation is an upper bound.
            classes.flips[at] += static_cast<std::int64_t>(std::ceil(d.flip_chance[i] * kFixedPoint));
            classes.excess[at] += static_cast<std::int64_t>(std::ceil(d.excess_expected[i] * kFixedPoint));
            ++classes.elements[at];
          }
        }
      }
    }
    if (by_class) {
#pragma omp critical
      for (std::size_t i = 0; i < sums.classes.size(); ++i) {
        sums.classes[i].flips_expected += static_cast<double>(classes.flips[i]) / kFixedPoint;
        sums.classes[i].excess_expected += static_cast<double>(classes.excess[i]) / kFixedPoint;
        sums.classes[i].elements += classes.elements[i];
      }
    }
  }
  for (const TaskSums& task : parts) {
    for (std::size_t c = 0; c < task.column_flips_expected.size(); ++c) sums.column_flips_expected[c] += task.column_flips_expected[c];
    for (std::size_t b = 0; b < task.ulps.size(); ++b) sums.ulps[b] += task.ulps[b];
    const std::size_t room = kMostFlips - std::min(kMostFlips, sums.flips.size());
    sums.flips.insert(sums.flips.end(), task.flips.begin(), task.flips.begin() + static_cast<std::ptrdiff_t>(std::min(room, task.flips.size())));
    sums.z2 += task.z2;
    sums.z2_of_rounding += task.z2_of_rounding;
    if (task.max_contract_ulps > sums.max_contract_ulps) {
      sums.max_contract_ulps = task.max_contract_ulps;
      sums.max_contract_ulps_at = task.max_at;
    }
  }
  return sums;
}

}  // namespace assay
