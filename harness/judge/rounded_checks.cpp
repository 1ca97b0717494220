#include "harness/judge/rounded_checks.h"

#include <algorithm>
#include <deque>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include <omp.h>

#include "harness/host/phase_timer.h"
#include "harness/host/worker.h"
#include "harness/judge/bounds_used.h"
#include "harness/judge/cells_by_engine.h"
#include "harness/judge/rejected_places.h"
#include "harness/judge/statistics_sums.h"
#include "harness/judge/stretch_intervals.h"
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

/// Intervals of rows of a block, all that are judged at a time or several such: at hand, or kept by the
/// engine.
struct BlockIntervals {
  RowRange rows;
  LargeVector<Interval> at_hand;
  std::shared_ptr<const KeptIntervals> kept;
};

/// A block's reference.
struct ReferenceBlock {
  RowRange rows;
  std::vector<BlockIntervals> intervals;  // in order
  LargeVector<PredictedBits> predicted;
};

/// Who does what of a block. Beside an engine intervals of the next blocks are made while bits are predicted,
/// the block before is compared by it and the one before that is added up: what one of them waits for on the
/// device leaves the processors to the others. Without one, who wants a result makes it.
class Stages {
 public:
  Stages(const Engine* engine, std::size_t blocks) {
    if (engine == nullptr) return;
    const int threads = omp_get_max_threads();
    const int team = blocks > 1 ? std::max(1, threads / 2) : threads;
    for (std::size_t i = 0; i < std::min(blocks, kBlocksAhead); ++i)
      intervals_.push_back(std::make_unique<Worker>(team));
    cells_ = std::make_unique<Worker>(team);
    sums_ = std::make_unique<Worker>(team);
  }
  std::size_t blocks_ahead() const { return std::max<std::size_t>(1, intervals_.size()); }
  template <class Work>
  auto intervals(std::size_t block, Work work) {
    return start(intervals_.empty() ? nullptr : intervals_[block % intervals_.size()].get(), std::move(work));
  }
  template <class Work>
  auto cells(Work work) {
    return start(cells_.get(), std::move(work));
  }
  template <class Work>
  auto sums(Work work) {
    return start(sums_.get(), std::move(work));
  }

 private:
  static constexpr std::size_t kBlocksAhead = 3;
  template <class Work>
  static auto start(Worker* worker, Work work) {
    return worker != nullptr ? worker->start(std::move(work))
                             : std::async(std::launch::deferred, std::move(work));
  }
  std::vector<std::unique_ptr<Worker>> intervals_;
  std::unique_ptr<Worker> cells_;
  std::unique_ptr<Worker> sums_;
};

/// By the engine, of every stretch judged at a time.
using CellsOfStretches = std::vector<std::optional<FieldCells>>;

/// One field in one mode, block by block.
class BlockJudge {
 public:
  BlockJudge(StatisticsContext context, StoredSpan out, Reference& reference, Mode mode, bool binding,
             const Engine* engine, const Prediction* known)
      : context_(std::move(context)),
        out_(out),
        reference_(reference),
        mode_(mode),
        binding_(binding),
        engine_(engine),
        known_(known),
        bounds_(context_.field),
        rejected_(context_.field) {}

  Field field() const { return context_.field.field; }
  std::vector<BlockIntervals> intervals(RowRange block) const {
    const bool keeps = engine_ != nullptr && engine_->kept && out_.bf16() != nullptr && !out_.empty() &&
                       row(field()).rows == RowsAre::ExpertMatrix;
    std::vector<BlockIntervals> all;
    for (const RowRange rows : keeps ? judged_at_a_time(context_.field, block) : std::vector{block}) {
      auto& its = all.emplace_back(rows);
      if (keeps) its.kept = reference_.kept(field(), mode_, rows);
      if (!its.kept) its.at_hand = reference_.bounded(field(), mode_, rows);
    }
    return all;
  }
  LargeVector<PredictedBits> predicted(RowRange rows) const {
    return known_ == nullptr ? reference_.predicted(field(), mode_, rows) : LargeVector<PredictedBits>();
  }

  CellsOfStretches compared(const ReferenceBlock& block) const {
    CellsOfStretches cells;
    for (const RowRange rows : judged_at_a_time(context_.field, block.rows))
      cells.push_back(
          cells_by_engine(engine_, context_at(rows), some_out(rows), some_intervals(block, rows)));
    return cells;
  }

