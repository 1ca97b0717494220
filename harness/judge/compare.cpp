#include "harness/judge/compare.h"

#include <algorithm>
#include <cmath>

#include "harness/contract/worth_threads.h"
#include "harness/host/phase_timer.h"
#include "harness/judge/error_pattern.h"
#include "harness/judge/row_scan.h"

namespace assay {
namespace {

struct Accepted {
  double low;
  double high;
};

/// A stored field is bf16, or float32, whatever the contract keeps in registers, so both ends are rounded
/// once.
Accepted accepted(DType dtype, const Interval& reference) {
  return {round_to(dtype, reference.low), round_to(dtype, reference.high)};
}

double delta_of(const Interval& reference) {
  return std::max({reference.high - reference.ref, reference.ref - reference.low, 0.0});
}

}  // namespace

bool accepts(Stored out, const Interval& reference) {
  const double value = out.value;
  if (std::isnan(value) || std::isnan(reference.ref)) return std::isnan(value) && std::isnan(reference.ref);
  const auto [low, high] = accepted(out.dtype, reference);
  return (low <= value && value <= high) || (std::isinf(reference.ref) && value == reference.ref);
}

double ratio_of(Stored out, const Interval& reference) {
  const double value = out.value;
  if (std::isnan(value) && std::isnan(reference.ref)) return 0.0;
  if (value == reference.ref) return 0.0;  // also equal infinities
  const double ratio =
      std::fabs(value - reference.ref) / (delta_of(reference) + 0.5 * ulp_at(out.dtype, value));
  return std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
}

Element element_at(const CompareContext& context, std::int64_t index, Stored out, const Interval& reference) {
  const auto [low, high] = accepted(out.dtype, reference);
  const Stored rounded = stored_as(out.dtype, reference.ref);
  Element e;
  e.at = locate(context, index);
  e.out = out.value;
  e.ref = reference.ref;
  e.low = low;
  e.high = high;
  e.delta = delta_of(reference);
  e.ratio = ratio_of(out, reference);
  e.out_bits = out.bits();
  e.ref_bits = rounded.bits();
  e.ulps = std::abs(out.ordinal() - rounded.ordinal());
  return e;
}

CellTest test_cell(StoredSpan out, const Interval* reference, int count) {
  const RowScan scan = scan_row(out, reference, count);
  CellTest cell{.max_ratio = scan.max_ratio};
  if (scan.unclear == 0) return cell;
  for (int i = 0; i < count; ++i) {
    if (scan.clear[i] > 0.0) continue;
    const Stored value = out[static_cast<std::size_t>(i)];
    const bool ok = accepts(value, reference[i]);
    cell.rejected += !ok;
    cell.non_finite += !value.finite() && !ok;
    cell.mismatched += stored_as(out.dtype(), reference[i].ref).ordinal() != value.ordinal();
    cell.max_ratio = std::max(cell.max_ratio, ratio_of(value, reference[i]));
  }
  return cell;
}

bool rows_have_experts(const CompareContext& context) {
  switch (row(context.field).rows) {
    case RowsAre::Tokens: return false;
    case RowsAre::ExpertOrder:
    case RowsAre::Slots: return context.routing != nullptr;
    case RowsAre::Experts:
    case RowsAre::ExpertMatrix: break;
  }
  return true;
}

std::int64_t expert_of_row(const CompareContext& context, std::int64_t row) {
  if (!rows_have_experts(context)) return -1;
  switch (assay::row(context.field).rows) {
    case RowsAre::Tokens: break;
    case RowsAre::ExpertOrder: {
      const auto& offsets = context.routing->offsets;
      return std::upper_bound(offsets.begin(), offsets.end(), row) - offsets.begin() - 1;
    }
    case RowsAre::Slots: return context.routing->selected[static_cast<std::size_t>(row)];
    case RowsAre::Experts: return row;
    case RowsAre::ExpertMatrix: return row / matrix_rows_of(context.field, context.sizes);
  }
  return -1;
}

std::int64_t slot_of_row(const CompareContext& context, std::int64_t row) {
  const RowsAre kind = assay::row(context.field).rows;
  if (context.routing == nullptr || (kind != RowsAre::Slots && kind != RowsAre::ExpertOrder)) return -1;
  return kind == RowsAre::Slots ? row : context.routing->gather[static_cast<std::size_t>(row)];
}

std::int64_t token_of_row(const CompareContext& context, std::int64_t row) {
  const std::int64_t slot = slot_of_row(context, row);
  return slot < 0 ? row : slot / context.sizes.config.top_k;
}

std::vector<std::pair<std::string, std::int64_t>> locate(const CompareContext& context, std::int64_t index) {
  std::vector<std::pair<std::string, std::int64_t>> at;
  const Shape shape = expected_shape(context.field, context.sizes);
  std::int64_t rest = index;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    at.insert(at.begin(),
              {std::string(axis_name(context.field, axis)), rest % std::max<std::int64_t>(shape[axis], 1)});
    rest /= std::max<std::int64_t>(shape[axis], 1);
  }
  if (shape.size() < 2) return at;
  const std::int64_t row = at[0].second;
  if (const std::int64_t slot = slot_of_row(context, row); slot >= 0) {
    at.emplace_back("expert", expert_of_row(context, row));
    at.emplace_back("token", slot / context.sizes.config.top_k);
  }
  return at;
}

