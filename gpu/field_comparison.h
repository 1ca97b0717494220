// A whole field against its reference on the device: the interval test, the counts and the sums of harness/compare.h and of its
// statistics, by code of its own. The same interface where no CUDA compiler was found: then there is none.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "harness/reference.h"

namespace assay {

/// Of one row, or added up. Counts are those of the CPU; sums are added in another order.
struct ComparisonTotals {
  std::int64_t rejected = 0;    // outside the accepted interval
  std::int64_t non_finite = 0;  // of these, Inf or NaN
  std::int64_t mismatched = 0;  // bits differ from those of the rounded reference
  std::int64_t flipped = 0;     // the same where both are finite: what statistics count
  double max_ratio = 0.0;       // |out - ref| / (delta + ulp(out) / 2)
  double max_contract_ulps = 0.0;  // |out - ref| / max(ulp, 2 delta)
  double flips_expected = 0.0;
  double excess = 0.0, excess_expected = 0.0;
  double z2 = 0.0, z2_of_rounding = 0.0;
};

inline constexpr int kUlpBuckets = 18;  // 0, 1, 2, 3-4, 5-8, ... bf16 neighbours

struct FieldComparison {
  std::vector<ComparisonTotals> rows;
  std::array<std::int64_t, kUlpBuckets> ulps{};
  ComparisonTotals all;
};

/// Compares `rows` rows of bf16 values with their intervals. Sizes must agree; throws InputError otherwise.
using FieldComparer = std::function<FieldComparison(std::span<const Bf16> out, std::span<const Interval> reference, std::int64_t rows)>;

/// On the current device, or nothing where there is none.
std::optional<FieldComparer> gpu_field_comparer();

}  // namespace assay
