#include "reference_cpu/confirmation.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/error.h"
#include "harness/contract/layer.h"
#include "harness/contract/worth_threads.h"
#include "reference_cpu/eigen/plain_step.h"
#include "reference_cpu/product/weight_gradient.h"

namespace assay {
namespace {

constexpr std::int64_t kMostWork = std::int64_t{1} << 30;  // multiply-adds
constexpr std::int64_t kElementWork = 64;                  // what an element costs without a product
constexpr std::int64_t kRowsOfExpert = 256;  // of a weight's gradient that are sampled of one expert
constexpr std::int64_t kRowsWithWeights =
    16;  // that are sampled with an expert's weights, which may have to be made
constexpr std::int64_t kLeastExperts = 16;                      // that are sampled where so many have rows
constexpr std::int64_t kRowsOfGradient = 16;                    // of one that a thread makes at a time
constexpr std::int64_t kLargeRow = std::int64_t{1} << 17;       // multiply-adds
constexpr std::int64_t kChunkElements = std::int64_t{1} << 18;  // made, or read, at a time by each thread

/// Multiply-adds of one row.
std::int64_t work_of_row(Field field, const Layer& layer) {
  const Sizes sizes = layer.problem->sizes();
  const auto product = product_of(field);
  const std::int64_t width = width_of(field, sizes);
  if (!product) return width * kElementWork;
  const std::int64_t rows_per_expert =
      sizes.slots() / std::max<std::int64_t>(1, sizes.config.num_experts) + 1;
  const Dim summed = row(*product).summed;
  return width * (summed == Dim::S ? rows_per_expert : extent(summed, sizes));
}

std::int64_t expert_of(Field field, const Layer& layer, std::int64_t r) {
  if (row(field).rows == RowsAre::ExpertOrder)
    return std::ranges::upper_bound(layer.routing.offsets, r) - layer.routing.offsets.begin() - 1;
  if (row(field).rows != RowsAre::ExpertMatrix) return 0;
  return r / extent(row(field).shape[1], layer.problem->sizes());
}

/// Which rows of a field are compared: every so many, of every so many of the experts that have rows and of
/// the fullest one. A few rows of a product take all of an expert's weights, and of a weight's gradient all
/// that the expert's rows hold: more rows of fewer experts cost less.
struct Sampling {
  std::int64_t rows = 1;
  std::vector<bool> experts;  // that are sampled; empty: all
  bool large = false;         // each row is the work of many

  Sampling(Field field, const Layer& layer) {
    const Sizes sizes = layer.problem->sizes();
    const std::int64_t all = rows_of(field, sizes);
    const std::int64_t most =
        std::max<std::int64_t>(1, kMostWork / std::max<std::int64_t>(1, work_of_row(field, layer)));
    rows = std::max<std::int64_t>(1, (all + most - 1) / most);
    large = work_of_row(field, layer) >= kLargeRow;
    const RowsAre kind = row(field).rows;
    if ((kind != RowsAre::ExpertMatrix && kind != RowsAre::ExpertOrder) || !product_of(field)) return;
    const auto& counts = layer.routing.counts;
    const auto filled = std::ranges::count_if(counts, [](std::int32_t count) { return count > 0; });
    const std::int64_t of_expert = std::max<std::int64_t>(1, all / sizes.config.num_experts / rows);
    const std::int64_t together = kind == RowsAre::ExpertMatrix ? kRowsOfExpert : kRowsWithWeights;
    const std::int64_t apart = std::min(
        rows,
        std::clamp<std::int64_t>(together / of_expert, 1, std::max<std::int64_t>(1, filled / kLeastExperts)));
    if (apart == 1) return;
    rows /= apart;
    std::int64_t rank = 0;
    for (const std::int32_t count : counts) experts.push_back(count > 0 && rank++ % apart == 0);
    experts[static_cast<std::size_t>(std::ranges::max_element(counts) - counts.begin())] = true;
  }