void RoundedComparison::add(const CompareContext& context, StoredSpan out, const StretchIntervals& reference,
                            const std::optional<FieldCells>& by_engine) {
  const PhaseTimer timer("compare intervals");
  const auto all = by_engine ? std::span<const Interval>() : reference.all();
  const auto elements = static_cast<std::int64_t>(out.size());
  const std::int64_t width = width_of(context.field, context.sizes);
  const std::int64_t rows = width == 0 ? 0 : elements / width;
  const std::int64_t tiles = (width + kCellColumns - 1) / kCellColumns;
  const bool by_expert = rows_have_experts(context);
  std::vector<double> row_ratio(static_cast<std::size_t>(rows), 0.0);
  std::vector<std::int64_t> row_rejected(row_ratio.size(), 0);
  std::int64_t rejected = 0;
  std::int64_t non_finite = 0;
  std::int64_t mismatched = 0;
#pragma omp parallel for schedule(static) \
    reduction(+ : rejected, non_finite, mismatched) if (worth_threads(8 * elements))
  for (std::int64_t r = 0; r < rows; ++r) {
    const StoredSpan row_out =
        out.subspan(static_cast<std::size_t>(r * width), static_cast<std::size_t>(width));
    const Interval* row_ref = all.data() + r * width;
    double top = 0.0;
    std::int64_t rejected_in_row = 0;
    for (std::int64_t tile = 0, begin = 0; begin < width; ++tile, begin += kCellColumns) {
      const int count = static_cast<int>(std::min<std::int64_t>(kCellColumns, width - begin));
      const CellTest cell =
          by_engine ? by_engine->cells[static_cast<std::size_t>(r * tiles + tile)].test
                    : test_cell(row_out.subspan(static_cast<std::size_t>(begin)), row_ref + begin, count);
      top = std::max(top, cell.max_ratio);
      rejected_in_row += cell.rejected;
      non_finite += cell.non_finite;
      mismatched += cell.mismatched;
    }
    rejected += rejected_in_row;
    row_ratio[static_cast<std::size_t>(r)] = top;
    row_rejected[static_cast<std::size_t>(r)] = rejected_in_row;
  }
  sums_.elements += elements;
  sums_.rejected += rejected;
  sums_.non_finite += non_finite;
  sums_.mismatched += mismatched;

  std::int64_t worst_row = -1;
  for (std::int64_t r = 0; r < rows; ++r) {
    const double ratio = row_ratio[static_cast<std::size_t>(r)];
    sums_.max_ratio = std::max(sums_.max_ratio, ratio);
    const bool bad = row_rejected[static_cast<std::size_t>(r)] != 0;
    const bool worst_bad = worst_row >= 0 && row_rejected[static_cast<std::size_t>(worst_row)] != 0;
    if (worst_row < 0 || (bad && !worst_bad) ||
        (bad == worst_bad && ratio > row_ratio[static_cast<std::size_t>(worst_row)]))
      worst_row = r;
    if (by_expert) {
      const std::int64_t expert = expert_of_row(context, context.first_row + r);
      auto& top = experts_[expert];
      top = std::max(top, ratio);
      if (bad) rejected_experts_[expert] += row_rejected[static_cast<std::size_t>(r)];
    }
  }
  if (rejected > 0) {
    if (!pattern_) pattern_ = std::make_shared<PatternGatherer>(context);
    pattern_->add(context, out, reference.all(), row_rejected);
  }
  if (worst_row < 0) return;
  const double row_top = row_ratio[static_cast<std::size_t>(worst_row)];
  const bool row_bad = row_rejected[static_cast<std::size_t>(worst_row)] != 0;
  const bool worse = worst_index_ < 0 || (row_bad && !worst_row_rejected_) ||
                     (row_bad == worst_row_rejected_ && row_top > worst_row_ratio_);
  if (!worse) return;
  const StoredSpan row_out =
      out.subspan(static_cast<std::size_t>(worst_row * width), static_cast<std::size_t>(width));
  const SomeIntervals of_row = reference.some({worst_row * width}, width);
  const Interval* row_ref = of_row.from(0);
  std::int64_t at = 0;
  bool at_bad = false;
  double top = -1.0;
  for (std::int64_t c = 0; c < width; ++c) {
    const Stored value = row_out[static_cast<std::size_t>(c)];
    const double ratio = ratio_of(value, row_ref[c]);
    const bool bad = !accepts(value, row_ref[c]);
    if ((bad && !at_bad) || (bad == at_bad && ratio > top)) {
      at = c;
      at_bad = bad;
      top = ratio;
    }
  }
  worst_index_ = (context.first_row + worst_row) * width + at;
  worst_reference_ = row_ref[at];
  worst_row_ratio_ = row_top;
  worst_row_rejected_ = row_bad;
  sums_.worst = element_at(context, worst_index_, row_out[static_cast<std::size_t>(at)], row_ref[at]);
}

