#include "harness/row_scan.h"

namespace assay {

// No fast-math: comparisons with NaN are false, so a NaN is never clear.
__attribute__((target_clones("avx512f", "avx2", "default")))
RowScan scan_row(const Bf16* out, const Interval* reference, std::int64_t count) {
  double max_ratio = 0.0;
  std::int64_t clear = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = out[i].bits;
    const double value = static_cast<double>(std::bit_cast<float>(bits << 16));
    // Half an ulp away from zero is 2^(e - 8); toward zero, below a power of two, it is half of that.
    const std::uint32_t exponent = (bits >> 7) & 0xffu;
    const double half = static_cast<double>(std::bit_cast<float>((exponent - 8u) << 23));
    const double inward = (bits & 0x7fu) != 0u ? half : 0.5 * half;
    const bool negative = (bits & 0x8000u) != 0u;
    const bool regular = (exponent > 8u) & (exponent < 255u);
    const double low = reference[i].low, high = reference[i].high, ref = reference[i].ref;
    const bool inside = regular & (low > value - (negative ? half : inward)) & (high < value + (negative ? inward : half)) &
                        (low <= ref) & (ref <= high);
    const double above = high - ref, below = ref - low;
    const double delta = above > below ? above : below;
    const double error = value > ref ? value - ref : ref - value;
    const double ratio = inside ? error / (delta + half) : 0.0;
    max_ratio = ratio > max_ratio ? ratio : max_ratio;
    clear += inside;
  }
  return {max_ratio, count - clear};
}

}  // namespace assay
