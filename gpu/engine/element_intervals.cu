// A thread makes, or brings, an interval, in the arithmetic that the host shares. Compiled without
// contraction.
#include "gpu/cuda_check.h"
#include "gpu/engine/element_intervals.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 256;

__device__ Interval interval_of(const ElementOperands& operands, const DeviceSums& sums, std::int64_t row,
                                std::int64_t column) {
  const std::int32_t source = operands.source[row];
  const double of_row = operands.row_granularity[source];
  const bool exact =
      of_row > 0.0 && operands.constants.exact_in_any_order(
                          sums.spread, of_row, operands.column_granularity[operands.group[row]][column]);
  // The running bound is about exact operands: a row with a width has none.
  const float running = operands.exact_row[source] != 0 ? sums.running : __builtin_huge_valf();
  return operands.constants.interval(sums.ref, sums.spread, sums.squares, running, exact);
}

__device__ Interval interval_of(const ElementOperands& operands, const TwoSidedSums& sums, std::int64_t,
                                std::int64_t) {
  return operands.constants.interval(sums.ref, sums.spread, sums.squares, __builtin_huge_valf(), false);
}

template <class Sums>
__global__ void __launch_bounds__(kThreads)
    intervals_kernel(ElementOperands operands, const Sums* sums, DeviceInterval* out) {
  const std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= operands.rows * operands.n) return;
  const std::int64_t row = at / operands.n;
  const std::int64_t column = at % operands.n;
  Interval x = interval_of(operands, sums[at], row, column);
  if (operands.row_errors != nullptr)
    x = with_common_error(x, operands.row_errors[row] + operands.column_errors[column]);
  if (operands.above_underflow) x = with_noise_above_underflow(x);
  out[at] = {x.ref, x.low, x.high, x.noise, x.mean};
}

__global__ void __launch_bounds__(kThreads)
    bring_kernel(const DeviceInterval* from, const std::int64_t* starts, std::int64_t elements,
                 std::int64_t count, DeviceInterval* out) {
  const std::int64_t at = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at < elements) out[at] = from[starts[at / count] + at % count];
}

unsigned blocks_for(std::int64_t elements) {
  const std::int64_t blocks = (elements + kThreads - 1) / kThreads;
  ASSAY_CHECK(blocks > 0 && blocks < (std::int64_t{1} << 31), "expected 1 to 2^39 intervals");
  return static_cast<unsigned>(blocks);
}

template <class Sums>
void launch(const ElementOperands& operands, const Sums* sums, DeviceInterval* out, cudaStream_t stream) {
  intervals_kernel<<<blocks_for(operands.rows * operands.n), kThreads, 0, stream>>>(operands, sums, out);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace

void element_intervals(const ElementOperands& operands, const DeviceSums* sums, DeviceInterval* out,
                       cudaStream_t stream) {
  launch(operands, sums, out, stream);
}

void element_intervals(const ElementOperands& operands, const TwoSidedSums* sums, DeviceInterval* out,
                       cudaStream_t stream) {
  launch(operands, sums, out, stream);
}

void bring_intervals(const DeviceInterval* from, const std::int64_t* starts, std::int64_t start_count,
                     std::int64_t count, DeviceInterval* out, cudaStream_t stream) {
  bring_kernel<<<blocks_for(start_count * count), kThreads, 0, stream>>>(from, starts, start_count * count,
                                                                         count, out);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
