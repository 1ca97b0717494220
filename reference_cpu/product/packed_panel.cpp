#include "reference_cpu/product/packed_panel.h"

#include <algorithm>
#include <limits>

#include "harness/contract/noise.h"

namespace assay {
namespace {

constexpr std::int64_t kStretch = 128;  // terms of 16 columns that lie in the L1 cache

/// Calls put(index in the panel, index in the operand) for every element, in the order in which they lie, of
/// columns that lie apart a stretch of each at a time.
template <class Put>
void walk(const PanelPlace& place, const Put& put) {
  if (place.lies == Lies::AlongRows) {
    for (std::int64_t i = 0; i < place.k; ++i)
      for (std::int64_t c = 0; c < place.count; ++c)
        put(static_cast<std::size_t>(i * kPanelColumns + c), static_cast<std::size_t>(place.at(c, i)));
    return;
  }
  for (std::int64_t begin = 0; begin < place.k; begin += kStretch)
    for (std::int64_t c = 0; c < place.count; ++c)
      for (std::int64_t i = begin; i < std::min(begin + kStretch, place.k); ++i)
        put(static_cast<std::size_t>(i * kPanelColumns + c), static_cast<std::size_t>(place.at(c, i)));
}

}  // namespace

void PackedPanel::start() {
  exact = true;
  for (int c = 0; c < kPanelColumns; ++c) {
    outside[c] = undetermined[c] = false;
    granularity_[c] = std::numeric_limits<double>::infinity();
    looked_at_[c] = 0;
  }
}

void PackedPanel::take_exponents() {
  exponents.resize(values.size());
  std::int32_t outside_of[kPanelColumns] = {};  // as wide as the values, so that the loop is one of vectors
  for (std::size_t at = 0; at < values.size(); at += kPanelColumns)
    for (std::size_t c = 0; c < kPanelColumns; ++c) {
      exponents[at - at % (2 * kPanelColumns) + 2 * c + at / kPanelColumns % 2] = exponent(values[at + c]);
      outside_of[c] |= outside_measured(values[at + c]) ? 1 : 0;
    }
  for (std::size_t c = 0; c < kPanelColumns; ++c) outside[c] = outside[c] || outside_of[c] != 0;
}

void PackedPanel::pack(std::span<const Bf16> weights, const PanelPlace& place, bool with_exponents) {
  start();
  values.resize(static_cast<std::size_t>(padded(place.k) * kPanelColumns));
  if (with_exponents) exponents.resize(values.size());
  const bool along = place.lies == Lies::AlongColumns;
  static_assert(sizeof(Bf16) == sizeof(std::uint16_t));
  const auto* words = reinterpret_cast<const std::uint16_t*>(weights.data()) + place.at(0, 0);
  kernels_in_use().pack({words, along ? place.k : 1, along ? 1 : place.n, place.k, place.count},
                        padded(place.k), values.data(), with_exponents ? exponents.data() : nullptr, outside);
}

void PackedPanel::pack(std::span<const PredictedValue> right, const PanelPlace& place) {
  start();
  values.assign(static_cast<std::size_t>(padded(place.k) * kPanelColumns), 0.0f);
  walk(place, [&](std::size_t to, std::size_t from) {
    values[to] = right[from].value;
    if (right[from].undetermined) undetermined[to % kPanelColumns] = true;
  });
  take_exponents();
}

void PackedPanel::pack(std::span<const Interval> right, const PanelPlace& place, const BoundShape& shape) {
  start();
  values.assign(static_cast<std::size_t>(padded(place.k) * kPanelColumns), 0.0f);
  walk(place, [&](std::size_t to, std::size_t from) {
    values[to] = static_cast<float>(right[from].ref);
    exact = exact && is_exact_float(right[from]);
  });
  if (exact) return;
  ref.assign(values.size(), 0.0);
  outer.assign(values.size(), 0.0f);
  width.assign(values.size(), 0.0f);
  squares.assign(values.size(), 0.0f);
  noise.assign(values.size(), 0.0f);
  walk(place, [&](std::size_t to, std::size_t from) {
    const Interval& b = right[from];
    ref[to] = b.ref;
    outer[to] = not_below(std::fabs(b.ref) + radius(b));
    width[to] = not_below(radius(b));
    squares[to] = static_cast<float>(b.ref * b.ref);
    noise[to] = noise_units(shape, b);
  });
}

void PackedPanel::clear_tail(std::int64_t from) {
  std::fill(values.begin() + from * kPanelColumns, values.end(), 0.0f);
}

double PackedPanel::granularity_from(std::int64_t c, std::int64_t k, double least) {
  for (; looked_at_[c] < k && granularity_[c] >= least; ++looked_at_[c])
    granularity_[c] =
        std::min(granularity_[c],
                 assay::granularity(values[static_cast<std::size_t>(looked_at_[c] * kPanelColumns + c)]));
  return granularity_[c];
}

}  // namespace assay
