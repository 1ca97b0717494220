// A block per row: every thread judges every 128th element, sums are added thread by thread and then in a tree, so that they do
// not depend on the launch. Compiled without contraction: each element's figures are then the CPU's to the last bit, and only the
// order of the sums differs.
#include "gpu/comparison_kernels.h"
#include "gpu/cuda_check.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 128;
constexpr unsigned long long kMagnitude = ~(1ull << 63);
constexpr double kInfinity = __builtin_huge_val();
constexpr double kLargest = 0x1.fep127;  // of bf16
constexpr double kExcessCap = 12.0;      // squared ulps of ulp^2 / 12 an element's excess counts at most

/// bf16 bits of a double, rounded once to nearest even; NaN stays NaN with its leading bits.
__device__ std::uint32_t rounded_bits(double x) {
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(x));
  const unsigned long long magnitude = bits & kMagnitude;
  const std::uint32_t sign = static_cast<std::uint32_t>(bits >> 63) << 15;
  if (magnitude > 0x7ff0000000000000ull) return sign | 0x7fc0u | static_cast<std::uint32_t>(magnitude >> 45 & 0x7f);
  if (__longlong_as_double(static_cast<long long>(magnitude)) < 0x1p-126)  // neighbours are 2^-133 apart
    return sign | static_cast<std::uint32_t>(rint(__longlong_as_double(static_cast<long long>(magnitude)) * 0x1p133));
  const unsigned long long kept = (magnitude + ((1ull << 44) - 1) + (magnitude >> 45 & 1)) >> 45;
  const unsigned long long rebased = kept - (896ull << 7);
  return sign | (rebased > 0x7f80 ? 0x7f80u : static_cast<std::uint32_t>(rebased));
}

__device__ double value_of(std::uint32_t bf16_bits) { return static_cast<double>(__uint_as_float(bf16_bits << 16)); }
__device__ int ordinal(std::uint32_t bits) { return (bits & 0x8000u) != 0 ? -static_cast<int>(bits & 0x7fffu) : static_cast<int>(bits & 0x7fffu); }
__device__ bool finite(std::uint32_t bits) { return (bits & 0x7f80u) != 0x7f80u; }

/// Distance of neighbours at a bf16 magnitude; infinite at Inf.
__device__ double spacing(std::uint32_t bits) {
  const int biased = static_cast<int>(bits >> 7 & 0xff);
  if (biased == 0xff) return (bits & 0x7f) != 0 ? 0x1p-133 : kInfinity;
  return scalbn(1.0, max(biased, 1) - 127 - 7);
}

__device__ bool accepted(double out, const DeviceInterval& x) {
  if (isnan(out) || isnan(x.ref)) return isnan(out) && isnan(x.ref);
  return (value_of(rounded_bits(x.low)) <= out && out <= value_of(rounded_bits(x.high))) || (isinf(x.ref) && out == x.ref);
}

__device__ double half_width(const DeviceInterval& x) {
  double width = x.high - x.ref;
  const double down = x.ref - x.low;
  if (width < down) width = down;
  return width < 0.0 ? 0.0 : width;
}

__device__ double error_ratio(double out, std::uint32_t bits, const DeviceInterval& x) {
  if (out == x.ref || (isnan(out) && isnan(x.ref))) return 0.0;
  const double ratio = fabs(out - x.ref) / (half_width(x) + 0.5 * spacing(bits));
  return isnan(ratio) ? kInfinity : ratio;
}

