// The report's drawings as inline SVG. Geometry is computed here; colours come from the page's style sheet by
// class. Every drawing has a <title>, so that it is read aloud, and repeats nothing that is not also in a
// table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/contract/report.h"

namespace assay::svg {

/// A logarithmic axis of error ratios: 0.001 and less at the left edge, `decades_above` powers of ten beyond
/// 1 at the right.
struct RatioAxis {
  int decades_above = 1;
};

/// The axis that shows every ratio of a case: one to six decades beyond 1; infinities touch the edge.
RatioAxis ratio_axis(const CaseResult& result);

/// Ticks and labels of the axis, to stand above the bars.
std::string axis_labels(const RatioAxis& axis);

/// Two bars, isolated above chained, and the line at 1.
std::string ratio_bars(const FieldResult& result, const RatioAxis& axis);

/// Shares of bits: as predicted, undetermined, differing. A differing share is at least a hair wide.
std::string bits_meter(const Prediction& prediction);

/// Elements by distance in ulps, as columns on a logarithmic scale with their counts.
std::string ulp_histogram(const Statistics& statistics);

/// Where elements are rejected, as an embedded picture with rows, columns and experts at its edges; each bin
/// by its worst element. `room`: what the bins may take of a page, in pixels, along either side. Empty for a
/// map whose levels are not those of its bins.
enum class Bins {
  Embedded,
  ByScript,  // the page's script paints them, from the levels in its data
};
std::string heat_map(const ErrorMap& map, Field field, double room, const std::string& title, Bins bins);

/// The colours of levels from 'a' on, and of kNoRatio.
std::vector<std::string> level_colours();

/// What the colours of a map mean. Fields without ratios are wrong or not.
std::string level_key(const ErrorMap& map, bool has_ratio);
std::int64_t bins_outside(const ErrorMap& map);

/// The candidate's values against the reference's: rejected elements over a sample of all, and where both are
/// equal.
std::string got_against_want(const ErrorPattern& pattern);

/// By expert, one above the other: the worst ratio on a logarithmic axis, the share of elements that are
/// rejected, and the rows. `loads`: rows of each expert; empty where all have as many.
std::string expert_chart(const Judgement& judgement, const std::vector<std::int64_t>& loads);

/// The share of each block of K that a regression says is missing.
std::string k_blocks_chart(const std::vector<KBlock>& blocks);

/// A share from 0 to 1 as a filled bar.
std::string share_meter(double share);

/// The accepted interval with the reference and the found value in it or beside it; ticks are bf16 values
/// where they fit.
std::string number_line(const Element& element);

/// The same with what two sides, "A" and "B", hold at one place; a side without a value is left out.
std::string two_sides_line(const Element& about, std::optional<double> a, std::optional<double> b);

/// Worst ratios of one case over several runs, oldest first, on a logarithmic axis with the line at 1.
std::string trend_line(const std::vector<double>& ratios, const std::string& title);

struct Bar {
  std::int64_t label = 0;
  double value = 0.0;
};

/// Columns from 0 to the largest value with a line at the mean, or at 1 for ratios.
enum class BarScale { Counts, Ratios };
std::string bar_chart(const std::vector<Bar>& bars, BarScale scale, const std::string& title);

}  // namespace assay::svg