  bool takes(std::int64_t expert) const {
    return experts.empty() || experts[static_cast<std::size_t>(expert)];
  }
};

/// Elements of a row of the field, or of all rows that the step reads for it where these are more.
std::int64_t widest(Field field, const Layer& layer) {
  const Sizes sizes = layer.problem->sizes();
  std::int64_t most = width_of(field, sizes);
  if (product_of(field)) return most;
  for (const Field read : upstream_of(field, *layer.contract)) {
    const std::int64_t of_row =
        std::max<std::int64_t>(1, rows_of(read, sizes) / std::max<std::int64_t>(1, rows_of(field, sizes)));
    most = std::max(most, of_row * width_of(read, sizes));
  }
  return most;
}

/// Rows to compare, in chunks of one expert each: of the whole field every so many, so that the work does not
/// depend on how it is cut.
std::vector<plain::IndexVector> chunks(Field field, const Layer& layer, RowRange rows) {
  const Sampling sampling(field, layer);
  const std::int64_t width = widest(field, layer);
  const auto product = product_of(field);
  const std::int64_t at_once = product && sums_over_rows(row(*product)) && sampling.large
                                   ? kRowsOfGradient
                                   : std::max<std::int64_t>(1, kChunkElements / width);
  std::vector<std::vector<std::int32_t>> all;
  std::int64_t last_expert = -1;
  for (std::int64_t r = (rows.begin + sampling.rows - 1) / sampling.rows * sampling.rows; r < rows.end;
       r += sampling.rows) {
    const std::int64_t expert = expert_of(field, layer, r);
    if (!sampling.takes(expert)) continue;
    if (expert != last_expert || std::ssize(all.back()) == at_once) all.emplace_back();
    all.back().push_back(static_cast<std::int32_t>(r));
    last_expert = expert;
  }
  std::vector<plain::IndexVector> out;
  for (const auto& chunk : all)
    out.emplace_back(Eigen::Map<const plain::IndexVector>(chunk.data(), std::ssize(chunk)));
  return out;
}

[[noreturn]] void disagree(Field field, const Layer& layer, std::int64_t index, double judged, double plain,
                           double slack) {
  const Shape shape = expected_shape(field, layer.problem->sizes());
  std::string at;
  for (std::size_t axis = shape.size(); axis-- > 0; index /= shape[axis])
    at = fmt::format("{} {}{}{}", axis_name(field, axis), index % shape[axis], at.empty() ? "" : ", ", at);
  throw InputError(fmt::format(
      "the reference disagrees with itself, so nothing can be judged by it: {} at {} is {:.17g} to the "
      "judge's "
      "own kernels and {:.17g} to the plain Eigen layer, where float64 explains a difference of {:.3g}",
      name(field), at, judged, plain, slack));
}

/// The judge's values of a row [width].
using JudgedRow = std::function<const Interval*(std::int64_t row)>;

ConfirmedValues confirm(Field field, const Layer& layer, const StepReads& reads, RowRange rows,
                        const JudgedRow& judged_row) {
  const std::int64_t width = width_of(field, layer.problem->sizes());
  ConfirmedValues confirmed{0, rows.count() * width};
  if (confirmed.of == 0) return confirmed;
  const plain::StepInput input{
      layer.problem, layer.contract, &layer.routing, [&](Field from, const plain::IndexVector& wanted) {
        const std::int64_t columns = width_of(from, layer.problem->sizes());
        plain::Matrix out(wanted.size(), columns);
        const auto& read = *reads[static_cast<std::size_t>(from)];
        for (std::int64_t i = 0; i < wanted.size(); ++i)
          std::transform(read.data() + wanted[i] * columns, read.data() + (wanted[i] + 1) * columns,
                         out.row(i).data(), [](const Interval& x) { return x.ref; });
        return out;
      }};
  const auto all = chunks(field, layer, rows);
  std::int64_t agree = 0;
  std::exception_ptr error;
  std::size_t error_at = all.size();
#pragma omp parallel for schedule(dynamic) \
    reduction(+ : agree) if (worth_threads(rows.count() * work_of_row(field, layer)))
  for (std::size_t i = 0; i < all.size(); ++i) {
    try {
      const plain::StepRows expected = plain::plain_step(field, input, all[i]);
      for (std::int64_t r = 0; r < expected.values.rows(); ++r) {
        const Interval* judged = judged_row(all[i][r]);
        for (std::int64_t c = 0; c < width; ++c) {
          const double value = expected.values(r, c);
          const double other = judged[c].ref;
          if (value == other || (std::isnan(value) && std::isnan(other))) {
            ++agree;
            continue;
          }
          const double slack = expected.slack_at(r, c);
          if (!std::isfinite(slack)) continue;  // neither confirmed nor refuted
          if (!(std::fabs(other - value) <= slack))
            disagree(field, layer, all[i][r] * width + c, other, value, slack);
          ++agree;
        }
      }
    } catch (...) {
#pragma omp critical
      if (i < error_at) {
        error_at = i;
        error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
  confirmed.values = agree;
  return confirmed;
}

}  // namespace

std::vector<std::int64_t> confirmed_rows(Field field, const Layer& layer, RowRange rows) {
  std::vector<std::int64_t> all;
  for (const auto& chunk : chunks(field, layer, rows)) all.insert(all.end(), chunk.begin(), chunk.end());
  return all;
}

ConfirmedValues confirm_by_plain_layer(Field field, const Layer& layer, const StepReads& reads,
                                       const Values<Bounded>& values, RowRange rows) {
  const std::int64_t width = width_of(field, layer.problem->sizes());
  return confirm(field, layer, reads, rows,
                 [&](std::int64_t r) { return values.data() + (r - rows.begin) * width; });
}

ConfirmedValues confirm_by_plain_layer(Field field, const Layer& layer, const StepReads& reads,
                                       const KeptIntervals& values, RowRange rows) {
  const std::int64_t width = width_of(field, layer.problem->sizes());
  const std::vector<std::int64_t> judged = confirmed_rows(field, layer, rows);
  std::vector<std::int64_t> starts;
  for (const std::int64_t r : judged) starts.push_back((r - rows.begin) * width);
  LargeVector<Interval> brought(judged.size() * static_cast<std::size_t>(width));
  values.bring(starts, width, brought);
  return confirm(field, layer, reads, rows, [&](std::int64_t r) {
    return brought.data() + (std::ranges::lower_bound(judged, r) - judged.begin()) * width;
  });
}

}  // namespace assay
