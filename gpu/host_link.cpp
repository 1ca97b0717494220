#include "gpu/host_link.h"

#include <algorithm>
#include <cstring>

#include "gpu/cuda_check.h"

namespace assay::gpu {
namespace {

void copy_side_by_side(unsigned char* to, const unsigned char* from, std::size_t bytes) {
  constexpr std::size_t kSlice = std::size_t{512} << 10;
#pragma omp parallel for schedule(static)
  for (std::size_t at = 0; at < bytes; at += kSlice)
    std::memcpy(to + at, from + at, std::min(kSlice, bytes - at));
}

}  // namespace

HostLink::HostLink() {
  for (int i = 0; i < 2; ++i) {
    ASSAY_CUDA(cudaMallocHost(&pinned_[i], kPiece));
    ASSAY_CUDA(cudaEventCreateWithFlags(&arrived_[i], cudaEventDisableTiming));
  }
}

HostLink::~HostLink() {
  for (int i = 0; i < 2; ++i) {
    cudaFreeHost(pinned_[i]);
    cudaEventDestroy(arrived_[i]);
  }
}

void HostLink::upload(void* device, const void* host, std::size_t bytes, cudaStream_t stream) {
  int turn = 0;
  for (std::size_t at = 0; at < bytes; at += kPiece, turn ^= 1) {
    const std::size_t length = std::min(kPiece, bytes - at);
    ASSAY_CUDA(cudaEventSynchronize(arrived_[turn]));
    copy_side_by_side(pinned_[turn], static_cast<const unsigned char*>(host) + at, length);
    ASSAY_CUDA(cudaMemcpyAsync(static_cast<unsigned char*>(device) + at, pinned_[turn], length,
                               cudaMemcpyHostToDevice, stream));
    ASSAY_CUDA(cudaEventRecord(arrived_[turn], stream));
  }
}

void HostLink::download(void* host, const void* device, std::size_t bytes, cudaStream_t stream) {
  const auto start = [&](std::size_t at, int turn) {
    ASSAY_CUDA(cudaMemcpyAsync(pinned_[turn], static_cast<const unsigned char*>(device) + at,
                               std::min(kPiece, bytes - at), cudaMemcpyDeviceToHost, stream));
    ASSAY_CUDA(cudaEventRecord(arrived_[turn], stream));
  };
  if (bytes == 0) return;
  for (int i = 0; i < 2; ++i)
    ASSAY_CUDA(cudaEventSynchronize(arrived_[i]));  // an upload may still read the buffers
  start(0, 0);
  int turn = 0;
  for (std::size_t at = 0; at < bytes; at += kPiece, turn ^= 1) {
    if (at + kPiece < bytes) start(at + kPiece, turn ^ 1);
    ASSAY_CUDA(cudaEventSynchronize(arrived_[turn]));
    copy_side_by_side(static_cast<unsigned char*>(host) + at, pinned_[turn], std::min(kPiece, bytes - at));
  }
}

}  // namespace assay::gpu
