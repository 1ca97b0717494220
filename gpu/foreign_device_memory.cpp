#include "gpu/foreign_device_memory.h"

#include <vector>

#include "gpu/device_problem.h"
#include "gpu/pipeline.h"

namespace assay {
namespace gpu {
namespace {

class DeviceMemory final : public ForeignMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() override {
    for (void* room : rooms_) cudaFree(room);
  }

  void* room(std::size_t bytes) override {
    void* room = nullptr;
    ASSAY_CUDA(cudaMalloc(&room, bytes));
    rooms_.push_back(room);
    return room;
  }
  void write(void* room, const void* from, std::size_t bytes) override {
    ASSAY_CUDA(cudaMemcpy(room, from, bytes, cudaMemcpyHostToDevice));
    ASSAY_CUDA(cudaDeviceSynchronize());  // before any stream of the foreign code
  }
  void read(void* to, const void* room, std::size_t bytes) override {
    ASSAY_CUDA(cudaMemcpy(to, room, bytes, cudaMemcpyDeviceToHost));
  }
  void finish() override {
    const cudaError_t launched = cudaGetLastError();
    const cudaError_t ran = cudaDeviceSynchronize();
    for (const cudaError_t status : {launched, ran})
      if (status != cudaSuccess)
        throw CandidateError(std::string("expected the device to have no error after the run, found \"") +
                             cudaGetErrorString(status) + "\"");
  }

 private:
  std::vector<void*> rooms_;
};

}  // namespace
}  // namespace gpu

std::unique_ptr<ForeignMemory> foreign_device_memory() {
  if (const auto reason = gpu_unavailable()) throw InputError(*reason);
  return std::make_unique<gpu::DeviceMemory>();
}

Candidate candidate_of_device(const std::string& name) {
  if (const auto reason = gpu_unavailable()) throw InputError(*reason);
  return gpu::describe_candidate(name);
}

}  // namespace assay