  void add(const ReferenceBlock& block, const CellsOfStretches& cells) {
    std::size_t stretch = 0;
    LargeVector<PredictedBits> made_for_vacuity;
    for (const RowRange rows : judged_at_a_time(context_.field, block.rows)) {
      const StatisticsContext context = context_at(rows);
      const CompareContext& compare = context.field;
      const auto its_out = some_out(rows);
      const auto its_intervals = some_intervals(block, rows);
      const auto& by_engine = cells[stretch++];
      comparison_.add(compare, its_out, its_intervals, by_engine);
      if (const auto now = comparison_.rejected(); now > rejected_so_far_) {
        rejected_.add(rows.begin, its_out, its_intervals.all());
        rejected_so_far_ = now;
      }
      bounds_.add(rows.begin, its_intervals);
      if (!its_out.empty()) {
        const PhaseTimer timer("statistics");
        add_rows(context, its_out, its_intervals, by_engine, sums_);
      }
      const auto predicted = [&]() -> std::span<const PredictedBits> {
        if (known_ == nullptr)
          return block.predicted.empty()
                     ? std::span<const PredictedBits>()
                     : some(std::span<const PredictedBits>(block.predicted), block.rows, rows);
        if (made_for_vacuity.empty())
          made_for_vacuity = reference_.predicted(compare.field, mode_, block.rows);
        return some(std::span<const PredictedBits>(made_for_vacuity), block.rows, rows);
      };
      if (!block.predicted.empty())
        assay::add(checks_.bits, compare_predicted(compare, its_out, predicted()));
      add_vacuity_of_rounded(compare, its_intervals, binding_ ? BindingBits(predicted) : BindingBits(),
                             checks_.vacuity);
    }
  }

  RoundedChecks checks() {
    if (known_ != nullptr) checks_.bits = *known_;
    if (checks_.bits.available) {
      checks_.bits.binding = binding_;
      checks_.bits.accumulator = reference_.accumulator(context_.field.field);
    }
    checks_.judgement = comparison_.judgement();
    checks_.pattern = comparison_.pattern();
    checks_.judgement.where = rejected_.in_words();
    bounds_.account(reference_, mode_, comparison_, checks_.judgement);
    const PhaseTimer timer("statistics");
    checks_.judgement.statistics = statistics_of(context_, sums_);
    return std::move(checks_);
  }

 private:
  StatisticsContext context_at(RowRange rows) const {
    StatisticsContext context = context_;
    context.field.first_row = rows.begin;
    return context;
  }
  std::int64_t width() const { return width_of(context_.field.field, context_.field.sizes); }
  StoredSpan some_out(RowRange rows) const {
    return out_.subspan(static_cast<std::size_t>(rows.begin * width()),
                        static_cast<std::size_t>(rows.count() * width()));
  }
  /// Rows [rows.begin, rows.end) of the values of a block's rows.
  template <class T>
  std::span<const T> some(std::span<const T> values, RowRange block, RowRange rows) const {
    return values.subspan(static_cast<std::size_t>((rows.begin - block.begin) * width()),
                          static_cast<std::size_t>(rows.count() * width()));
  }
  StretchIntervals some_intervals(const ReferenceBlock& block, RowRange rows) const {
    const auto& its = *std::ranges::find_if(
        block.intervals, [&](const BlockIntervals& one) { return rows.end <= one.rows.end; });
    if (its.kept) return StretchIntervals(its.kept);
    return some(std::span<const Interval>(its.at_hand), its.rows, rows);
  }

  StatisticsContext context_;
  StoredSpan out_;
  Reference& reference_;
  Mode mode_;
  bool binding_;
  const Engine* engine_;
  const Prediction* known_;
  RoundedChecks checks_;
  RoundedComparison comparison_;
  SampledBounds bounds_;
  FieldSums sums_;
  RejectedPlaces rejected_;
  std::int64_t rejected_so_far_ = 0;
};

}  // namespace

RoundedChecks check_rounded(StatisticsContext context, StoredSpan out, Reference& reference, Mode mode,
                            bool binding, std::span<const RowRange> blocks, const Engine* engine,
                            const Prediction* isolated) {
  const Field field = context.field.field;
  // Nothing further is predicted from an expert's matrix.
  const bool known = isolated != nullptr && isolated->available && row(field).rows == RowsAre::ExpertMatrix &&
                     reference.isolated_from(field).empty() && reference.same_predictions(field);
  BlockJudge judge(std::move(context), out, reference, mode, binding, engine, known ? isolated : nullptr);
  const bool predicts_first = reference.predicts_first(field, mode);
  Stages stages(engine, blocks.size());
  std::deque<std::future<std::vector<BlockIntervals>>> under_way;
  std::size_t started = 0;
  std::future<void> added;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    LargeVector<PredictedBits> predicted;
    if (predicts_first) predicted = judge.predicted(blocks[i]);
    // The last one alone: with it goes what the field reads.
    for (; started < std::min(i + stages.blocks_ahead(), blocks.size()); ++started) {
      if (started + 1 == blocks.size() && !under_way.empty()) break;
      under_way.push_back(
          stages.intervals(started, [&judge, rows = blocks[started]] { return judge.intervals(rows); }));
    }
    if (!predicts_first) predicted = judge.predicted(blocks[i]);
    const auto block = std::make_shared<const ReferenceBlock>(
        ReferenceBlock{blocks[i], under_way.front().get(), std::move(predicted)});
    under_way.pop_front();
    auto cells = stages.cells([&judge, block] { return judge.compared(*block); });
    if (added.valid()) added.get();
    added =
        stages.sums([&judge, block, cells = std::move(cells)]() mutable { judge.add(*block, cells.get()); });
  }
  if (added.valid()) added.get();
  return judge.checks();
}

}  // namespace assay
