// A field's cells on the device (harness/contract/cells.h). Pointers are device memory.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "gpu/engine/cell_arithmetic.h"

namespace assay::gpu {

inline constexpr int kDeviceTaskRows = 256;
inline constexpr std::int64_t kMostTasks = 65535;  // of a grid's second dimension

struct DeviceField {
  const std::uint16_t* out;         // [rows, width] bf16 bits
  const DeviceInterval* reference;  // [rows, width]
  std::int64_t rows;
  std::int64_t width;
  bool carried;
  const std::uint16_t* classes;  // [rows, class_stride] bf16 bits, or null
  std::int64_t class_stride;
};

/// Laid out as harness's ClassSums.
struct DeviceClass {
  unsigned long long flips_expected;
  unsigned long long excess_expected;
  unsigned long long elements;
};

/// cells [rows, tiles of the width], columns [tasks, width]; `classes` [65536] must hold zeros and is added
/// to, or is null.
void field_cells(const DeviceField& field, DeviceCell* cells, double* columns, DeviceClass* classes,
                 cudaStream_t stream);

}  // namespace assay::gpu
