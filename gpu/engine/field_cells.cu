// The cells of harness/contract/cells.h: a thread walks one cell in the order of columns, and in another
// kernel one column of a task in the order of rows, in the arithmetic of cell_arithmetic.h. Compiled without
// contraction.
#include "gpu/cuda_check.h"
#include "gpu/engine/cell_kernels.h"

namespace assay::gpu {
namespace {

constexpr int kThreads = 128;
__device__ unsigned long long fixed_point(double x) {
  return static_cast<unsigned long long>(static_cast<long long>(ceil(x * cell::kFixedPoint)));
}

__global__ void __launch_bounds__(kThreads)
    cells_kernel(DeviceField field, DeviceCell* cells, DeviceClass* classes) {
  const std::int64_t tiles = (field.width + kDeviceCellColumns - 1) / kDeviceCellColumns;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= field.rows * tiles) return;
  const std::int64_t row = at / tiles;
  const std::int64_t begin = at % tiles * kDeviceCellColumns;
  const int count = static_cast<int>(min(std::int64_t{kDeviceCellColumns}, field.width - begin));
  DeviceCell sums{};
  for (int i = 0; i < count; ++i) {
    const std::int64_t index = row * field.width + begin + i;
    const cell::CellDeviation d =
        cell::add_element(field.out[index], field.reference[index], field.carried, i, sums);
    if (classes == nullptr) continue;
    DeviceClass& of_class = classes[field.classes[row * field.class_stride + begin + i]];
    atomicAdd(&of_class.flips_expected, fixed_point(d.flip_chance));
    atomicAdd(&of_class.excess_expected, fixed_point(d.excess_expected));
    atomicAdd(&of_class.elements, 1ull);
  }
  cells[at] = sums;
}

__global__ void __launch_bounds__(kThreads) columns_kernel(DeviceField field, double* columns) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t first = std::int64_t{blockIdx.y} * kDeviceTaskRows;
  if (column >= field.width) return;
  double sum = 0.0;
  for (std::int64_t row = first; row < min(field.rows, first + kDeviceTaskRows); ++row)
    sum += cell::deviation(field.out[row * field.width + column], field.reference[row * field.width + column],
                           field.carried)
               .flip_chance;
  columns[blockIdx.y * field.width + column] = sum;
}

}  // namespace

void field_cells(const DeviceField& field, DeviceCell* cells, double* columns, DeviceClass* classes,
                 cudaStream_t stream) {
  const std::int64_t count = field.rows * ((field.width + kDeviceCellColumns - 1) / kDeviceCellColumns);
  const std::int64_t tasks = (field.rows + kDeviceTaskRows - 1) / kDeviceTaskRows;
  ASSAY_CHECK(count > 0 && count < (std::int64_t{1} << 31) && tasks <= kMostTasks,
              "expected a field with elements, fewer than 2^31 cells and at most 65,535 tasks");
  cells_kernel<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      field, cells, classes);
  ASSAY_CUDA(cudaGetLastError());
  columns_kernel<<<dim3(static_cast<unsigned>((field.width + kThreads - 1) / kThreads),
                        static_cast<unsigned>(tasks)),
                   kThreads, 0, stream>>>(field, columns);
  ASSAY_CUDA(cudaGetLastError());
}

}  // namespace assay::gpu
