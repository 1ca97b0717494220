// A second stream that runs beside another one for a while; inside a capture it is a branch of the graph.
#pragma once

#include "gpu/cuda_check.h"

namespace assay::gpu {

/// Owns a stream and the events that tie it to another.
class SideBranch {
 public:
  SideBranch() {
    ASSAY_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    for (cudaEvent_t* event : {&forked_, &joined_})
      ASSAY_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
  }
  ~SideBranch() {
    cudaEventDestroy(forked_);
    cudaEventDestroy(joined_);
    cudaStreamDestroy(stream_);
  }
  SideBranch(const SideBranch&) = delete;
  SideBranch& operator=(const SideBranch&) = delete;

  /// What `work` launches on the stream it is given comes after what is on `from` already, and beside what
  /// comes there later.
  template <class Work>
  void fork(cudaStream_t from, Work work) const {
    ASSAY_CUDA(cudaEventRecord(forked_, from));
    ASSAY_CUDA(cudaStreamWaitEvent(stream_, forked_, 0));
    work(stream_);
    ASSAY_CUDA(cudaEventRecord(joined_, stream_));
  }
  /// What comes on `to` from here on comes after the branch.
  void join(cudaStream_t to) const { ASSAY_CUDA(cudaStreamWaitEvent(to, joined_, 0)); }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t forked_ = nullptr;
  cudaEvent_t joined_ = nullptr;
};

}  // namespace assay::gpu
