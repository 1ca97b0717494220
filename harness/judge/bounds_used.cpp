#include "harness/judge/bounds_used.h"

#include <algorithm>
#include <cmath>

#include "harness/contract/noise.h"

namespace assay {
namespace {

constexpr std::int64_t kRows = 8,
                       kColumns = 8;  // of the sample: enough for a median, and few experts' weights to load

/// Where a flat tensor holds the element.
std::int64_t flat_index(const CompareContext& context, const Element& element) {
  std::int64_t index = 0;
  const Shape shape = expected_shape(context.field, context.sizes);
  for (std::size_t axis = 0; axis < shape.size(); ++axis)
    index = index * shape[axis] + element.at[axis].second;
  return index;
}

/// Flat indices spread over rows and columns; the last one is the worst element's, where there is one.
std::vector<std::int64_t> sample(std::int64_t rows, std::int64_t width,
                                 const std::optional<std::int64_t>& worst) {
  std::vector<std::int64_t> elements;
  const std::int64_t some_rows = std::min(rows, kRows), some_columns = std::min(width, kColumns);
  for (std::int64_t r = 0; r < some_rows; ++r)
    for (std::int64_t c = 0; c < some_columns; ++c)
      elements.push_back((2 * r + 1) * rows / (2 * some_rows) * width +
                         (2 * c + 1) * width / (2 * some_columns));
  if (worst) elements.push_back(*worst);
  return elements;
}

}  // namespace

void account_for_bounds(const CompareContext& context, std::span<const Interval> reference,
                        Reference& accounts, Mode mode, Judgement& judgement) {
  if (reference.empty()) return;
  std::optional<std::int64_t> worst_at;
  if (judgement.worst) worst_at = flat_index(context, *judgement.worst);
  const auto elements =
      sample(rows_of(context.field, context.sizes), width_of(context.field, context.sizes), worst_at);
  BoundAccount account = accounts.bound_account(context.field, mode, elements);
  BoundsUsed& used = judgement.bounds;
  used.a_priori = std::move(account.a_priori);
  used.running = std::move(account.running);
  if (account.elements.empty()) {  // no product: one bound serves every order
    if (judgement.worst) judgement.worst->a_priori = judgement.worst->delta;
    return;
  }
  if (judgement.worst) {
    const BoundPair& worst = account.elements.back();
    judgement.worst->magnitude = worst.magnitude;
    judgement.worst->a_priori = worst.a_priori;
    judgement.worst->running = worst.running.value_or(0.0);
  }
  std::vector<double> wider;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const double in_force = radius(reference[static_cast<std::size_t>(elements[i])]);
    if (in_force == 0.0)
      ++used.exact;
    else if (const double ratio = account.elements[i].a_priori / in_force; std::isfinite(ratio))
      wider.push_back(ratio);
  }
  used.sampled = static_cast<std::int64_t>(wider.size());
  if (wider.empty()) return;
  const auto middle = wider.begin() + used.sampled / 2;
  std::ranges::nth_element(wider, middle);
  used.typical = *middle;
}

}  // namespace assay
