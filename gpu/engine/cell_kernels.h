// A field's cells on the device (harness/contract/cells.h). Pointers are device memory.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace assay::gpu {

inline constexpr int kDeviceCellColumns = 128, kDeviceTaskRows = 256;
inline constexpr std::int64_t kMostTasks = 65535;  // of a grid's second dimension

/// A reference value with its interval, laid out as harness's Interval.
struct alignas(16) DeviceInterval {
  double ref;
  double low;
  double high;
  float noise;
  float mean;
};

struct DeviceField {
  const std::uint16_t* out;         // [rows, width] bf16 bits
  const DeviceInterval* reference;  // [rows, width]
  std::int64_t rows;
  std::int64_t width;
  bool carried;
  const std::uint16_t* classes;  // [rows, class_stride] bf16 bits, or null
  std::int64_t class_stride;
};

/// Laid out as harness's Cell and ClassSums.
struct DeviceCell {
  double max_ratio;
  std::int32_t rejected;
  std::int32_t non_finite;
  std::int32_t mismatched;
  std::int32_t unused;
  double flips_expected;
  double excess;
  double excess_expected;
  double z2;
  double z2_of_rounding;
  double max_contract_ulps;
  unsigned long long flipped_low;
  unsigned long long flipped_high;
};
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
