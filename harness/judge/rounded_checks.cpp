#include "harness/judge/rounded_checks.h"

#include "harness/host/phase_timer.h"
#include "harness/judge/bounds_used.h"
#include "harness/judge/cells_by_engine.h"
#include "harness/judge/rejected_places.h"
#include "harness/judge/statistics_sums.h"
#include "harness/judge/vacuity.h"

namespace assay {
namespace {

/// What is judged at a time: an expert's matrix, or all rows there are.
std::vector<RowRange> judged_at_a_time(const CompareContext& context, RowRange block) {
  if (row(context.field).rows != RowsAre::ExpertMatrix) return {block};
  const std::int64_t matrix = matrix_rows_of(context.field, context.sizes);
  std::vector<RowRange> stretches;
  for (std::int64_t begin = block.begin; begin < block.end; begin += matrix)
    stretches.push_back({begin, begin + matrix});
  return stretches;
}

/// Rows [rows.begin, rows.end) of values whose first row is `first`.
template <class T>
std::span<const T> some_rows(std::span<const T> values, std::int64_t width, std::int64_t first,
                             RowRange rows) {
  return values.subspan(static_cast<std::size_t>((rows.begin - first) * width),
                        static_cast<std::size_t>(rows.count() * width));
}

}  // namespace

RoundedChecks check_rounded(StatisticsContext context, StoredSpan out, Reference& reference, Mode mode,
                            bool binding, std::span<const RowRange> blocks, const Engine* engine) {
  CompareContext& compare = context.field;
  const Field field = compare.field;
  const std::int64_t width = width_of(field, compare.sizes);
  RoundedChecks checks;
  RoundedComparison comparison;
  SampledBounds bounds(compare);
  FieldSums sums;
  RejectedPlaces rejected(compare);
  std::int64_t rejected_so_far = 0;
  for (const RowRange block : blocks) {
    const auto intervals = reference.bounded(field, mode, block);
    const auto predicted = reference.predicted(field, mode, block);
    for (const RowRange rows : judged_at_a_time(compare, block)) {
      compare.first_row = rows.begin;
      const auto its_out = out.subspan(static_cast<std::size_t>(rows.begin * width),
                                       static_cast<std::size_t>(rows.count() * width));
      const auto its_intervals = some_rows(std::span<const Interval>(intervals), width, block.begin, rows);
      const auto by_engine = cells_by_engine(engine, context, its_out, its_intervals);
      comparison.add(compare, its_out, its_intervals, by_engine);
      if (const auto now = comparison.rejected(); now > rejected_so_far) {
        rejected.add(rows.begin, its_out, its_intervals);
        rejected_so_far = now;
      }
      bounds.add(rows.begin, its_intervals);
      if (!its_out.empty()) {
        const PhaseTimer timer("statistics");
        add_rows(context, its_out, its_intervals, by_engine, sums);
      }
      std::span<const PredictedBits> binding_bits;
      if (!predicted.empty()) {
        const auto its_bits = some_rows(std::span<const PredictedBits>(predicted), width, block.begin, rows);
        add(checks.bits, compare_predicted(compare, its_out, its_bits));
        if (binding) binding_bits = its_bits;
      }
      add_vacuity_of_rounded(compare, its_intervals, binding_bits, checks.vacuity);
    }
  }
  if (checks.bits.available) {
    checks.bits.binding = binding;
    checks.bits.accumulator = reference.accumulator(field);
  }
  checks.judgement = comparison.judgement();
  checks.pattern = comparison.pattern();
  checks.judgement.where = rejected.in_words();
  bounds.account(reference, mode, comparison, checks.judgement);
  const PhaseTimer timer("statistics");
  checks.judgement.statistics = statistics_of(context, sums);
  return checks;
}

}  // namespace assay
