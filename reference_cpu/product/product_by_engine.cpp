#include "reference_cpu/product/product_by_engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "harness/contract/element_constants.h"
#include "harness/contract/error.h"
#include "harness/host/phase_timer.h"
#include "reference_cpu/arithmetic.h"

namespace assay {
namespace {

constexpr std::int64_t kSampledGroups = 8;  // of each the first and the last row: tiles end there

bool close(double theirs, double ours, double tolerance) {
  return theirs == ours || std::fabs(theirs - ours) <= tolerance || (std::isnan(theirs) && std::isnan(ours));
}

/// An error of the reference below a thousandth of the bound is negligible beside it (NUMERICS 3).
bool agree(const Interval& theirs, const Interval& ours) {
  constexpr double kShareOfBound = 1e-3;
  const double tolerance = kShareOfBound * radius(ours);
  return close(theirs.ref, ours.ref, tolerance) && close(theirs.low, ours.low, tolerance) &&
         close(theirs.high, ours.high, tolerance) &&
         close(theirs.noise, ours.noise, kShareOfBound * ours.noise) &&
         close(theirs.mean, ours.mean, kShareOfBound * ours.mean);
}

bool agree(const PredictedValue& theirs, const PredictedValue& ours) {
  const bool both_nan = std::isnan(theirs.value) && std::isnan(ours.value);
  return theirs.undetermined == ours.undetermined &&
         (both_nan || std::bit_cast<std::uint32_t>(theirs.value) == std::bit_cast<std::uint32_t>(ours.value));
}

std::string text(const Interval& x) {
  return fmt::format("{} in [{}, {}], noise {} and {}", x.ref, x.low, x.high, x.noise, x.mean);
}
std::string text(const PredictedValue& x) {
  return fmt::format("{}{}", x.value, x.undetermined ? " (undetermined)" : "");
}

/// First and last rows of groups spread over all that have rows.
std::vector<std::int64_t> sampled_rows(std::span<const std::int64_t> offsets) {
  std::vector<std::size_t> filled;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
    if (offsets[g] < offsets[g + 1]) filled.push_back(g);
  const auto groups = std::min<std::int64_t>(kSampledGroups, static_cast<std::int64_t>(filled.size()));
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < groups; ++i) {
    const std::size_t g =
        filled[static_cast<std::size_t>(i * static_cast<std::int64_t>(filled.size()) / groups)];
    rows.push_back(offsets[g]);
    if (offsets[g + 1] - 1 > offsets[g]) rows.push_back(offsets[g + 1] - 1);
  }
  return rows;
}

/// Those rows of the product, made by `own`.
template <class Value>
LargeVector<Value> made_here(const GroupedProduct<Value>& product, std::span<const std::int64_t> rows,
                             const std::function<LargeVector<Value>(const GroupedProduct<Value>&)>& own) {
  const auto k = static_cast<std::size_t>(product.k);
  LargeVector<Value> left(rows.size() * k);
  std::vector<std::int32_t> source(rows.size());
  std::iota(source.begin(), source.end(), 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto from = static_cast<std::size_t>(product.source[static_cast<std::size_t>(rows[i])]);
    std::ranges::copy(product.left.subspan(from * k, k), left.begin() + static_cast<std::ptrdiff_t>(i * k));
  }
  std::vector<std::int64_t> offsets;
  for (const std::int64_t offset : product.offsets)
    offsets.push_back(std::ranges::lower_bound(rows, offset) - rows.begin());
  GroupedProduct<Value> sample = product;
  sample.left = left;
  sample.source = source;
  sample.offsets = offsets;
  return own(sample);
}

/// Both [rows, n].
template <class Value>
void verify_rows(const GroupedProduct<Value>& product, std::span<const std::int64_t> rows,
                 std::span<const Value> theirs, std::span<const Value> ours) {
  const auto n = static_cast<std::size_t>(product.n);
  for (std::size_t i = 0; i < ours.size(); ++i)
    if (!agree(theirs[i], ours[i]))
      throw InputError(fmt::format(
          "expected the engine ({}) to give {} at row {}, column {} of a product of {} terms, found {}; "
          "--engine cpu judges without it",
          product.engine->name, text(ours[i]), rows[i / n], i % n, product.k, text(theirs[i])));
}

/// Whether there is an engine to be asked.
template <class Value>
bool worth_offering(const GroupedProduct<Value>& product) {
  const auto elements = static_cast<std::int64_t>(product.source.size()) * product.n;
  return product.engine != nullptr && product.fault.kind == FaultKind::None && elements > 0 &&
         worth_the_way(elements * product.k, product.whole, product.engine->least_multiply_adds);
}

bool offer(const Engine& engine, const GroupedProduct<Interval>& product, std::span<Interval> out) {
  return engine.bounded && engine.bounded(product, out);
}

bool offer(const Engine& engine, const GroupedProduct<PredictedValue>& product,
           std::span<PredictedValue> out) {
  return engine.predicted && predict_by_engine(engine, product, out);
}

}  // namespace

