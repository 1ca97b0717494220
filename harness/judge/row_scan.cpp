#include "harness/judge/row_scan.h"

#include <algorithm>

namespace assay {
namespace {

// Every loop below works on plain arrays of one width and carries only integers around, so that all of them
// vectorise.
struct Chunk {
  float narrow[kCellColumns];
  double low[kCellColumns];
  double high[kCellColumns];
  double ref[kCellColumns];
  double ratio[kCellColumns];
};

constexpr std::int64_t kSign = std::int64_t{1} << 63;
constexpr std::int64_t kExponent = std::int64_t{0x7ff} << 52;
// Outside these, a neighbour's midpoint is not half an ulp of the exponent away.
constexpr double kSmallest = 0x1p-117;
constexpr double kLargest = 0x1.fep127;

}  // namespace

// No fast-math: comparisons with NaN are false, so a NaN is never clear.
__attribute__((target_clones("avx512f", "avx2", "default"))) RowScan scan_row(StoredSpan out,
                                                                              const Interval* reference,
                                                                              int count) {
  Chunk c;
  RowScan scan;
  // Half an ulp of 1.
  const double half_of_one = out.dtype() == DType::Float32 ? 0x1p-24 : 0x1p-8;
  if (const Bf16* narrow = out.bf16(); narrow != nullptr)
    for (int i = 0; i < count; ++i)
      c.narrow[i] = std::bit_cast<float>(static_cast<std::uint32_t>(narrow[i].bits) << 16);
  else
    std::copy_n(out.float32(), count, c.narrow);
  for (int i = 0; i < count; ++i) {
    c.low[i] = reference[i].low;
    c.high[i] = reference[i].high;
    c.ref[i] = reference[i].ref;
  }
  for (int i = 0; i < count; ++i) {
    const double value = static_cast<double>(c.narrow[i]);
    const auto bits = std::bit_cast<std::int64_t>(value);
    const double magnitude = std::bit_cast<double>(bits & ~kSign);
    // Half an ulp away from zero is that of 1 times 2^e; toward zero, below a power of two, it is half of
    // that.
    const double power = std::bit_cast<double>(bits & kExponent);
    const double half = power * half_of_one;
    const double inward = magnitude == power ? 0.5 * half : half;
    const double lower = value - (value < 0.0 ? half : inward);
    const double upper = value + (value < 0.0 ? inward : half);
    const double up = c.high[i] - c.ref[i];
    const double down = c.ref[i] - c.low[i];
    const double delta = up > down ? up : down;
    const double error = std::bit_cast<double>(std::bit_cast<std::int64_t>(value - c.ref[i]) & ~kSign);
    double inside = magnitude >= kSmallest ? 1.0 : 0.0;
    inside = magnitude <= kLargest ? inside : 0.0;
    inside = c.low[i] > lower ? inside : 0.0;
    inside = c.high[i] < upper ? inside : 0.0;
    inside = up >= 0.0 ? inside : 0.0;
    inside = down >= 0.0 ? inside : 0.0;
    scan.clear[i] = inside;
    c.ratio[i] = inside > 0.0 ? error / (delta + half) : 0.0;
  }
  std::int64_t top = 0;
  std::int64_t clear = 0;
  for (int i = 0; i < count; ++i) {
    // Bits of non-negative doubles are ordered like the numbers; those of 1.0 have bit 52.
    const auto ratio = std::bit_cast<std::int64_t>(c.ratio[i]);
    top = ratio > top ? ratio : top;
    clear += (std::bit_cast<std::int64_t>(scan.clear[i]) >> 52) & 1;
  }
  scan.max_ratio = std::bit_cast<double>(top);
  scan.unclear = count - static_cast<int>(clear);
  return scan;
}

}  // namespace assay
