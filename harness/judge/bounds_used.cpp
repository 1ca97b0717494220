#include "harness/judge/bounds_used.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "harness/contract/noise.h"

namespace assay {
namespace {

// of the sample: enough for a median, and few experts' weights to load
constexpr std::int64_t kRows = 8;
constexpr std::int64_t kColumns = 8;

/// Flat indices, ascending, spread over rows and columns.
std::vector<std::int64_t> sample(std::int64_t rows, std::int64_t width) {
  std::vector<std::int64_t> elements;
  const std::int64_t some_rows = std::min(rows, kRows);
  const std::int64_t some_columns = std::min(width, kColumns);
  for (std::int64_t r = 0; r < some_rows; ++r)
    for (std::int64_t c = 0; c < some_columns; ++c)
      elements.push_back((2 * r + 1) * rows / (2 * some_rows) * width +
                         (2 * c + 1) * width / (2 * some_columns));
  return elements;
}

}  // namespace

SampledBounds::SampledBounds(const CompareContext& context)
    : field_(context.field),
      width_(width_of(context.field, context.sizes)),
      elements_(sample(rows_of(context.field, context.sizes), width_)) {}

void SampledBounds::add(std::int64_t first_row, const StretchIntervals& reference) {
  const std::int64_t begin = first_row * width_;
  const std::int64_t end = begin + reference.size();
  std::vector<std::int64_t> here;
  for (std::size_t i = in_force_.size(); i < elements_.size() && elements_[i] < end; ++i)
    here.push_back(elements_[i] - begin);
  const SomeIntervals sampled = reference.some(std::move(here), 1);
  for (std::size_t i = 0; i < sampled.starts.size(); ++i) in_force_.push_back(radius(*sampled.from(i)));
}

void SampledBounds::account(Reference& accounts, Mode mode, const RoundedComparison& comparison,
                            Judgement& judgement) const {
  if (!judgement.worst) return;
  std::vector<std::int64_t> elements = elements_;
  std::vector<double> in_force = in_force_;
  elements.push_back(comparison.worst_index());
  in_force.push_back(radius(comparison.worst_reference()));
  BoundAccount account = accounts.bound_account(field_, mode, elements);
  BoundsUsed& used = judgement.bounds;
  used.a_priori = std::move(account.a_priori);
  used.running = std::move(account.running);
  if (account.elements.empty()) {  // no product: one bound serves every order
    judgement.worst->a_priori = judgement.worst->delta;
    return;
  }
  const BoundPair& worst = account.elements.back();
  judgement.worst->magnitude = worst.magnitude;
  judgement.worst->a_priori = worst.a_priori;
  judgement.worst->running = worst.running.value_or(0.0);
  std::vector<double> wider;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    if (in_force[i] == 0.0)
      ++used.exact;
    else if (const double ratio = account.elements[i].a_priori / in_force[i]; std::isfinite(ratio))
      wider.push_back(ratio);
  }
  used.sampled = static_cast<std::int64_t>(wider.size());
  if (wider.empty()) return;
  const auto middle = wider.begin() + used.sampled / 2;
  std::ranges::nth_element(wider, middle);
  used.typical = *middle;
}

}  // namespace assay