/// Flips and excess energy of one finite element against what legal implementations show at most on average. With d the distance of
/// the reference to the nearest rounding boundary: a flip needs an error of at least d, so its chance is at most (noise / d)^2.
__device__ void deviate(std::uint32_t bits, const DeviceInterval& x, RowTotals& totals, int& distance) {
  const std::uint32_t rounded_ref = rounded_bits(fabs(x.ref));
  if (!finite(bits) || !(fabs(x.ref) <= kLargest) || !finite(rounded_ref)) return;
  const double out = signbit(x.ref) ? -value_of(bits) : value_of(bits);
  const double magnitude = fabs(x.ref), rounded = value_of(rounded_ref), ulp = spacing(rounded_ref);
  const bool power = (rounded_ref & 0x7f) == 0 && rounded > 0x1p-126;
  const double beyond = magnitude - rounded;
  const double outer = 0.5 * ulp - beyond, inner = 0.5 * (power ? 0.5 * ulp : ulp) + beyond;
  const double d = outer < inner ? outer : inner;
  const double up = x.high - x.ref, down = x.ref - x.low, delta = up > down ? up : down;
  const bool may_flip = delta > 0.0 && delta * (1.0 + 0x1p-40) + magnitude * 0x1p-50 >= d;
  const bool known = x.noise > 0.0 && x.noise < 0x1p500;
  const double noise = known ? x.noise : 0.0;
  const double w = (ulp * ulp) / 12.0 + noise * noise;
  const double proven = (delta + ulp - d) * (delta + d) * 1.0625;
  const double modelled = 1.0625 * noise * noise + 2.0 * ulp * (noise > d ? noise : noise * noise / d);
  const double expected = (known && modelled < proven ? modelled : proven) / w;
  const double error = out - magnitude, own = beyond * beyond, square = error * error;
  const double excess = (square - own) / w;
  if (out != rounded) {
    ++totals.flipped;
    distance = abs(ordinal(bits) - ordinal(rounded_bits(x.ref)));
  }
  if (may_flip) {
    totals.flips_expected += !known || noise > d ? 1.0 : noise * noise / (d * d);
    totals.excess_expected += expected < kExcessCap ? expected : kExcessCap;
  }
  totals.excess += excess < kExcessCap ? excess : kExcessCap;
  totals.z2 += square / w;
  totals.z2_of_rounding += own / w;
  totals.max_contract_ulps = fmax(totals.max_contract_ulps, fabs(error) / (ulp > 2.0 * delta ? ulp : 2.0 * delta));
}

__device__ void add(RowTotals& to, const RowTotals& from) {
  to.rejected += from.rejected;
  to.non_finite += from.non_finite;
  to.mismatched += from.mismatched;
  to.flipped += from.flipped;
  to.max_ratio = fmax(to.max_ratio, from.max_ratio);
  to.max_contract_ulps = fmax(to.max_contract_ulps, from.max_contract_ulps);
  to.flips_expected += from.flips_expected;
  to.excess += from.excess;
  to.excess_expected += from.excess_expected;
  to.z2 += from.z2;
  to.z2_of_rounding += from.z2_of_rounding;
}

__global__ void __launch_bounds__(kThreads) compare_rows_kernel(const std::uint16_t* out, const DeviceInterval* reference, std::int64_t width, RowTotals* totals, unsigned long long* ulps) {
  __shared__ RowTotals partial[kThreads];
  __shared__ int histogram[kHistogramBuckets];
  if (threadIdx.x < kHistogramBuckets) histogram[threadIdx.x] = 0;
  __syncthreads();
  const std::int64_t row = blockIdx.x;
  RowTotals mine{};
  for (std::int64_t c = threadIdx.x; c < width; c += kThreads) {
    const std::uint32_t bits = out[row * width + c];
    const DeviceInterval x = reference[row * width + c];
    const double value = value_of(bits);
    const bool ok = accepted(value, x);
    mine.rejected += !ok;
    mine.non_finite += !ok && !finite(bits);
    mine.mismatched += ordinal(rounded_bits(x.ref)) != ordinal(bits);
    mine.max_ratio = fmax(mine.max_ratio, error_ratio(value, bits, x));
    int distance = 0;
    deviate(bits, x, mine, distance);
    // 0, 1, 2, 3-4, 5-8, ...
    const int bucket = distance == 0 ? 0 : min(kHistogramBuckets - 1, 33 - __clz(distance - 1));
    atomicAdd(&histogram[bucket], 1);
  }
  partial[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) add(partial[threadIdx.x], partial[threadIdx.x + half]);
  }
  __syncthreads();
  if (threadIdx.x == 0) totals[row] = partial[0];
  if (threadIdx.x < kHistogramBuckets && histogram[threadIdx.x] != 0) atomicAdd(&ulps[threadIdx.x], static_cast<unsigned long long>(histogram[threadIdx.x]));
}

}  // namespace

void compare_rows(const std::uint16_t* out, const DeviceInterval* reference, std::int64_t rows, std::int64_t width, RowTotals* totals,
                  unsigned long long* ulps, cudaStream_t stream) {
  ASSAY_CHECK(rows >= 0 && rows < (std::int64_t{1} << 31), "expected fewer than 2^31 rows");
  if (rows == 0) return;
  compare_rows_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(out, reference, width, totals, ulps);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