bool predict_by_engine(const Engine& engine, const GroupedProduct<PredictedValue>& product,
                       std::span<PredictedValue> out) {
  if (std::ranges::none_of(product.left, &PredictedValue::undetermined))
    return engine.predicted(product, out);
  LargeVector<PredictedValue> left(product.left.begin(), product.left.end());
  std::vector<bool> open(left.size() / static_cast<std::size_t>(product.k));
  for (std::size_t i = 0; i < left.size(); ++i)
    if (std::exchange(left[i].undetermined, false)) open[i / static_cast<std::size_t>(product.k)] = true;
  GroupedProduct<PredictedValue> without_flags = product;
  without_flags.left = left;
  if (!engine.predicted(without_flags, out)) return false;
  for (std::size_t i = 0; i < out.size(); ++i)
    if (open[static_cast<std::size_t>(product.source[i / static_cast<std::size_t>(product.n)])])
      out[i].undetermined = true;
  return true;
}

template <class Value>
std::optional<LargeVector<Value>> product_by_engine(
    const GroupedProduct<Value>& product,
    const std::function<LargeVector<Value>(const GroupedProduct<Value>&)>& own) {
  if (!worth_offering(product)) return std::nullopt;
  const auto n = static_cast<std::size_t>(product.n);
  LargeVector<Value> out(product.source.size() * n);
  {
    const PhaseTimer timer("products by the engine");
    if (!offer(*product.engine, product, out)) return std::nullopt;
  }
  const PhaseTimer timer("sampled rows of the engine's products");
  const auto rows = sampled_rows(product.offsets);
  LargeVector<Value> theirs;
  for (const std::int64_t r : rows) {
    const auto row = std::span<const Value>(out).subspan(static_cast<std::size_t>(r) * n, n);
    theirs.insert(theirs.end(), row.begin(), row.end());
  }
  verify_rows<Value>(product, rows, theirs, made_here(product, rows, own));
  ++product.engine->taken->products;
  return out;
}

std::shared_ptr<const KeptIntervals> product_kept_by_engine(
    const GroupedProduct<Interval>& product, const CommonErrors& errors,
    const std::function<LargeVector<Interval>(const GroupedProduct<Interval>&)>& own) {
  if (!worth_offering(product) || !product.engine->kept) return nullptr;
  std::shared_ptr<const KeptIntervals> kept;
  {
    const PhaseTimer timer("products by the engine");
    kept = product.engine->kept(product, errors);
    if (!kept) return nullptr;
  }
  const PhaseTimer timer("sampled rows of the engine's products");
  const auto n = static_cast<std::size_t>(product.n);
  const auto rows = sampled_rows(product.offsets);
  auto ours = made_here(product, rows, own);
  for (std::size_t i = 0; i < ours.size(); ++i) {
    ours[i] = with_common_error(
        ours[i], errors.of_rows[static_cast<std::size_t>(rows[i / n])] + errors.of_columns[i % n]);
    if (errors.above_underflow) ours[i] = with_noise_above_underflow(ours[i]);
  }
  std::vector<std::int64_t> starts;
  for (const std::int64_t r : rows) starts.push_back(r * product.n);
  LargeVector<Interval> theirs(ours.size());
  kept->bring(starts, product.n, theirs);
  verify_rows<Interval>(product, rows, theirs, ours);
  ++product.engine->taken->products;
  return kept;
}

template std::optional<LargeVector<Interval>> product_by_engine(
    const GroupedProduct<Interval>&,
    const std::function<LargeVector<Interval>(const GroupedProduct<Interval>&)>&);
template std::optional<LargeVector<PredictedValue>> product_by_engine(
    const GroupedProduct<PredictedValue>&,
    const std::function<LargeVector<PredictedValue>(const GroupedProduct<PredictedValue>&)>&);

}  // namespace assay
