// Results where they lie, in device memory: what two runs left behind compared without the way to the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gpu/buffer.h"

namespace assay::gpu {

struct DeviceBytes {
  const void* data;
  std::size_t size;
};

template <class T>
DeviceBytes bytes_of(const Buffer<T>& buffer) {
  return {buffer.data(), buffer.bytes()};
}

/// One behind the other.
std::vector<unsigned char> download(const std::vector<DeviceBytes>& results);

std::int64_t words_in(const std::vector<DeviceBytes>& results);

/// How many words of 16 bits differ; both lists have the same sizes. Synchronises.
std::int64_t count_words_that_differ(const std::vector<DeviceBytes>& a, const std::vector<DeviceBytes>& b);

}  // namespace assay::gpu