Judgement RoundedComparison::judgement() const {
  Judgement result = sums_;
  result.worst_by_expert.assign(experts_.begin(), experts_.end());
  result.rejected_by_expert.assign(rejected_experts_.begin(), rejected_experts_.end());
  if (pattern_) result.worst_rejected = pattern_->worst_elements();
  result.verdict = result.non_finite > 0 ? Verdict::NonFinite
                   : result.rejected > 0 ? Verdict::Failed
                                         : Verdict::Passed;
  return result;
}

Judgement compare_rounded(const CompareContext& context, StoredSpan out, std::span<const Interval> reference,
                          const std::optional<FieldCells>& by_engine) {
  RoundedComparison comparison;
  comparison.add(context, out, reference, by_engine);
  return comparison.judgement();
}

Judgement compare_float64(const CompareContext& context, std::span<const double> out,
                          std::span<const Interval> reference) {
  Judgement result;
  result.elements = static_cast<std::int64_t>(out.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const bool both_nan = std::isnan(out[i]) && std::isnan(reference[i].ref);
    const bool ok = both_nan || (reference[i].low <= out[i] && out[i] <= reference[i].high);
    const double delta = delta_of(reference[i]);
    const double ratio =
        out[i] == reference[i].ref || both_nan ? 0.0 : std::fabs(out[i] - reference[i].ref) / delta;
    result.rejected += !ok;
    if (!result.worst || ratio > result.max_ratio || (!ok && result.rejected == 1)) {
      Element e;
      e.at = locate(context, static_cast<std::int64_t>(i));
      e.out = out[i];
      e.ref = reference[i].ref;
      e.low = reference[i].low;
      e.high = reference[i].high;
      e.delta = delta;
      e.ratio = ratio;
      result.worst = e;
    }
    result.max_ratio =
        std::max(result.max_ratio, std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio);
  }
  result.verdict = result.rejected > 0 ? Verdict::Failed : Verdict::Passed;
  return result;
}

Judgement compare_exact(const CompareContext& context, std::span<const std::int32_t> out,
                        std::span<const std::int32_t> expected) {
  Judgement result;
  result.elements = static_cast<std::int64_t>(out.size());
  std::vector<std::int64_t> wrong;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i] == expected[i]) continue;
    wrong.push_back(static_cast<std::int64_t>(i));
    if (wrong.size() > kWorstRejected) continue;
    Element e;
    e.at = locate(context, static_cast<std::int64_t>(i));
    e.out = out[i];
    e.ref = e.low = e.high = expected[i];
    e.ratio = std::numeric_limits<double>::infinity();
    result.worst_rejected.push_back(e);
  }
  if (!wrong.empty()) {
    result.worst = result.worst_rejected.front();
    result.pattern = pattern_of_wrong(context, wrong);
  }
  result.rejected = result.mismatched = std::ssize(wrong);
  result.max_ratio = result.rejected > 0 ? std::numeric_limits<double>::infinity() : 0.0;
  result.verdict = result.rejected > 0 ? Verdict::Failed : Verdict::Passed;
  return result;
}

Prediction compare_predicted(const CompareContext& context, StoredSpan out,
                             std::span<const PredictedBits> predicted) {
  const PhaseTimer timer("compare predicted bits");
  Prediction result;
  result.available = true;
  result.elements = static_cast<std::int64_t>(out.size());
  std::int64_t undetermined = 0;
  std::int64_t differing = 0;
  std::int64_t first = result.elements;
#pragma omp parallel for schedule(static) reduction(+ : undetermined, differing) \
    reduction(min : first) if (worth_threads(result.elements))
  for (std::int64_t i = 0; i < result.elements; ++i) {
    const auto& p = predicted[static_cast<std::size_t>(i)];
    const bool differs = !p.undetermined && p.bits != out[static_cast<std::size_t>(i)].bits();
    undetermined += p.undetermined;
    differing += differs;
    if (differs && i < first) first = i;
  }
  result.undetermined = undetermined;
  result.differing = differing;
  result.as_predicted = result.elements - undetermined - differing;
  if (differing > 0) {
    const Stored value = out[static_cast<std::size_t>(first)];
    const Stored expected = with_bits(out.dtype(), predicted[static_cast<std::size_t>(first)].bits);
    Element e;
    e.at = locate(context, context.first_row * width_of(context.field, context.sizes) + first);
    e.out = value.value;
    e.ref = e.low = e.high = expected.value;
    e.out_bits = value.bits();
    e.ref_bits = expected.bits();
    e.ulps = std::abs(value.ordinal() - expected.ordinal());
    result.first = e;
  }
  return result;
}

void add(Prediction& all, const Prediction& further) {
  all.available = all.available || further.available;
  all.elements += further.elements;
  all.as_predicted += further.as_predicted;
  all.undetermined += further.undetermined;
  all.differing += further.differing;
  if (!all.first) all.first = further.first;
}

}  // namespace assay
