#include "reference_cpu/product/product_by_engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>

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
         close(theirs.noise, ours.noise, kShareOfBound * ours.noise);
}

bool agree(const PredictedValue& theirs, const PredictedValue& ours) {
  const bool both_nan = std::isnan(theirs.value) && std::isnan(ours.value);
  return theirs.undetermined == ours.undetermined &&
         (both_nan || std::bit_cast<std::uint32_t>(theirs.value) == std::bit_cast<std::uint32_t>(ours.value));
}

std::string text(const Interval& x) {
  return fmt::format("{} in [{}, {}], noise {}", x.ref, x.low, x.high, x.noise);
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

template <class Value>
void verify_rows(const GroupedProduct<Value>& product, std::span<const Value> theirs,
                 const std::function<LargeVector<Value>(const GroupedProduct<Value>&)>& own) {
  const auto rows = sampled_rows(product.offsets);
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
  const auto ours = own(sample);
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::int64_t c = 0; c < product.n; ++c) {
      const Value& a = theirs[static_cast<std::size_t>(rows[i] * product.n + c)];
      const Value& b = ours[i * static_cast<std::size_t>(product.n) + static_cast<std::size_t>(c)];
      if (!agree(a, b))
        throw InputError(fmt::format(
            "expected the engine ({}) to give {} at row {}, column {} of a product of {} terms, found {}; "
            "--engine cpu judges without it",
            product.engine->name, text(b), rows[i], c, product.k, text(a)));
    }
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
  const Engine* engine = product.engine;
  const auto rows = static_cast<std::int64_t>(product.source.size());
  if (engine == nullptr || product.fault.kind != FaultKind::None || rows * product.n == 0)
    return std::nullopt;
  if (!worth_the_way(rows * product.n * product.k, product.whole, engine->least_multiply_adds))
    return std::nullopt;
  LargeVector<Value> out(static_cast<std::size_t>(rows * product.n));
  {
    const PhaseTimer timer("products by the engine");
    if (!offer(*engine, product, out)) return std::nullopt;
  }
  const PhaseTimer timer("sampled rows of the engine's products");
  verify_rows<Value>(product, out, own);
  ++engine->taken->products;
  return out;
}

template std::optional<LargeVector<Interval>> product_by_engine(
    const GroupedProduct<Interval>&,
    const std::function<LargeVector<Interval>(const GroupedProduct<Interval>&)>&);
template std::optional<LargeVector<PredictedValue>> product_by_engine(
    const GroupedProduct<PredictedValue>&,
    const std::function<LargeVector<PredictedValue>(const GroupedProduct<PredictedValue>&)>&);

}  // namespace assay
