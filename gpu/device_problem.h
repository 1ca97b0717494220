// A problem in device memory, and what a run needs besides: a stream, workspaces and the way back to host
// tensors.
#pragma once

#include <cstdint>

#include "gpu/buffer.h"
#include "gpu/kernels/kernels.h"
#include "gpu/weight_gradient_buffer.h"
#include "harness/contract/candidate.h"
#include "harness/contract/problem.h"

namespace assay::gpu {

/// Owns a CUDA stream.
class Stream {
 public:
  Stream() { ASSAY_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Inputs and weights, uploaded expert by expert.
struct DeviceProblem {
  Sizes sizes;
  Buffer<bf16> input;         // [T, H]
  Buffer<bf16> d_out;         // [T, H], the output's gradient; empty where there is no backward pass
  Buffer<bf16> gate;          // [E, H]
  Buffer<bf16> gate_up_proj;  // [E, 2I, H]
  Buffer<bf16> down_proj;     // [E, H, I]

  bool has_backward() const { return d_out.size() > 0; }
  void verify_guards() const;
};

/// Throws InputError when a tensor does not have the shape its field must have.
DeviceProblem upload(const Problem& problem);

/// Buffers of the routing, and the pointers kernels take.
struct RoutingBuffers {
  explicit RoutingBuffers(const Sizes& sizes);
  DeviceRouting view(bool wide = false) const;
  void verify_guards() const;
  void poison();

  Buffer<std::int32_t> selected_experts;
  Buffer<bf16> topk_weights;
  Buffer<std::int32_t> chunk_counts;
  Buffer<std::int32_t> counts;
  Buffer<std::int32_t> first_rows;
  Buffer<std::int32_t> gather_indices;
  Buffer<std::int32_t> row_of_slot;
  Buffer<RowTile> tiles;
  Buffer<TileCounters> counters;
  Buffer<std::uint32_t> finished;
};

/// Copies a device buffer into the candidate's field, which must have as many elements.
template <class T>
void store_field(Candidate& candidate, Field field, const Buffer<T>& buffer, const Sizes& sizes) {
  Tensor tensor(row(field).dtype, expected_shape(field, sizes));
  ASSAY_CHECK(tensor.size() == buffer.size() && tensor.bytes().size() == buffer.bytes(),
              "expected a buffer of the field's size");
  buffer.download(tensor.bytes().data());
  candidate.fields.set(field, std::move(tensor));
}

void store_field(Candidate& candidate, Field field, const WeightGradientBuffer& buffer, const Sizes& sizes);

/// The routing fields of the field table.
void store_routing(Candidate& candidate, const RoutingBuffers& routing, const Sizes& sizes);

/// A candidate with name, device, compute capability and versions filled in.
Candidate describe_candidate(const std::string& name);

}  // namespace assay::gpu
