// Large copies between pageable host memory and the device, through two pinned buffers: the threads of the
// host fill or empty one while the other is on its way.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

namespace assay::gpu {

class HostLink {
 public:
  HostLink();
  ~HostLink();
  HostLink(const HostLink&) = delete;
  HostLink& operator=(const HostLink&) = delete;

  /// Both return when `host` may be used again, or holds the bytes. Copies are ordered on `stream`.
  void upload(void* device, const void* host, std::size_t bytes, cudaStream_t stream);
  void download(void* host, const void* device, std::size_t bytes, cudaStream_t stream);

 private:
  static constexpr std::size_t kPiece = std::size_t{32} << 20;
  unsigned char* pinned_[2] = {};
  cudaEvent_t arrived_[2] = {};
};

}  // namespace assay::gpu
