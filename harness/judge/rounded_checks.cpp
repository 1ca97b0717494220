#include "harness/judge/rounded_checks.h"

#include <future>
#include <memory>
#include <utility>

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

/// A block's reference.
struct ReferenceBlock {
  RowRange rows;
  LargeVector<Interval> intervals;
  LargeVector<PredictedBits> predicted;
};

/// One field in one mode, block by block.
class BlockJudge {
 public:
  BlockJudge(StatisticsContext context, StoredSpan out, bool binding, const Engine* engine)
      : context_(std::move(context)),
        out_(out),
        binding_(binding),
        engine_(engine),
        bounds_(context_.field),
        rejected_(context_.field) {}

  void add(const ReferenceBlock& block) {
    CompareContext& compare = context_.field;
    const std::int64_t width = width_of(compare.field, compare.sizes);
    for (const RowRange rows : judged_at_a_time(compare, block.rows)) {
      compare.first_row = rows.begin;
      const auto its_out = out_.subspan(static_cast<std::size_t>(rows.begin * width),
                                        static_cast<std::size_t>(rows.count() * width));
      const auto its_intervals =
          some_rows(std::span<const Interval>(block.intervals), width, block.rows.begin, rows);
      const auto by_engine = cells_by_engine(engine_, context_, its_out, its_intervals);
      comparison_.add(compare, its_out, its_intervals, by_engine);
      if (const auto now = comparison_.rejected(); now > rejected_so_far_) {
        rejected_.add(rows.begin, its_out, its_intervals);
        rejected_so_far_ = now;
      }
      bounds_.add(rows.begin, its_intervals);
      if (!its_out.empty()) {
        const PhaseTimer timer("statistics");
        add_rows(context_, its_out, its_intervals, by_engine, sums_);
      }
      std::span<const PredictedBits> binding_bits;
      if (!block.predicted.empty()) {
        const auto its_bits =
            some_rows(std::span<const PredictedBits>(block.predicted), width, block.rows.begin, rows);
        assay::add(checks_.bits, compare_predicted(compare, its_out, its_bits));
        if (binding_) binding_bits = its_bits;
      }
      add_vacuity_of_rounded(compare, its_intervals, binding_bits, checks_.vacuity);
    }
  }

  RoundedChecks checks(Reference& reference, Mode mode) {
    if (checks_.bits.available) {
      checks_.bits.binding = binding_;
      checks_.bits.accumulator = reference.accumulator(context_.field.field);
    }
    checks_.judgement = comparison_.judgement();
    checks_.pattern = comparison_.pattern();
    checks_.judgement.where = rejected_.in_words();
    bounds_.account(reference, mode, comparison_, checks_.judgement);
    const PhaseTimer timer("statistics");
    checks_.judgement.statistics = statistics_of(context_, sums_);
    return std::move(checks_);
  }

 private:
  StatisticsContext context_;
  StoredSpan out_;
  bool binding_;
  const Engine* engine_;
  RoundedChecks checks_;
  RoundedComparison comparison_;
  SampledBounds bounds_;
  FieldSums sums_;
  RejectedPlaces rejected_;
  std::int64_t rejected_so_far_ = 0;
};

}  // namespace

RoundedChecks check_rounded(StatisticsContext context, StoredSpan out, Reference& reference, Mode mode,
                            bool binding, std::span<const RowRange> blocks, const Engine* engine) {
  const Field field = context.field.field;
  BlockJudge judge(std::move(context), out, binding, engine);
  // Beside an engine intervals are made while bits are predicted and the block before is compared: what one
  // of them waits for on the device leaves the processors to the others.
  const auto policy = engine != nullptr ? std::launch::async : std::launch::deferred;
  std::future<void> compared;
  for (const RowRange rows : blocks) {
    auto intervals = std::async(policy, [&] { return reference.bounded(field, mode, rows); });
    auto predicted = reference.predicted(field, mode, rows);
    auto block =
        std::make_shared<const ReferenceBlock>(ReferenceBlock{rows, intervals.get(), std::move(predicted)});
    if (compared.valid()) compared.get();
    compared = std::async(policy, [&judge, block = std::move(block)] { judge.add(*block); });
  }
  if (compared.valid()) compared.get();
  return judge.checks(reference, mode);
}

}  // namespace assay
