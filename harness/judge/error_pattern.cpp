#include "harness/judge/error_pattern.h"

#include <algorithm>
#include <limits>

#include "harness/contract/worth_threads.h"
#include "harness/judge/row_scan.h"

namespace assay {
namespace {

constexpr std::size_t kSampledValues = 256;  // of each kind, enough for a picture

/// Experts that have rows, with the first of them; nothing where rows are not grouped by expert.
std::vector<std::pair<std::int64_t, std::int64_t>> bands_of(const CompareContext& c) {
  std::vector<std::pair<std::int64_t, std::int64_t>> bands;
  const RowsAre kind = row(c.field).rows;
  if (kind == RowsAre::ExpertOrder && c.routing != nullptr) {
    const auto& offsets = c.routing->offsets;
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e)
      if (offsets[e] < offsets[e + 1]) bands.emplace_back(static_cast<std::int64_t>(e), offsets[e]);
  }
  if (kind == RowsAre::ExpertMatrix)
    for (std::int64_t e = 0; e < c.sizes.config.num_experts; ++e)
      bands.emplace_back(e, e * matrix_rows_of(c.field, c.sizes));
  return bands;
}

ErrorMap shape_of(const CompareContext& context, std::int64_t most) {
  ErrorMap shape;
  shape.rows = rows_of(context.field, context.sizes);
  shape.columns = width_of(context.field, context.sizes);
  shape.bands = bands_of(context);
  return fitted(std::move(shape), most);
}

bool worse(const Rejected& a, const Rejected& b) {
  return a.ratio != b.ratio ? a.ratio > b.ratio : a.index < b.index;
}

void keep_worst(std::vector<Rejected>& all, const Rejected& one) {
  if (all.size() == kWorstRejected && !worse(one, all.back())) return;
  all.insert(std::ranges::upper_bound(all, one, worse), one);
  if (all.size() > kWorstRejected) all.pop_back();
}

std::pair<double, double> values(Stored out, const Interval& reference) {
  return {round_to(out.dtype, reference.ref), out.value};
}

/// Rows that fall into one row of bins: no two such stretches share a bin.
struct RowsOfBin {
  // rows at hand
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t rejected = 0;
  std::int64_t before = 0;
  std::vector<Rejected> worst = {};
  std::vector<std::pair<double, double>> sampled = {};
};

std::vector<RowsOfBin> stretches_of(const ErrorGrid& grid, std::int64_t first_row,
                                    std::span<const std::int64_t> rejected_in_row) {
  std::vector<RowsOfBin> all;
  std::size_t bin = 0;
  std::int64_t before = 0;
  for (std::int64_t r = 0; r < std::ssize(rejected_in_row); ++r) {
    const std::int64_t rejected = rejected_in_row[static_cast<std::size_t>(r)];
    if (rejected == 0) continue;
    if (const std::size_t its = grid.row_bin(first_row + r); all.empty() || its != bin) {
      all.push_back({r, r, 0, before});
      bin = its;
    }
    all.back().end = r + 1;
    all.back().rejected += rejected;
    before += rejected;
  }
  return all;
}

}  // namespace

PatternGatherer::PatternGatherer(const CompareContext& context)
    : context_(context), grid_(shape_of(context, kFineBins)) {}

void PatternGatherer::add(const CompareContext& context, StoredSpan out, std::span<const Interval> reference,
                          std::span<const std::int64_t> rejected_in_row) {
  const std::int64_t width = width_of(context.field, context.sizes);
  const std::int64_t first = context.first_row;
  auto stretches = stretches_of(grid_, first, rejected_in_row);
  if (stretches.empty()) return;
  const std::int64_t seen = seen_ + stretches.back().before + stretches.back().rejected;
  // Every other one goes, as if the stride had been so wide from the start.
  while (seen / stride_ > 2 * static_cast<std::int64_t>(kSampledValues)) {
    for (std::size_t i = 0; 2 * i < rejected_.size(); ++i) rejected_[i] = rejected_[2 * i];
    rejected_.resize((rejected_.size() + 1) / 2);
    stride_ *= 2;
  }
#pragma omp parallel for schedule(dynamic, 1) if (worth_threads(8 * static_cast<std::int64_t>(out.size())))
  for (std::size_t s = 0; s < stretches.size(); ++s) {
    RowsOfBin& stretch = stretches[s];
    std::int64_t rank = seen_ + stretch.before;
    for (std::int64_t r = stretch.begin; r < stretch.end; ++r) {
      if (rejected_in_row[static_cast<std::size_t>(r)] == 0) continue;
      for (std::int64_t begin = 0; begin < width; begin += kCellColumns) {
        const std::int64_t end = std::min<std::int64_t>(width, begin + kCellColumns);
        const auto at = static_cast<std::size_t>(r * width + begin);
        if (scan_row(out.subspan(at), &reference[at], static_cast<int>(end - begin)).unclear == 0) continue;
        for (std::int64_t c = begin; c < end; ++c) {
          const auto i = static_cast<std::size_t>(r * width + c);
          if (accepts(out[i], reference[i])) continue;
          const Rejected one = {ratio_of(out[i], reference[i]), first * width + static_cast<std::int64_t>(i),
                                out[i], reference[i]};
          grid_.add(first + r, c, one.ratio);
          keep_worst(stretch.worst, one);
          if (rank++ % stride_ == 0) stretch.sampled.push_back(values(out[i], reference[i]));
        }
      }
    }
  }
  for (const RowsOfBin& stretch : stretches) {
    for (const Rejected& one : stretch.worst) keep_worst(worst_, one);
    rejected_.insert(rejected_.end(), stretch.sampled.begin(), stretch.sampled.end());
  }
  seen_ = seen;
  // Samples of all elements, in proportion to the rows at hand.
  const std::int64_t all = rows_of(context.field, context.sizes) * width;
  const std::int64_t every = std::max<std::int64_t>(1, all / static_cast<std::int64_t>(kSampledValues)) | 1;
  for (std::int64_t i = (every - first * width % every) % every; i < static_cast<std::int64_t>(out.size());
       i += every)
    sampled_.push_back(values(out[static_cast<std::size_t>(i)], reference[static_cast<std::size_t>(i)]));
  add_detail(context, out, reference);
}

