// The kernel behind gpu/field_comparison.h.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace assay::gpu {

/// A reference value with its interval, laid out as harness's Interval.
struct DeviceInterval {
  double ref, low, high;
  float noise, mean;
};

/// ComparisonTotals of harness's order, one per row.
struct RowTotals {
  std::int64_t rejected, non_finite, mismatched, flipped;
  double max_ratio, max_contract_ulps, flips_expected, excess, excess_expected, z2, z2_of_rounding;
};

inline constexpr int kHistogramBuckets = 18;

/// out [rows, width] bf16 bits, reference [rows, width], totals [rows]; `ulps` [kHistogramBuckets] must hold zeros and is added to.
void compare_rows(const std::uint16_t* out, const DeviceInterval* reference, std::int64_t rows, std::int64_t width, RowTotals* totals,
                  unsigned long long* ulps, cudaStream_t stream);

}  // namespace assay::gpu