void PatternGatherer::add_detail(const CompareContext& context, StoredSpan out,
                                 std::span<const Interval> reference) {
  if (worst_.empty() || worst_.front().index == detail_around_) return;
  detail_around_ = worst_.front().index;
  const std::int64_t width = width_of(context.field, context.sizes);
  const std::int64_t rows = static_cast<std::int64_t>(out.size()) / width;
  const auto window = [](std::int64_t around, std::int64_t extent, std::int64_t most) {
    return std::clamp<std::int64_t>(around - most / 2, 0, std::max<std::int64_t>(0, extent - most));
  };
  const std::int64_t top = window(detail_around_ / width - context.first_row, rows, kDetailRows);
  const std::int64_t left = window(detail_around_ % width, width, kDetailColumns);
  ErrorMap detail;
  detail.first_row = context.first_row + top;
  detail.first_column = left;
  detail.rows = std::min(kDetailRows, rows);
  detail.columns = std::min(kDetailColumns, width);
  for (std::int64_t r = top; r < top + detail.rows; ++r) {
    std::string& levels = detail.levels.emplace_back();
    for (std::int64_t c = left; c < left + detail.columns; ++c) {
      const auto i = static_cast<std::size_t>(r * width + c);
      levels += accepts(out[i], reference[i]) ? kNothingOutside : error_level(ratio_of(out[i], reference[i]));
    }
  }
  detail_ = std::move(detail);
}

std::vector<Element> PatternGatherer::worst_elements() const {
  std::vector<Element> elements;
  for (const Rejected& one : worst_)
    elements.push_back(element_at(context_, one.index, one.out, one.reference));
  return elements;
}

ErrorPattern PatternGatherer::pattern(bool fine) const {
  ErrorPattern pattern;
  if (fine) {
    pattern.map = grid_.map();
    if (pattern.map.bin_rows * pattern.map.bin_columns > 1) pattern.detail = detail_;
    pattern.sampled = sampled_;
    pattern.rejected = rejected_;
    return pattern;
  }
  ErrorGrid coarse(shape_of(context_, kCoarseBins));
  coarse.add(grid_);
  pattern.map = coarse.map();
  return pattern;
}

void CasePatterns::keep(const FieldResult& field, Mode mode, std::shared_ptr<const PatternGatherer> pattern) {
  if (pattern && (mode == Mode::Isolated || field.isolated.rejected == 0))
    kept_.push_back({field.field, mode, std::move(pattern)});
}

void CasePatterns::draw(CaseResult& result, bool fine) const {
  for (FieldResult& field : result.fields)
    for (const Kept& kept : kept_) {
      if (kept.field != field.field) continue;
      Judgement& judgement = kept.mode == Mode::Isolated ? field.isolated : field.chained;
      judgement.pattern = kept.pattern->pattern(fine && field.field == result.first_own_error);
    }
}

ErrorPattern pattern_of_wrong(const CompareContext& context, std::span<const std::int64_t> wrong) {
  const std::int64_t width = width_of(context.field, context.sizes);
  ErrorGrid grid(shape_of(context, kCoarseBins));
  for (const std::int64_t i : wrong) grid.add(i / width, i % width, std::numeric_limits<double>::infinity());
  ErrorPattern pattern;
  pattern.map = grid.map();
  return pattern;
}

}  // namespace assay
